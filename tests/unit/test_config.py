"""The settings: their names are the code's, presets the published ones, every bad value is refused, and old runs are read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from mbrl_taskmet.core.linear_solve import SOLVERS
from mbrl_taskmet.core.metric import INPUTS, METRICS
from mbrl_taskmet.core.settings import ConfigError, flag, options
from mbrl_taskmet.rl.critics import CRITICS, SoftActorCriticSettings, SoftQSettings
from mbrl_taskmet.rl.methods import METHODS
from mbrl_taskmet.rl.presets import PRESETS
from mbrl_taskmet.rl.settings import Config, Settings, read_saved
from mbrl_taskmet.rl.spaces import Box, Discrete
from mbrl_taskmet.runner.rundir import to_json
from runs.benchmark import EXPERIMENT

EVERY = [(method, preset, distractors) for method in METHODS for preset in PRESETS for distractors in (8, 0)]
FORMAT_1: dict[str, Any] = {  # what the default run saved, word for word
    "preset": "default", "method": "taskmet", "steps": 100_000, "seeds": 1, "seed": 0, "model_hidden": 32, "q_hidden": 32,
    "q_layer_norm": True, "q_sparsity": 0.1, "normalize_observations": True, "metric": "diagonal", "metric_input": "none",
    "metric_activation": "softplus", "normalize": True, "metric_floor": 0.5, "metric_hidden": None,
    "metric_start": "identity", "metric_lr": 0.003, "metric_lr_decay": 1000, "metric_warmup": 5000, "metric_every": 4,
    "l1": 0.0, "l1_reduction": "mean", "solver": "minres", "solver_steps": 5, "damping": 0.0, "critic_solver": "identity",
    "critic_solver_steps": 0, "critic_damping": 0.0, "model_optimizer": "adam", "model_lr": 0.001, "model_sparsity": 0.1,
    "critic_lr": 0.0003, "temperature": 0.01, "discount": 0.99, "tau": 0.01, "policy": "target", "epsilon": 0.1,
    "random_steps": 1000, "batch_size": 256, "replay_capacity": None, "eval_every": 1000, "eval_episodes": 10, "x64": False,
}  # fmt: skip
OF_TASKMET = [name for name in FORMAT_1 if name.startswith(("metric", "normalize", "l1", "solver", "damping", "critic_"))
              and name not in ("normalize_observations", "critic_lr")]  # fmt: skip
LATER = ("q_layer_norm", "q_sparsity", "metric_lr_decay", "model_sparsity", "metric_activation")
"""Fields that the first runs of format 1 did not have."""


def format_1(distractors: int = 0, without: tuple[str, ...] = (), **changed: Any) -> dict[str, Any]:
    """A `config.json` of format 1: flat, complete, with None where the method has no such thing."""
    absent = {} if changed.get("method", "taskmet") == "taskmet" else dict.fromkeys(OF_TASKMET)
    config = {name: value for name, value in {**FORMAT_1, **absent, **changed}.items() if name not in without}
    saved = {"format": 1, "environment": "CartPole-v1", "distractors": distractors, "config": config}
    return json.loads(json.dumps(saved))


def saved(names: Mapping[str, Any]) -> dict[str, Any]:
    """What is read from the `config.json` of today."""
    return json.loads(json.dumps(to_json(names)))


def test_the_names_in_the_configuration_are_those_of_the_code() -> None:
    choices = {option.name: option.choices for option in options(Settings)}
    assert (choices["method"], choices["critic"], choices["preset"]) == (tuple(METHODS), tuple(CRITICS), tuple(PRESETS))
    assert choices["solver"] == choices["critic_solver"] == tuple(SOLVERS)
    assert (choices["metric"], choices["metric_input"]) == (tuple(METRICS), tuple(INPUTS))


@pytest.mark.parametrize("name", SOLVERS)
def test_a_solver_has_the_same_defaults_in_the_configuration_and_in_the_code(name: str) -> None:
    method = Config(solver=name, critic_solver=name).resolve().method
    assert method.solver == method.critic_solver == SOLVERS[name]()


def test_the_default_run_is_one_seed_of_taskmet_for_100_000_steps() -> None:
    names = Config().resolve().names
    assert (names["method"], names["seeds"], names["steps"], names["x64"]) == ("taskmet", 1, 100_000, False)
    assert names["critic_solver"] == "identity"


def test_the_paper_preset_is_the_published_setting() -> None:
    names = Config(preset="paper", distractors=8).resolve().names
    expected = {
        "steps": 200_000, "seeds": 10, "batch_size": 256,
        "solver": "normal_cg", "solver_steps": 10, "damping": 0.0, "critic_solver": "identity",
        "metric": "diagonal", "metric_input": "none", "normalize": True,
        "metric_lr": 1e-3, "metric_warmup": 5000, "metric_every": 1, "metric_floor": 0.0,
        "model_optimizer": "adam",
        "q_layer_norm": False, "metric_lr_decay": 0,
        "q_sparsity": 0.0, "model_sparsity": 0.0,
    }  # fmt: skip
    assert {name: names[name] for name in expected} == expected


def test_the_shared_preset_is_what_the_benchmark_runs() -> None:
    line = next(setting for setting in EXPERIMENT.settings if setting.name == "cartpole-oscillators-16units-taskmet_shared")
    ours = Config(preset="shared", disturbance="oscillators", distractors=32, model_hidden=16, eval_every=2500).resolve().names
    assert ours == {**line.config.resolve().names, "preset": "shared"}
    assert Config(preset="shared", method="mle").resolve().names["model_sparsity"] == 0


def test_the_papers_metric_without_distractors_is_full_and_conditional() -> None:
    names = Config(preset="paper", distractors=0).resolve().names
    assert (names["metric"], names["metric_input"], names["metric_hidden"]) == ("full", "state_action", (32, 32))


def test_the_paper_preset_of_the_actor_critic_is_omds_on_halfcheetah() -> None:
    names = Config(preset="paper", method="omd", critic="sac").resolve().names
    expected = {
        "q_hidden": 256, "actor_hidden": 256, "model_hidden": 256, "q_output_scale": 2**0.5, "model_output_scale": 2**0.5,
        "critic_lr": 3e-4, "actor_lr": 3e-4, "temperature_lr": 3e-4, "model_lr": 3e-4, "tau": 0.005, "target_entropy": -0.5,
        "random_steps": 10_000, "batch_size": 256, "eval_every": 5000, "eval_episodes": 10, "normalize_observations": False,
        "q_layer_norm": False, "q_sparsity": 0.0, "model_sparsity": 0.0, "discount": 0.99, "critic_solver": "identity",
        "horizon": 1, "model_target": "observation",
    }  # fmt: skip
    assert {name: names[name] for name in expected} == expected


@pytest.mark.parametrize("distractors", [8, 0])
def test_paper_code_is_paper_with_the_accidents_of_the_authors_code(distractors: int) -> None:
    code, paper = (Config(preset=preset, distractors=distractors).resolve().names for preset in ("paper-code", "paper"))
    assert code.keys() == paper.keys()
    accidents = {name: value for name, value in code.items() if value != paper[name]}
    expected = {"preset": "paper-code", "metric_start": "published", "l1_reduction": "sum", "model_optimizer": "first_adam",
                "head_reduction": "mean", "linear_system": "model"}  # fmt: skip
    assert accidents == expected | ({} if distractors else {"metric_hidden": (32,)})


@pytest.mark.parametrize("method", ["mle", "omd"])
def test_the_baselines_of_paper_code_have_a_working_adam(method: str) -> None:
    assert Config(preset="paper-code", method=method).resolve().names["model_optimizer"] == "adam"


@pytest.mark.parametrize(("method", "preset", "distractors"), EVERY)
def test_resolving_fills_what_the_method_has_and_nothing_else(method: str, preset: str, distractors: int) -> None:
    names = Config(method=method, preset=preset, distractors=distractors).resolve().names
    expected = {"omd": (True, False), "taskmet": (False, False)}.get(method, (True, True))
    assert ("metric" not in names, "critic_solver" not in names) == expected
    assert ("solver" not in names, "critic_damping" not in names) == expected
    assert ("solver_steps" in names, "critic_solver_steps" in names) == (method == "taskmet", False)  # identity has none
    assert None not in (names["steps"], names["seeds"])
    assert ("model_optimizer" not in names) == ("model_lr" not in names) == (method == "model_free")


@pytest.mark.parametrize(("method", "preset", "distractors"), EVERY)
def test_a_resolved_configuration_resolves_to_itself_and_survives_json(method: str, preset: str, distractors: int) -> None:
    settings = Config(method=method, preset=preset, distractors=distractors, seed=3).resolve()
    assert Config(**settings.names).resolve() == settings
    assert read_saved(saved(settings.names)) == settings


def test_the_critic_is_chosen_by_the_action_space_and_given_ones_must_fit() -> None:
    discrete, box = Discrete(2), Box((-1.0,), (1.0,))
    assert isinstance(Config().resolve(discrete).critic, SoftQSettings)
    assert isinstance(Config().resolve(box).critic, SoftActorCriticSettings)
    assert isinstance(Config(critic="sac").resolve(box).critic, SoftActorCriticSettings)
    settings = Config(actor_hidden=8).resolve()  # no action space is known yet: whichever critic has what was given
    assert isinstance(settings.critic, SoftActorCriticSettings) and settings == Config(**settings.names).resolve(box)
    assert read_saved(saved(settings.names)) == settings
    with pytest.raises(
        ConfigError, match=r"--critic soft_q is for other actions than Box.*; leave it out, or use --critic sac"
    ):
        Config(critic="soft_q").resolve(box)
    with pytest.raises(
        ConfigError, match=r"--epsilon 0\.1 does nothing for --critic sac; leave it out, or use --critic soft_q"
    ):
        Config(epsilon=0.1).resolve(box)


@pytest.mark.parametrize("distractors", [8, 0])
@pytest.mark.parametrize("method", METHODS)
def test_a_run_saved_in_format_1_is_read(method: str, distractors: int) -> None:
    own = {} if method != "omd" else {"critic_solver": "identity", "critic_solver_steps": 0, "critic_damping": 0.0}
    if method == "model_free":
        own = dict.fromkeys(name for name in FORMAT_1 if name.startswith("model_"))
    settings = read_saved(format_1(distractors, method=method, **own))
    assert settings == Config(method=method, distractors=distractors).resolve()


def test_a_run_of_format_1_with_settings_of_its_own_is_read() -> None:
    own = {"preset": "paper-code", "metric": "full", "metric_input": "state_action", "metric_hidden": (32,),
           "metric_floor": 0.0, "metric_start": "published", "solver": "normal_cg", "solver_steps": 10,
           "critic_solver": "minres", "critic_solver_steps": 7, "replay_capacity": 5000, "seed": 4, "seeds": 2}  # fmt: skip
    settings = read_saved(format_1(**own, metric_activation=None))
    assert {name: settings.names[name] for name in own} == own
    # where format 1 noted a value, the preset's does not count
    assert (settings.names["metric_lr"], settings.names["l1_reduction"]) == (0.003, "mean")
    assert settings.environment.name == "CartPole-v1" and settings.environment.distractors == 0


@pytest.mark.parametrize("method", ["taskmet", "mle"])
@pytest.mark.parametrize("version", [1, 2])
def test_a_saved_run_that_is_older_than_a_field_keeps_to_what_it_did(method: str, version: int) -> None:
    if version == 1:
        settings = read_saved(format_1(method=method, without=LATER))
    else:
        names = Config(method=method).resolve().names
        settings = read_saved(saved({name: value for name, value in names.items() if name not in LATER}))
    names = settings.names
    assert (names["q_layer_norm"], names["q_sparsity"], names["model_sparsity"]) == (False, 0.0, 0.0)
    assert names.get("metric_lr_decay") == (0 if method == "taskmet" else None)
    assert names.get("metric_activation") == ("softplus" if method == "taskmet" else None)


def test_a_saved_full_metric_has_no_activation() -> None:
    settings = read_saved(format_1(metric="full", without=("metric_activation",)))
    assert settings.names["metric"] == "full" and "metric_activation" not in settings.names
    assert read_saved(format_1(metric="full", metric_activation=None)) == settings
    assert "metric_activation" not in read_saved(saved(Config(metric="full").resolve().names)).names


def test_what_was_given_wins_over_the_preset() -> None:
    given = {"steps": 5000, "metric": "full", "metric_input": "state", "solver": "gauss_newton", "damping": 0.5, "seeds": 2}
    settings = Config(preset="paper", **given).resolve()
    assert {name: settings.names[name] for name in given} == given
    assert settings.names["solver_steps"] == SOLVERS["gauss_newton"]().steps


def test_more_settings_win_over_those_that_were_given() -> None:
    config = Config(steps=5000, seeds=2) | {"seeds": 3, "method": "mle"}
    assert config.given == {"steps": 5000, "seeds": 3, "method": "mle"}
    assert repr(config) == "Config(steps=5000, seeds=3, method='mle')"


def test_a_scalar_metric_is_not_normalised_unless_asked() -> None:
    assert Config(metric="scalar").resolve().names["normalize"] is False


@pytest.mark.parametrize("contents", [format_1(temperament=1), saved({**Config().resolve().names, "temperament": 1})])
def test_a_field_that_another_version_wrote_is_named(contents: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"'temperament'.*the version that wrote it"):
        read_saved(contents)


def test_a_name_that_is_no_setting_is_refused_with_the_nearest_that_is() -> None:
    with pytest.raises(ConfigError, match=r"'metric_flor' is no setting; did you mean 'metric_floor'\?"):
        Config(metric_flor=0.1)


COUNTS = ["steps", "seeds", "model_hidden", "q_hidden", "metric_every", "random_steps", "batch_size", "eval_every",
          "eval_episodes"]  # fmt: skip
NOT_NEGATIVE = ["seed", "model_sparsity", "q_sparsity", "metric_lr_decay", "metric_warmup", "l1", "damping", "critic_damping",
                "distractors"]  # fmt: skip
SHARES = ["metric_floor", "discount", "tau", "epsilon"]
INFINITE = float("inf")
POSITIVE = ["metric_lr", "model_lr", "critic_lr", "temperature"]
RULES: list[tuple[dict[str, Any], str]] = [
    *[({name: 0}, f"{flag(name)} is 0; give 1 or more") for name in COUNTS],
    *[({name: -1}, f"{flag(name)} is -1{end}; give 0 or more") for name in NOT_NEGATIVE
      for end in ["" if name in ("seed", "metric_lr_decay", "metric_warmup", "distractors") else ".0"]],
    *[({name: value}, f"is {value}; give a number from 0 to") for name in SHARES for value in (-0.1, 1.1, float("nan"))],
    *[({name: value}, f"is {value}; give a finite number above 0") for name in POSITIVE for value in (0.0, -1e-3, INFINITE)],
    ({"metric_lr": float("nan")}, "--metric-lr is nan"),
    ({"damping": INFINITE}, "--damping is inf"),
    ({"l1": float("nan")}, "--l1 is nan"),
    ({"target_entropy": INFINITE}, "--target-entropy is inf; give a finite number"),
    ({"solver": "neumann", "solver_step_size": 0.0}, "--solver-step-size is 0.0; give a finite number above 0"),
    ({"metric_input": "state", "metric_hidden": (32, 0)}, "--metric-hidden is 0; give 1 or more"),
    ({"method": "taskmat"}, "--method 'taskmat' is unknown; did you mean 'taskmet'? There are mle, omd, taskmet, vep,"),
    ({"preset": "papper"}, "did you mean 'paper'?"),
    ({"critic": "soft_k"}, "--critic 'soft_k' is unknown; did you mean 'soft_q'?"),
    ({"metric": "diag"}, "--metric 'diag' is unknown; did you mean 'diagonal'?"),
    ({"metric_input": "action"}, "did you mean 'state_action'?"),
    ({"metric_start": "publish"}, "did you mean 'published'?"),
    ({"l1_reduction": "summ"}, "did you mean 'sum'?"),
    ({"solver": "min_res"}, "--solver 'min_res' is unknown; did you mean 'minres'?"),
    ({"critic_solver": "dens"}, "--critic-solver 'dens' is unknown; did you mean 'dense'?"),
    ({"model_optimizer": "sgd"}, "There are adam, first_adam"),
    ({"batch_size": 256, "steps": 100, "eval_every": 100}, "--batch-size 256 is more than --steps 100; give more steps"),
    ({"batch_size": 256, "random_steps": 254}, "--batch-size 256 is more than the --random-steps 254"),
    ({"replay_capacity": 255}, "--replay-capacity 255 is less than --batch-size 256; give more"),
    ({"steps": 2500}, "--steps 2500 is no multiple of --eval-every 1000; give --steps 3000"),
    ({"metric": "scalar", "normalize": True}, "add --no-normalize"),
    ({"metric": "full", "metric_activation": "exp"}, "--metric-activation exp does nothing for --metric full"),
    ({"metric_start": "published", "metric_activation": "exp"}, "give --metric-activation softplus"),
    ({"metric_input": "none", "metric_hidden": (8,)}, "--metric-hidden (8,) does nothing for --metric-input none"),
    ({"metric_hidden": (8,)}, "leave it out, or use --metric-input state or state_action"),
    *[({"solver": "cg", "solver_steps": steps}, f"--solver-steps is {steps}; give 1 or more") for steps in (0, -1)],
    ({"solver": "dense", "solver_steps": 3}, "--solver-steps 3 does nothing for --solver dense; leave it out"),
    *[({"critic_solver": "minres", "critic_solver_steps": steps}, f"--critic-solver-steps is {steps}; give 1 or more")
      for steps in (0, -1)],
    ({"critic_solver": "identity", "critic_solver_steps": 2}, "--critic-solver-steps 2 does nothing for"),
    ({"seed": 2**31 - 1, "seeds": 2}, "--seed is 2147483647; give one under 2147483646, for random keys take 31 bits"),
    # what is of another type
    ({"steps": "300"}, "--steps is '300'; give a whole number"),
    ({"steps": 300.0}, "--steps is 300.0; give a whole number"),
    ({"seed": 1.5}, "--seed is 1.5; give a whole number"),
    ({"seeds": True}, "--seeds is True; give a whole number"),
    ({"replay_capacity": "all"}, "--replay-capacity is 'all'; give a whole number"),
    ({"q_layer_norm": "no"}, "--q-layer-norm is 'no'; give True or False"),
    ({"x64": 1}, "--x64 is 1; give True or False"),
    ({"metric_lr": "fast"}, "--metric-lr is 'fast'; give a number"),
    ({"l1": True}, "--l1 is True; give a number"),
    ({"env": 1}, "--env is 1; give a text"),
    ({"metric_input": "state", "metric_hidden": 8}, "--metric-hidden is 8; give whole numbers"),
    ({"metric_input": "state", "metric_hidden": [8, 8.5]}, "--metric-hidden is [8, 8.5]; give whole numbers"),
    ({"method": 3}, "--method 3 is unknown"),
    *[({name: ["paper"]}, f"{flag(name)} ['paper'] is unknown; did you mean")
      for name in ("method", "preset", "critic", "metric")],
    # what 32 bits do not hold
    *[({name: 2**31}, f"{flag(name)} is 2147483648; give 2147483647 or less")
      for name in ("steps", "seeds", "seed", "model_hidden", "metric_every", "solver_steps", "replay_capacity")],
    ({"metric_input": "state", "metric_hidden": (2**31,)}, "--metric-hidden is 2147483648; give 2147483647 or less"),
]  # fmt: skip


@pytest.mark.parametrize(("given", "message"), RULES, ids=lambda part: str(part)[:60])
def test_a_bad_value_is_named_with_its_remedy(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        Config(**given).resolve()
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("given", [{"random_steps": 255}, {"replay_capacity": 256}, {"tau": 0.0}, {"discount": 1.0}, {"l1": 0}])
def test_a_value_at_the_edge_of_its_range_is_taken(given: dict[str, Any]) -> None:
    assert Config(**given).resolve()


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ({"metric_hidden": [8]}, (8,)), ({"metric_hidden": (np.int64(8), 4)}, (8, 4)), ({"steps": np.int64(3000)}, 3000),
        ({"l1": 1}, 1.0), ({"q_layer_norm": np.False_}, False), ({"metric_lr": np.float64(0.5)}, 0.5),
    ],
    ids=str,
)  # fmt: skip
def test_a_value_is_taken_in_its_own_type(given: dict[str, Any], taken: Any) -> None:
    (name,) = given
    found = Config(metric_input="state", **given).resolve().names[name]
    assert found == taken and type(found) is type(taken)
    assert json.dumps(found)  # no type of numpy's is left inside


def test_none_counts_as_not_given() -> None:
    assert Config(method=None, preset=None, critic=None, distractors=None, steps=None, metric_hidden=None).resolve() == (
        Config().resolve()
    )
    assert Config(method="mle", metric_floor=None).resolve() == Config(method="mle").resolve()


FULL = Config(metric_input="state", metric_until=6000, solver="cg", critic_solver="cg").resolve().names
OWN = {method: {option.name for option in options(record)} for method, record in METHODS.items()}
USELESS = [(method, name) for method in METHODS for name in sorted(OWN["taskmet"] & FULL.keys() - OWN[method])]


@pytest.mark.parametrize(("method", "name"), USELESS)
def test_what_does_nothing_for_a_method_is_refused_and_the_method_it_is_for_named(method: str, name: str) -> None:
    owners = "taskmet"
    if name in ("critic_solver", "critic_solver_steps", "critic_damping"):
        owners = "omd or taskmet"
    if name.startswith("model_") or name == "horizon":
        owners = "mle or omd or taskmet or vep or vagram or itervaml"
    value = FULL[name]
    with pytest.raises(ConfigError) as refused:
        Config(method=method, **{name: value}).resolve()
    remedy = f"leave it out, or use --method {owners}"
    assert str(refused.value) == f"{flag(name)} {value} does nothing for --method {method}; {remedy}"


def test_every_method_refuses_as_many_settings_as_before() -> None:
    old = OWN["taskmet"] & FORMAT_1.keys()
    assert len(old) == 23  # of the metric 16, of the critic's solver 3, of the model 4
    assert {method: len(old - own) for method, own in OWN.items()} == {
        "mle": 19, "omd": 16, "taskmet": 0, "vep": 19, "vagram": 19, "itervaml": 19, "model_free": 23,
    }  # fmt: skip


def test_every_field_is_documented_and_has_a_rule_for_its_range() -> None:
    every = list(options(Settings))
    assert len(every) > 50
    for option in every:
        metadata = option.field.metadata
        assert metadata["help"], option.name
        if not option.choices and option.hint not in (bool, str) and option.name != "target_entropy":
            limits = [metadata[limit] for limit in ("low", "high", "above")]
            assert limits != [None] * 3, f"{option.name} takes any value"


def test_a_setting_that_several_records_have_is_one_flag_of_one_type() -> None:
    hints: dict[str, set[str]] = {}
    for option in options(Settings):
        hints.setdefault(option.name, set()).add(str(option.hint) if option.variants is None else str(option.choices))
    assert {name: found for name, found in hints.items() if len(found) > 1} == {}
