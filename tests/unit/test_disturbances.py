"""Disturbances: processes that move as they say, whatever the agent does, and a mixture that can be undone."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agents.command import main, parse
from envs.companions import Companions
from envs.distractors import Distractors
from envs.film import episode
from envs.gymnax import GymnaxEnvironment
from envs.make import DISTURBANCES, make_environment
from envs.nonlinear import FARTHEST, Nonlinear
from envs.oscillators import Oscillators
from envs.probes import Walk
from envs.projected import Projected, projected, rotation
from mbrl_taskmet import Config
from mbrl_taskmet.rl import replay
from mbrl_taskmet.rl.environment import Environment, State, Step, Wrapper, check_environment, episodic
from mbrl_taskmet.rl.make import make_method
from mbrl_taskmet.rl.training import Trainer, resolved
from mbrl_taskmet.runner.agent_record import rows_of
from mbrl_taskmet.runner.checkpoint import Checkpoints

KEY, STEPS = jax.random.key(0), 220
CARTPOLE = GymnaxEnvironment("CartPole-v1")
SIZES = {"CartPole-v1": 8, "Pendulum-v1": 6}
APPENDED = tuple(name for name in DISTURBANCES if name != "projected")
on_every = pytest.mark.parametrize(("disturbance", "name"), [(kind, name) for kind in DISTURBANCES for name in SIZES])
Rollout = Callable[[jax.Array], tuple[jax.Array, Step]]


def rollout(env: Environment) -> Rollout:
    """From actions (steps, …) to the first observation and the steps, compiled once."""

    @jax.jit
    def run(actions: jax.Array) -> tuple[jax.Array, Step]:
        state, first = env.reset(KEY)
        keys = jax.random.split(jax.random.key(1), len(actions))
        return first, jax.lax.scan(lambda state, at: env.step(at[0], state, at[1]), state, (keys, actions))[1]

    return run


def drawn(env: Environment, steps: int = STEPS) -> jax.Array:
    """Random actions."""
    return jax.vmap(env.action_space.sample)(jax.random.split(jax.random.key(2), steps))


@cache
def made(disturbance: str, name: str) -> tuple[Environment, Rollout]:
    env = check_environment(make_environment(name, SIZES[name], disturbance=disturbance))
    return env, rollout(env)


@cache
def alone(name: str) -> tuple[jax.Array, Step]:
    """The environment without a disturbance, under the keys that it gets inside one."""

    class Inside(Wrapper):
        def reset(self, key: jax.Array) -> tuple[State, jax.Array]:
            return self.env.reset(jax.random.split(key)[0])

        def step(self, key: jax.Array, state: State, action: jax.Array) -> tuple[State, Step]:
            return self.env.step(jax.random.split(key)[0], state, action)

    env = Inside(GymnaxEnvironment(name))
    return rollout(env)(drawn(env))


def path_of(env: Environment, actions: jax.Array) -> np.ndarray:
    """What the agent sees beside CartPole, (steps + 1, …)."""
    first, steps = rollout(env)(actions)
    return np.concatenate([np.asarray(first)[None, 4:], np.asarray(steps.observation)[:, 4:]])


@on_every
def test_each_leaves_the_task_as_it_is(disturbance: str, name: str) -> None:
    env, run = made(disturbance, name)
    (first, steps), (own_first, own) = run(drawn(env)), alone(name)
    size = own_first.size
    assert (env.observation_size, env.state_size) == (size + SIZES[name], size)
    rounding = 1e-5 if disturbance == "projected" else 0
    for part in ("observation", "next_observation"):
        np.testing.assert_allclose(env.state_of(getattr(steps, part)), getattr(own, part), rtol=0, atol=rounding)
    np.testing.assert_allclose(env.state_of(first), own_first, rtol=0, atol=rounding)
    for part in ("reward", "terminated", "truncated"):
        np.testing.assert_array_equal(getattr(steps, part), getattr(own, part))
    before = jnp.concatenate([first[None], steps.observation[:-1]])
    known = env.known_termination()
    assert known is not None
    ends = known(before, jax.vmap(env.action_space.encode)(drawn(env)), steps.next_observation)
    np.testing.assert_array_equal(ends, steps.terminated)
    assert steps.terminated.any() == (name == "CartPole-v1") and steps.truncated.any() == (name == "Pendulum-v1")


@on_every
def test_the_replay_gives_back_what_was_observed(disturbance: str, name: str) -> None:
    env, run = made(disturbance, name)
    first, steps = run(drawn(env))
    vectors = jax.vmap(env.action_space.encode)(drawn(env))
    buffer = replay.create(STEPS, first, vectors[0], len(env.state_names), env.noise_dtype)

    def write(buffer: replay.Replay, at: tuple[jax.Array, jax.Array, Step]) -> tuple[replay.Replay, None]:
        count, action, step = at
        return replay.add(buffer, count, action, *step[2:], step.next_observation, step.observation), None

    full, _ = jax.lax.scan(write, buffer, (jnp.arange(STEPS), vectors, steps))
    back = replay.gather(full, jnp.arange(STEPS))
    np.testing.assert_array_equal(back.observation, jnp.concatenate([first[None], steps.observation[:-1]]))
    np.testing.assert_array_equal(back.next_observation, steps.next_observation)


@pytest.mark.parametrize("disturbance", APPENDED)
def test_what_is_appended_does_not_depend_on_the_actions(disturbance: str) -> None:
    _, run = made(disturbance, "CartPole-v1")
    (_, left), (_, right) = (run(jnp.full(STEPS, action, int)) for action in (0, 1))
    np.testing.assert_array_equal(left.observation[:, 4:], right.observation[:, 4:])
    assert not np.array_equal(left.observation[:, :4], right.observation[:, :4])


@on_every
def test_settings_name_it(disturbance: str, name: str) -> None:
    env = made(disturbance, name)[0]
    described = resolved(env, Config()).environment
    assert (described.name, described.distractors, described.disturbance) == (name, SIZES[name], disturbance)
    directory = parse(name, ["--distractors", "8", "--disturbance", disturbance]).directory
    assert f"d8_taskmet_100000steps_seeds0-0_disturbance-{disturbance}" in directory.name


@on_every
def test_each_has_the_precision_in_use(disturbance: str, name: str, x64: None) -> None:
    env = check_environment(make_environment(name, SIZES[name], disturbance=disturbance))
    assert (
        jax.eval_shape(env.reset, KEY)[1].dtype == jax.eval_shape(env.state_of, jnp.zeros(env.observation_size)).dtype == float
    )


def test_oscillators_turn_by_their_frequencies_with_unit_variance() -> None:
    env = Oscillators(CARTPOLE, 32)
    assert env.frequencies.shape == (16,) and env.frequencies.min() >= 0.1 and env.frequencies.max() <= 1
    path = path_of(env, jnp.zeros(20_000, int))
    points = path.reshape(-1, 16, 2) @ np.array([1, 1j])
    np.testing.assert_allclose(points[1:], points[:-1] * np.exp(1j * env.frequencies), atol=2e-6)
    np.testing.assert_allclose(np.abs(points), 2**0.5, atol=1e-6)  # also after thousands of steps
    np.testing.assert_allclose((path**2).mean(axis=0), 1, atol=0.01)
    linear, *_ = np.linalg.lstsq(path[:-1], path[1:])
    assert np.abs(path[:-1] @ linear - path[1:]).max() < 1e-5


def test_oscillators_start_at_any_phase_and_keep_their_frequencies() -> None:
    env = Oscillators(CARTPOLE, 4)
    starts = np.asarray(jax.vmap(env.start)(jax.random.split(KEY, 4000)))
    assert np.abs(np.exp(1j * starts).mean(axis=0)).max() < 5 / 4000**0.5
    np.testing.assert_allclose(np.histogram(starts[:, 0], 4, (0, 2 * np.pi))[0], 1000, atol=150)
    np.testing.assert_array_equal(env.frequencies, Oscillators(CARTPOLE, 32).frequencies[:2])
    assert not np.array_equal(env.frequencies, Oscillators(CARTPOLE, 4, seed=1).frequencies)


def test_nonlinear_dimensions_move_by_their_recurrence() -> None:
    env = Nonlinear(CARTPOLE, 16)
    path = path_of(env, jnp.zeros(2000, int))
    assert np.abs(path).max() < FARTHEST and path[-100:].std(axis=0).min() > 0.5  # it has not come to rest
    predicted = path[:-1] @ env.linear.T + 0.1 * np.sin(path[:-1] @ env.inner.T)
    np.testing.assert_allclose(path[1:], predicted, atol=2e-5)
    linear, *_ = np.linalg.lstsq(path[:-1], path[1:])
    assert np.abs(path[:-1] @ linear - path[1:]).max() > 0.05  # no linear map predicts them
    np.testing.assert_allclose(env.linear @ env.linear.T, np.eye(16), atol=1e-12)


def test_nonlinear_dimensions_start_anew_where_one_has_gone_too_far() -> None:
    env = Nonlinear(CARTPOLE, 6)
    for length, far in ((FARTHEST - 0.2, False), (FARTHEST + 0.2, True)):
        before = jnp.asarray(env.linear.T[:, 2] * length, jnp.float32)  # which A turns onto one axis
        kept = before @ env.linear.T + 0.1 * jnp.sin(before @ env.inner.T)
        np.testing.assert_allclose(env.move(KEY, before), env.start(KEY) if far else kept, atol=1e-5)


def test_companions_move_as_the_environment_does_under_actions_of_their_own() -> None:
    path = path_of(Companions(CARTPOLE, 8), jnp.zeros(2000, int))
    for copy in (path[:, :4], path[:, 4:]):
        before, after = copy[:-1], copy[1:]
        moved = np.array([euler(before, force) for force in (-10.0, 10.0)])  # (actions, steps, 4)
        fallen = np.abs(moved[:, :, 2]).max(axis=0) > 12 * 2 * np.pi / 360
        anew = fallen & (np.abs(after).max(axis=1) <= 0.05)
        errors = np.abs(moved - after).max(axis=2)[:, ~anew]
        assert errors.min(axis=0).max() < 1e-6
        assert abs(errors.argmin(axis=0).mean() - 0.5) < 0.06  # 5 deviations of 2000 fair coins
        assert 15 < np.diff(np.flatnonzero(anew)).mean() < 30  # steps to a fall; always to the left it takes 9
    assert not np.array_equal(path[:, :4], path[:, 4:])


def euler(state: np.ndarray, force: float) -> np.ndarray:
    """CartPole's next states (steps, 4), by its equations of motion (Barto, Sutton and Anderson, 1983)."""
    _, velocity, angle, turning = state.T
    shared = (force + 0.05 * turning**2 * np.sin(angle)) / 1.1
    turned = (9.8 * np.sin(angle) - np.cos(angle) * shared) / (0.5 * (4 / 3 - 0.1 * np.cos(angle) ** 2 / 1.1))
    rates = (velocity, shared - 0.05 * turned * np.cos(angle) / 1.1, turning, turned)
    return state + 0.02 * np.stack(rates, axis=1)


def test_a_rotation_is_one_uniform_and_the_same_every_time() -> None:
    for size in (1, 2, 12):
        matrix = rotation(size, np.random.default_rng(0))
        np.testing.assert_allclose(matrix @ matrix.T, np.eye(size), atol=1e-12)
        np.testing.assert_allclose(np.linalg.det(matrix), 1)
        np.testing.assert_array_equal(matrix, rotation(size, np.random.default_rng(0)))
    many = np.array([rotation(3, np.random.default_rng(seed)) for seed in range(2000)])
    np.testing.assert_allclose(many.mean(axis=0), 0, atol=5 * (1 / 3 / 2000) ** 0.5)  # no direction is preferred


def test_projected_turns_state_and_noise_together() -> None:
    plain = Distractors(CARTPOLE, 8)
    env = Projected(plain)
    (first, steps), (own_first, own) = (rollout(each)(drawn(env, 50)) for each in (env, plain))
    for seen, unmixed in ((first, own_first), (steps.observation, own.observation)):
        np.testing.assert_allclose(seen, unmixed @ env.rotation.T, atol=1e-5)
        np.testing.assert_allclose(seen @ env.rotation, unmixed, atol=1e-5)
    assert env.mixing is not None and env.mixing.shape == (12, 4)
    np.testing.assert_allclose(env.mixing.T @ env.mixing, np.eye(4), atol=1e-12)  # the state's subspace
    assert np.abs(env.mixing).max() < 0.9  # which lies along no axis
    assert env.noise_dtype is None and len(env.state_names) == 12
    assert np.abs(Projected(plain, seed=1).rotation - env.rotation).max() > 0.1


def test_projected_without_noise_mixes_the_state() -> None:
    env = make_environment("CartPole-v1", disturbance="projected")
    assert (env.name, env.observation_size, env.state_size) == ("CartPole-v1, projected", 4, 4)


def test_disturbances_can_be_stacked() -> None:
    env = Distractors(Projected(Oscillators(Nonlinear(CARTPOLE, 3), 2)), 5)
    assert env.name == (
        "CartPole-v1 with 3 dimensions of nonlinear dynamics with 2 dimensions of oscillators, projected with 5 distractors"
    )
    assert (check_environment(env).observation_size, env.state_size) == (14, 4)
    twice, split = Projected(env), jax.random.split
    own = episodic(CARTPOLE).reset(split(split(split(KEY)[0])[0])[0])[1]  # under the key that three of them hand on
    for each in (env, twice):
        np.testing.assert_allclose(each.state_of(each.reset(KEY)[1]), own, atol=1e-5)


def test_the_replay_keeps_half_precision_only_where_all_noise_has_it() -> None:
    assert Distractors(CARTPOLE, 2).noise_dtype == Distractors(projected(CARTPOLE, 1), 2).noise_dtype == jnp.float16
    assert Distractors(Distractors(CARTPOLE, 2), 2).noise_dtype == jnp.float16
    assert Distractors(Oscillators(CARTPOLE, 2), 2).noise_dtype is None
    assert Oscillators(Distractors(CARTPOLE, 2), 2).noise_dtype is None


@pytest.mark.parametrize(
    ("disturbance", "count", "message"),
    [
        ("oscillators", 3, "distractors is 3, and oscillators need a multiple of 2 dimensions; give 4"),
        ("oscillators", 0, "distractors is 0, and oscillators add dimensions; give 2 or more"),
        ("oscillators", 2**31 - 2, "distractors is 2147483646, and oscillators take at most 1048576 dimensions; give fewer"),
        ("nonlinear", 0, "distractors is 0, and nonlinear dynamics add dimensions; give 1 or more"),
        ("nonlinear", 3000, "a random rotation of 3000 dimensions is too large; give fewer distractors, for at most 2048"),
        ("companions", 6, "distractors is 6, and companions need a multiple of 4 dimensions; give 8"),
        ("companions", 1, "distractors is 1, and companions need a multiple of 4 dimensions; give 4"),
        ("projected", 3000, "a random rotation of 3004 dimensions is too large; give fewer distractors, for at most 2048"),
        ("oscilators", 2, "--disturbance 'oscilators' is unknown; did you mean 'oscillators'? There are noise, oscillators,"),
    ],
)
def test_the_command_refuses_in_one_sentence(
    disturbance: str, count: int, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(jax.config, "update", lambda name, value: None)  # JAX has started
    argv = ["--disturbance", disturbance, "--distractors", str(count), "--logdir", str(tmp_path)]
    assert main("CartPole-v1", argv) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_run_on_all_of_them_goes_on_from_its_checkpoint_as_without(tmp_path: Path) -> None:
    env = Projected(Companions(Nonlinear(Oscillators(Walk(), 2), 2), 5))
    sizes: dict[str, Any] = {"steps": 40, "eval_every": 20, "eval_episodes": 1, "random_steps": 8, "batch_size": 8}
    settings = resolved(env, Config(method="vagram", model_hidden=4, q_hidden=4, **sizes))
    assert settings.environment.distractors == 9
    trainer = Trainer(env, make_method(env, settings), settings)
    trainer.compile()
    carry, _ = trainer.chunk(trainer.init(), 0)
    Checkpoints(tmp_path, trainer).save(20, carry)
    _, report = trainer.chunk(carry, 20)
    step, restored = Checkpoints(tmp_path, trainer).restore()
    assert step == 20
    jax.tree.map(np.testing.assert_array_equal, trainer.chunk(restored, 20)[1], report)
    (row,) = rows_of(report, 40, 0, env.state_names, 1.0)
    assert {f"metric/mixed_{i}" for i in range(10)} < row.keys() and "metric/distractors_mean" not in row
    assert 0 < row["train/model_mse_state"] < row["train/model_mse"]


def test_the_error_on_the_state_is_what_turning_back_gives() -> None:
    env = projected(Walk(), 3)
    error = jax.random.normal(KEY, (50, 4))
    back = error @ rotation(4, np.random.default_rng(0))
    np.testing.assert_allclose(env.state_of(error), back[:, :1], atol=1e-6)
    np.testing.assert_allclose(jnp.sum(error**2), jnp.sum(back**2), rtol=1e-5)  # over all dimensions it is as it was


def test_a_film_shows_the_state_that_is_mixed() -> None:
    recording = episode(projected(CARTPOLE, 3), lambda key, observation: jnp.int32(0), KEY)
    assert recording.observations.shape[1] == 4
    angle = np.abs(recording.observations[:, 2])
    assert angle[:-1].max() <= 12 * 2 * np.pi / 360 < angle[-1]  # the last is where it fell
