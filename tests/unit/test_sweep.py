"""Sweeps: every combination is what it is alone, in one compilation; runs side by side are those one after the other."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np
import pytest

from envs.probes import Walk, WalkBox
from mbrl_taskmet import Config, ConfigError, train
from mbrl_taskmet.core.settings import options
from mbrl_taskmet.core.settings_tree import flatten, with_numbers
from mbrl_taskmet.rl.environment import Environment
from mbrl_taskmet.rl.make import make_method
from mbrl_taskmet.rl.methods import METHODS, Learner
from mbrl_taskmet.rl.settings import Settings
from mbrl_taskmet.rl.sweep import grid
from mbrl_taskmet.rl.training import Trainer, grid_of, resolved

SIZES: dict[str, Any] = {"steps": 48, "eval_every": 48, "random_steps": 8, "batch_size": 8, "eval_episodes": 1, "x64": True,
                         "q_hidden": 8}  # fmt: skip
ENVIRONMENTS: dict[str, type[Environment]] = {"soft_q": Walk, "sac": WalkBox}
SWEPT = {
    "soft_q": {"temperature": [0.01, 0.1]},
    "sac": {"target_entropy": [-1.0, -2.0]},
}


def learned(trainer: Trainer) -> Learner:
    """What the updates of a chunk leave, leaves (runs, …)."""
    carry, _ = trainer.chunk(trainer.init(), 0)
    return trainer.axis.to_host(carry.learner)


def close(found: Any, truth: Any, tolerance: float) -> None:
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance), found, truth)


def configured(method: str, **given: Any) -> Config:
    own = {"metric_warmup": 20} if method == "taskmet" else {}
    own |= {"model_hidden": 8} if method != "model_free" else {}
    return Config(method=method, **{**SIZES, **own, **given})


@pytest.mark.parametrize("critic", ["soft_q", pytest.param("sac", marks=pytest.mark.slow)])
def test_a_sweep_compiles_once_and_every_combination_is_what_it_is_alone(critic: str) -> None:
    env, sweep = ENVIRONMENTS[critic](), {"metric_lr": [1e-3, 1e-2], **SWEPT[critic]}
    over = grid_of(env, configured("taskmet", seeds=2), sweep)
    trainer = Trainer(env, make_method(env, over.settings[0]), over.settings[0], jax.devices()[:1], over=over, vmapped=True)
    found = learned(trainer)  # side by side, as an accelerator runs them
    assert trainer._chunk._cache_size() == 1 and len(trainer.seeds) == 8
    alone = learned(Trainer(env, make_method(env, over.settings[3]), over.settings[3]))
    close(jax.tree.map(lambda leaf: leaf[6:8], found), alone, 1e-9)  # the order of sums in float64
    same = jax.tree.map(lambda leaf: np.array_equal(leaf[0], leaf[-2]), found.critic.params)
    assert not any(jax.tree.leaves(same))  # the numbers arrive


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "critic"),
    [(method, critic) for method in METHODS for critic in ENVIRONMENTS],
)
def test_runs_side_by_side_are_those_one_after_the_other(method: str, critic: str) -> None:
    env = ENVIRONMENTS[critic]()
    settings = resolved(env, configured(method, seeds=2, steps=208, eval_every=208))
    devices = jax.devices()[:1]
    found, truth = (
        learned(Trainer(env, make_method(env, settings), settings, devices, vmapped=vmapped)) for vmapped in (True, False)
    )
    close(found, truth, 1e-9)  # the order of sums in float64, over 200 updates


def test_every_number_that_can_be_swept_is_swept_without_a_word_from_the_compiler() -> None:
    """All of TaskMet's at once, each at two values: none meets a branch of Python."""
    env = Walk()
    base = configured("taskmet", l1=0.1, x64=False)
    names = {option.name for option in options(Settings) if option.traced} & base.resolve(env.action_space).names.keys()
    values = base.resolve(env.action_space).names
    sweep = {name: [values[name]] for name in names}
    over = grid_of(env, Config(**{k: v for k, v in base.given.items() if k not in sweep}), sweep)
    trainer = Trainer(env, make_method(env, over.settings[0]), over.settings[0], over=over)
    report = jax.eval_shape(trainer._chunk, trainer.shapes(), trainer.numbers, 0)[1]
    assert report.model_mse.shape == (1,)
    assert {"metric_lr", "metric_floor", "damping", "l1", "discount", "tau", "temperature", "model_sparsity"} <= names


def test_train_gives_every_run_its_numbers_and_seed() -> None:
    config = configured("mle", seeds=2, seed=3, x64=False)
    result = train(Walk(), config, sweep={"model_lr": [1e-3, 1e-2], "discount": [0.9, 0.99]})
    assert result.seeds.tolist() == [3, 4] * 4
    assert result.numbers["model_lr"].tolist() == [1e-3] * 4 + [1e-2] * 4
    assert result.numbers["discount"].tolist() == [0.9, 0.9, 0.99, 0.99] * 2
    assert result.returns.shape == (8, 1)
    assert train(Walk(), config).numbers == {}
    with pytest.raises(ConfigError, match="a method of your own is given and a sweep"):
        train(Walk(), config, method=make_method(Walk(), config.resolve()), sweep={"model_lr": [1e-3]})


def test_what_is_swept_is_named() -> None:
    assert grid(Config(), {"metric_lr": [1e-3, 0.003], "l1": [0.0]}).folders == ("metric_lr=0.001,l1=0", "metric_lr=0.003,l1=0")


@pytest.mark.parametrize(
    ("given", "sweep", "message"),
    [
        ({}, {"metric_rate": [1]}, "--sweep metric_rate is no setting; did you mean --metric-lr"),
        ({}, {"q_hidden": [8, 16]}, "--sweep q_hidden would change what is compiled; .* What can be swept: .*metric_lr"),
        ({}, {"metric_lr": []}, "--sweep metric_lr has the values"),
        ({}, {"metric_lr": [0.1, 0.1]}, "each once"),
        ({}, {"metric_lr": "0.1"}, "--sweep metric_lr has the values '0.1'"),
        ({}, {"metric_lr": [0.1, -1]}, r"--metric-lr is -1\.0"),
        ({}, {"metric_lr": ["a"]}, "--metric-lr is 'a'; give a number"),
        ({"metric_lr": 0.1}, {"metric_lr": [0.1]}, "--metric-lr 0.1 is given and swept"),
        ({"method": "mle"}, {"metric_lr": [0.1]}, "--metric-lr 0.1 does nothing for --method mle"),
    ],
)
def test_a_sweep_that_cannot_work_is_refused(given: dict[str, Any], sweep: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        grid(Config(**given), sweep)


def test_numbers_are_put_where_they_belong_and_nothing_else_changes() -> None:
    settings = Config(solver="cg", critic_solver="cg", damping=0.5).resolve()
    new = with_numbers(settings, {"damping": 2.0, "metric_lr": 3.0})
    changed = {name for name, value in flatten(new).items() if value != settings.names[name]}
    assert changed == {"damping", "metric_lr"} and new.method.solver.damping == 2.0  # type: ignore[attr-defined]
    assert dataclasses.is_dataclass(new) and type(new) is type(settings)
