"""The configuration: its names are the code's names, its presets are the published ones, and every bad value is refused."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from mbrl_taskmet import config as names
from mbrl_taskmet.config import Config, ConfigError
from mbrl_taskmet.core.linear_solve import SOLVERS, Solver
from mbrl_taskmet.rl.methods import METHODS

EVERY = [(method, preset, noisy) for method in METHODS for preset in names.PRESETS for noisy in (True, False)]


def test_the_names_in_the_configuration_are_those_of_the_code() -> None:
    assert (tuple(METHODS), tuple(SOLVERS)) == (names.METHODS, tuple(names.SOLVERS))


@pytest.mark.parametrize("name", SOLVERS)
def test_a_solver_has_the_same_defaults_in_the_configuration_and_in_the_code(name: str) -> None:
    solver: Solver = SOLVERS[name]()
    assert names.SOLVERS[name] == (solver.steps, solver.damping)


def test_the_default_run_is_one_seed_of_taskmet_for_100_000_steps() -> None:
    config = Config().resolve()
    assert (config.method, config.seeds, config.steps, config.x64) == ("taskmet", 1, 100_000, False)
    assert config.critic_solver == "identity"


def test_the_paper_preset_is_the_published_setting() -> None:
    config = Config(preset="paper").resolve(noisy=True)
    assert (config.steps, config.seeds, config.batch_size) == (200_000, 10, 256)
    assert (config.solver, config.solver_steps, config.damping, config.critic_solver) == ("normal_cg", 10, 0.0, "identity")
    assert (config.metric, config.metric_input, config.normalize) == ("diagonal", "none", True)
    assert (config.metric_lr, config.metric_warmup, config.metric_every, config.metric_floor) == (1e-3, 5000, 1, 0.0)
    assert config.model_optimizer == "adam"
    assert (config.q_layer_norm, config.metric_lr_decay) == (False, 0)
    assert (config.q_sparsity, config.model_sparsity) == (0.0, 0.0)


def test_the_papers_metric_without_distractors_is_full_and_conditional() -> None:
    config = Config(preset="paper").resolve(noisy=False)
    assert (config.metric, config.metric_input, config.metric_hidden) == ("full", "state_action", (32, 32))


@pytest.mark.parametrize("noisy", [True, False])
def test_paper_code_is_paper_with_the_accidents_of_the_authors_code(noisy: bool) -> None:
    code, paper = (Config(preset=preset).resolve(noisy) for preset in ("paper-code", "paper"))
    accidents = {name: value for name, value in code.to_json().items() if value != paper.to_json()[name]}
    expected = {"preset": "paper-code", "metric_start": "published", "l1_reduction": "sum", "model_optimizer": "first_adam"}
    assert accidents == expected | ({} if noisy else {"metric_hidden": (32,)})


@pytest.mark.parametrize("method", ["mle", "omd"])
def test_the_baselines_of_paper_code_have_a_working_adam(method: str) -> None:
    assert Config(preset="paper-code", method=method).resolve().model_optimizer == "adam"


@pytest.mark.parametrize(("method", "preset", "noisy"), EVERY)
def test_resolving_fills_what_the_method_has_and_nothing_else(method: str, preset: str, noisy: bool) -> None:
    config = Config(method=method, preset=preset).resolve(noisy)
    expected = {"omd": (True, False), "taskmet": (False, False)}.get(method, (True, True))
    assert (config.metric is None, config.critic_solver is None) == expected
    assert (config.solver is None, config.critic_solver_steps is None) == expected
    assert None not in (config.steps, config.seeds)
    assert (config.model_optimizer is None) == (config.model_lr is None) == (method == "model_free")


@pytest.mark.parametrize(("method", "preset", "noisy"), EVERY)
def test_a_resolved_configuration_resolves_to_itself_and_survives_json(method: str, preset: str, noisy: bool) -> None:
    config = Config(method=method, preset=preset, seed=3).resolve(noisy)
    assert config.resolve(noisy) == config
    assert Config.from_json(json.loads(json.dumps(config.to_json()))) == config


@pytest.mark.parametrize("method", ["taskmet", "mle"])
def test_a_saved_run_that_is_older_than_a_field_keeps_to_what_it_did(method: str) -> None:
    saved = Config(method=method).resolve().to_json()
    for name in ("q_layer_norm", "q_sparsity", "metric_lr_decay", "model_sparsity", "metric_activation"):
        del saved[name]
    config = Config.from_json(saved).resolve()
    assert (config.q_layer_norm, config.q_sparsity, config.model_sparsity) == (False, 0.0, 0.0)
    assert config.metric_lr_decay == (0 if method == "taskmet" else None)
    assert config.metric_activation == ("softplus" if method == "taskmet" else None)


def test_a_saved_full_metric_has_no_activation() -> None:
    saved = Config(metric="full").resolve().to_json()
    del saved["metric_activation"]
    assert Config.from_json(saved).resolve().metric_activation is None


def test_what_was_given_wins_over_the_preset() -> None:
    given = {"steps": 5000, "metric": "full", "metric_input": "state", "solver": "gauss_newton", "damping": 0.5, "seeds": 2}
    config = Config(preset="paper", **given).resolve()
    assert {name: getattr(config, name) for name in given} == given
    assert config.solver_steps == names.SOLVERS["gauss_newton"][0]


def test_a_scalar_metric_is_not_normalised_unless_asked() -> None:
    assert Config(metric="scalar").resolve().normalize is False


def test_a_field_that_another_version_wrote_is_named() -> None:
    with pytest.raises(ConfigError, match=r"'temperament'.*the version that wrote it"):
        Config.from_json({**Config().resolve().to_json(), "temperament": 1})


COUNTS = ["steps", "seeds", "model_hidden", "q_hidden", "metric_every", "random_steps", "batch_size", "eval_every",
          "eval_episodes"]  # fmt: skip
NOT_NEGATIVE = ["seed", "model_sparsity", "q_sparsity", "metric_lr_decay", "metric_warmup", "l1",
                "solver_steps", "damping", "critic_solver_steps", "critic_damping"]  # fmt: skip
SHARES = ["metric_floor", "discount", "tau", "epsilon"]
INFINITE = float("inf")
POSITIVE = ["metric_lr", "model_lr", "critic_lr", "temperature"]
RULES: list[tuple[dict[str, Any], str]] = [
    *[({name: 0}, f"--{name.replace('_', '-')} is 0; give 1 or more") for name in COUNTS],
    *[({name: -1}, f"--{name.replace('_', '-')} is -1; give 0 or more") for name in NOT_NEGATIVE],
    *[({name: value}, f"is {value}; give a number from 0 to") for name in SHARES for value in (-0.1, 1.1, float("nan"))],
    *[({name: value}, f"is {value}; give a finite number above 0") for name in POSITIVE for value in (0.0, -1e-3, INFINITE)],
    ({"metric_lr": float("nan")}, "--metric-lr is nan"),
    ({"damping": INFINITE}, "--damping is inf"),
    ({"l1": float("nan")}, "--l1 is nan"),
    ({"metric_input": "state", "metric_hidden": (32, 0)}, "--metric-hidden is 0; give 1 or more"),
    ({"method": "taskmat"}, "--method 'taskmat' is unknown; did you mean 'taskmet'? There are mle, omd, taskmet, vep,"),
    ({"preset": "papper"}, "did you mean 'paper'?"),
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
    ({"metric_input": "none", "metric_hidden": (8,)}, "--metric-hidden does nothing for --metric-input none"),
    ({"solver": "cg", "solver_steps": 0}, "--solver-steps is 0; give 1 or more"),
    ({"solver": "dense", "solver_steps": 3}, "--solver-steps does nothing for --solver dense; leave it out"),
    ({"critic_solver": "minres", "critic_solver_steps": 0}, "--critic-solver-steps is 0; give 1 or more"),
    ({"critic_solver": "identity", "critic_solver_steps": 2}, "--critic-solver-steps does nothing for"),
]  # fmt: skip


@pytest.mark.parametrize(("given", "message"), RULES, ids=lambda part: str(part)[:60])
def test_a_bad_value_is_named_with_its_mend(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        Config(**given).resolve()
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("given", [{"random_steps": 255}, {"replay_capacity": 256}, {"tau": 0.0}, {"discount": 1.0}, {"l1": 0}])
def test_a_value_at_the_edge_of_its_range_is_taken(given: dict[str, Any]) -> None:
    assert Config(**given).resolve()


FULL = Config(metric_input="state", solver="cg", critic_solver="cg").resolve()
USELESS = [(method, name) for method in METHODS for name in sorted(names._METHOD_FIELDS - names._fields_of(method))]


@pytest.mark.parametrize(("method", "name"), USELESS)
def test_what_does_nothing_for_a_method_is_refused_and_the_method_it_is_for_named(method: str, name: str) -> None:
    owners = "taskmet"
    if name in names._IMPLICIT_FIELDS:
        owners = "omd or taskmet"
    if name in names._MODEL_FIELDS:
        owners = "mle or omd or taskmet or vep or vagram or itervaml"
    value = getattr(FULL, name)
    with pytest.raises(ConfigError) as refused:
        Config(method=method, **{name: value}).resolve()
    option = f"--{name.replace('_', '-')} {value}"
    mend = f"leave it out, or use --method {owners}"
    assert str(refused.value) == f"{option} does nothing for the method {method}; {mend}"


def test_every_field_is_documented_and_has_a_rule_for_its_range() -> None:
    for field in dataclasses.fields(Config):
        assert field.metadata["help"], field.name
        if "choices" not in field.metadata and "bool" not in str(field.type):
            ranged = {*names._AT_LEAST, *names._BETWEEN, *names._POSITIVE}
            assert field.name in ranged, f"{field.name} takes any value"
