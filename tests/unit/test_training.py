"""The loop: seeds that do not touch each other, one compilation, float64 on request, and failures that are kept apart."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.probes import Walk
from mbrl_taskmet import Config, ConfigError, train
from mbrl_taskmet.rl.environment import Environment, State
from mbrl_taskmet.rl.make import make_method
from mbrl_taskmet.rl.methods import Learner
from mbrl_taskmet.rl.post_mortem import failed_operation
from mbrl_taskmet.rl.spaces import Discrete
from mbrl_taskmet.rl.training import Carry, Report, Trainer
from mbrl_taskmet.runner.agent_record import collapse, failure, rows_of

SIZES: dict[str, Any] = {
    "method": "mle",
    "steps": 300,
    "eval_every": 100,
    "eval_episodes": 2,
    "random_steps": 64,
    "batch_size": 32,
    "skip_limit": 1,
}
SICK, NEVER = 150, 10**6


class Fragile(Environment):
    """A drift in a circle, rewarded by where it is; a state that is `sick` at some step, or for `ever`, gives NaN there."""

    name, state_names, action_space, max_episode_steps = "fragile", ("x", "y"), Discrete(2), 400

    def reset(self, key: jax.Array) -> tuple[State, jax.Array]:
        angle = jax.random.uniform(key)
        return {"angle": angle, "step": jnp.int32(0), "sick": jnp.int32(NEVER), "ever": jnp.array(False)}, self._seen(angle)

    def transition(self, key: jax.Array, state: State, action: jax.Array) -> tuple[Any, ...]:
        angle = state["angle"] + 0.3 * action + 0.1 * jax.random.normal(key)
        sick = (state["step"] == state["sick"]) | (state["ever"] & (state["step"] > state["sick"]))
        reward = jnp.where(sick, jnp.nan, jnp.cos(angle))
        state = state | {"angle": angle, "step": state["step"] + 1}
        return state, self._seen(angle), reward, jnp.array(False), jnp.array(False)

    def _seen(self, angle: jax.Array) -> jax.Array:
        return jnp.stack([jnp.cos(angle), jnp.sin(angle)])


def make_trainer(env: Environment, **settings: Any) -> Trainer:
    config = Config(**{**SIZES, **settings}).resolve(env.action_space)
    return Trainer(env, make_method(env, config), config)


def run(trainer: Trainer, carry: Carry) -> tuple[Carry, list[Report]]:
    reports: list[Report] = []
    for _, moved, report in trainer.run(carry):
        carry, reports = moved, [*reports, report]
    return carry, reports


def test_rewards_are_scaled_on_their_way_into_the_replay() -> None:
    plain, scaled = (run(one, one.init())[0] for one in (make_trainer(Fragile(), reward_scale=c) for c in (1.0, 0.25)))
    first = slice(0, SIZES["random_steps"])  # the actions of the start do not depend on it
    rewards = np.asarray(plain.replay.reward[:, first])
    assert np.abs(rewards).max() > 0.5
    np.testing.assert_array_equal(scaled.replay.reward[:, first], rewards / 4)


@pytest.fixture(scope="module")
def trainer() -> Trainer:
    return make_trainer(Fragile(), seeds=3)


@pytest.fixture(scope="module")
def healthy(trainer: Trainer) -> tuple[Carry, list[Report]]:
    return run(trainer, trainer.init())


@pytest.fixture(scope="module")
def one_sick(trainer: Trainer, healthy: Any) -> tuple[Carry, list[Report]]:
    """The same program, but the reward of seed 1 is NaN at step 150."""
    return run(trainer, with_sick_seed(trainer, SICK))


def with_sick_seed(trainer: Trainer, step: int, ever: bool = False) -> Carry:
    """The start of seeds of which the second has the reward NaN at a step, or from it on."""
    carry = trainer.init()
    sick = jnp.full(len(trainer.seeds), NEVER, jnp.int32).at[1].set(step)
    episode = carry.env_state
    placed = {"sick": sick, "ever": jnp.full(len(trainer.seeds), ever)}
    state = episode.state | jax.device_put(placed, trainer.axis.sharding)
    return carry._replace(env_state=episode._replace(state=state))


def learned(carry: Carry, seed: int) -> list[np.ndarray]:
    return [np.asarray(leaf)[seed] for leaf in jax.tree.leaves(carry.learner)]


def test_a_chunk_compiles_once_however_many_there_are(trainer: Trainer, healthy: Any, one_sick: Any) -> None:
    assert len(healthy[1]) + len(one_sick[1]) == 6
    assert trainer._chunk._cache_size() == trainer._init._cache_size() == 1


def test_seeds_differ(healthy: tuple[Carry, list[Report]]) -> None:
    carry, reports = healthy
    assert len(set(reports[-1].model_mse)) == 3
    assert not np.array_equal(np.asarray(carry.replay.action)[0], np.asarray(carry.replay.action)[1])


def test_a_seed_that_fails_is_reported_by_step_and_quantity(one_sick: tuple[Carry, list[Report]]) -> None:
    first, *later = one_sick[1]
    assert list(first.failed_step) == [-1, -1, -1]
    for report in later:
        step = int(report.failed_step[1])
        # a batch of 32 among 150 meets the newest step within 50 updates, but for a chance of 1 in 10 000
        assert SICK <= step < SICK + 50 and list(report.failed_step) == [-1, step, -1]
        assert Learner._fields[report.failed_part[1]] == "model"
        told = failure(report, 1)
        assert told.startswith(f"the parameters of model turned non-finite at step {step} (1 updates skipped); before")
        rows = rows_of(report, 200, 0, ("x", "y"), 1.0)
        assert ["failure" in row for row in rows] == [False, True, False]
        assert None not in (rows[1]["eval/return"], rows[1]["train/model_mse"], rows[0]["train/task_loss"])


def test_the_last_finite_state_of_a_failed_seed_is_kept(one_sick: tuple[Carry, list[Report]], trainer: Trainer) -> None:
    carry, reports = one_sick
    assert all(np.isfinite(leaf).all() for leaf in learned(carry, 1))
    start = learned(trainer.init(), 1)
    assert any(not np.array_equal(now, then) for now, then in zip(learned(carry, 1), start, strict=True))
    counts = [leaf for leaf in learned(carry, 1) if leaf.dtype == jnp.int32]  # Adam's, one per update
    assert counts and set(map(int, counts)) == {int(reports[-1].failed_step[1]) - SIZES["random_steps"]}


@pytest.fixture(scope="module")
def patient() -> Trainer:
    return make_trainer(Fragile(), seeds=3, skip_limit=10)


def test_an_update_that_is_not_finite_is_skipped_and_counted_and_the_next_one_is_not(patient: Trainer) -> None:
    """The reward of one step is NaN: one batch in five has it, and the limit of ten in a row is not met."""
    carry, reports = run(patient, with_sick_seed(patient, SICK))
    skipped = int(reports[-1].skipped[1])
    assert 5 < skipped < 60 and list(reports[-1].skipped) == [0, skipped, 0] and list(reports[-1].failed_step) == [-1] * 3
    counts = [leaf for leaf in learned(carry, 1) if leaf.dtype == jnp.int32]  # Adam's, one per update
    assert counts and set(map(int, counts)) == {SIZES["steps"] - SIZES["random_steps"] - skipped}
    assert rows_of(reports[-1], 300, 0, ("x", "y"), 1.0)[1]["train/skipped_updates"] == skipped


def test_too_many_in_a_row_stop_a_run_at_the_first_of_them_and_the_operation_is_named(patient: Trainer) -> None:
    carry, reports = run(patient, with_sick_seed(patient, SICK, ever=True))
    failed = int(reports[-1].failed_step[1])
    assert SICK < failed < SICK + 20 and reports[-1].skipped[1] >= 10 and reports[-1].failed_step[0] == -1
    told = failed_operation(patient, carry, 1, SIZES["steps"])
    assert re.fullmatch(r"first not a number: sub in reward_loss, .*base\.py:\d+", told)  # r̂ − r


def test_the_other_seeds_are_what_they_are_without_a_failure(healthy: Any, one_sick: Any) -> None:
    for seed in (0, 2):
        for with_it, without in zip(learned(one_sick[0], seed), learned(healthy[0], seed), strict=True):
            np.testing.assert_array_equal(with_it, without)
        for with_it, without in zip(one_sick[1], healthy[1], strict=True):
            jax.tree.map(lambda x, y, i=seed: np.testing.assert_array_equal(x[i], y[i]), with_it, without)


def test_a_seed_among_others_is_that_seed_alone_up_to_rounding(healthy: tuple[Carry, list[Report]]) -> None:
    """Not bitwise: several seeds on a device are batched matrix products, and one seed on one device is compiled without
    partitioning; both add in another order. After 36 updates that is some units of float32's rounding; later it grows
    without bound, because learning is chaotic.
    """
    alone = make_trainer(Fragile(), seeds=1, seed=1)
    report = alone.chunk(alone.init(), 0)[1]
    np.testing.assert_allclose(report.model_mse[0], healthy[1][0].model_mse[1], rtol=1e-4)
    np.testing.assert_allclose(report.q_loss[0], healthy[1][0].q_loss[1], rtol=1e-3)


DEVICES = """
import sys
import jax
jax.config.update("jax_num_cpu_devices", 3)
jax.config.update("jax_disable_most_optimizations", True)
import numpy as np
from envs.probes import Walk
from mbrl_taskmet import Config, train
from mbrl_taskmet.rl.make import make_method
from mbrl_taskmet.rl.training import Trainer
sizes = dict(method="mle", steps=200, eval_every=100, eval_episodes=2, random_steps=64, batch_size=32)
four = Config(**sizes, seeds=4).resolve()
trainer = Trainer(Walk(), make_method(Walk(), four), four)
assert trainer.axis.runs.tolist() == [0, 1, 2, 3, 3, 3]
trainer.compile()
trainer.chunk(trainer.init(), 0)  # what was compiled ahead takes what init gives
runs = {"three": train(Walk(), Config(**sizes, seeds=3, seed=4)), "two": train(Walk(), Config(**sizes, seeds=2, seed=5))}
np.savez(sys.argv[1], **{f"{name}{i}": x for name, run in runs.items() for i, x in enumerate(jax.tree.leaves(run))})
"""


def test_a_seed_on_its_own_device_is_the_same_to_the_bit_whoever_runs_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "runs.npz"
    subprocess.run([sys.executable, "-c", DEVICES, str(path)], check=True, timeout=300)
    arrays = np.load(path)
    count = len(arrays.files) // 2
    assert count > 40
    np.testing.assert_array_equal(arrays["three0"], arrays["two0"])  # the steps, common to all seeds
    for i in range(1, count):
        np.testing.assert_array_equal(arrays[f"three{i}"][1:], arrays[f"two{i}"])


@pytest.fixture(scope="module")
def wide() -> tuple[Carry, Report]:
    """The start in float64, and the first report."""
    trainer = make_trainer(Walk(), seeds=2, x64=True, steps=100)
    carry = jax.tree.map(jnp.copy, trainer.init())
    return carry, trainer.chunk(trainer.init(), 0)[1]


def test_x64_computes_in_float64_from_the_parameters_to_the_report(wide: tuple[Carry, Report]) -> None:
    floats = {
        jax.tree_util.keystr(path): leaf.dtype
        for path, leaf in jax.tree_util.tree_flatten_with_path(wide)[0]
        if jnp.issubdtype(leaf.dtype, jnp.floating)
    }
    assert [name for name, dtype in floats.items() if dtype != jnp.float64] == []


def test_x64_leaves_jax_in_float32_afterwards(wide: tuple[Carry, Report]) -> None:
    assert jnp.ones(1).dtype == jnp.float32 and not jax.config.jax_enable_x64


def test_train_returns_arrays_of_the_documented_shapes() -> None:
    seeds, evaluations, metric = 2, 2, {"metric_warmup": 100, "metric": "diagonal", "metric_input": "none"}
    config = Config(**SIZES | {"method": "taskmet", "steps": 200, "seeds": seeds} | metric)
    result = train(Fragile(), config)
    np.testing.assert_array_equal(result.steps, [100, 200])
    assert result.returns.shape == (seeds, evaluations)
    assert result.reports.episode_returns.shape == (seeds, evaluations, 2)
    np.testing.assert_allclose(result.returns, result.reports.episode_returns.mean(axis=-1))
    assert result.reports.metric_diagonal is not None
    assert result.reports.metric_diagonal.shape == (seeds, evaluations, 2)
    rest = result.reports._replace(episode_returns=0, metric_diagonal=0)
    assert {np.shape(x) for x in rest if not isinstance(x, int)} == {(seeds, evaluations)}
    leaves = jax.tree.leaves(result.learner)
    assert all(isinstance(leaf, np.ndarray) and leaf.shape[0] == seeds and np.isfinite(leaf).all() for leaf in leaves)
    np.testing.assert_allclose(result.reports.metric_diagonal[:, 0], 1, rtol=1e-5)  # it moves after step 100
    assert not np.allclose(result.reports.metric_diagonal[:, 1], 1, rtol=1e-4)
    assert np.isnan(result.reports.residual[:, 0]).all() and np.isfinite(result.reports.residual[:, 1]).all()


def test_train_refuses_what_cannot_work_before_it_compiles() -> None:
    with pytest.raises(ConfigError, match="--steps is 0; give 1 or more"):
        train(Walk(), Config(steps=0))


@pytest.mark.parametrize(
    ("diagonal", "told"),
    [
        ([1.0, 0.5, 2.0], None),
        ([0.3], None),
        ([1e-7, 3e-8], "the metric has collapsed: its largest weight is 1e-07"),
        ([1e-9, 4.0, 1e-7], "the metric has collapsed to dimension 1: all others weigh less than 1e-06 of it"),
    ],
)
def test_a_metric_that_collapses_is_named(diagonal: list[float], told: str | None) -> None:
    assert collapse(np.array(diagonal)) == told
