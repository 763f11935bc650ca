"""The replay buffer on a stream with noise and resets."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mbrl_taskmet.rl import replay
from mbrl_taskmet.rl.replay import Replay, Transitions

STATE, NOISE, ACTIONS, CAPACITY = 2, 3, 2, 5
add, gather = jax.jit(replay.add), jax.jit(replay.gather)
sample = jax.jit(replay.sample, static_argnums=3)
Row = tuple[np.ndarray, ...]


def record(steps: int, reset_every: int = 4) -> tuple[Replay, list[Row]]:
    """A buffer after so many steps, and the transitions it was given, oldest first."""
    rng = np.random.default_rng(0)
    observation = rng.normal(size=STATE + NOISE).astype(np.float32)
    memory = replay.create(CAPACITY, jnp.array(observation), jnp.zeros(ACTIONS), STATE)
    rows = []
    for step in range(steps):
        following = rng.normal(size=STATE + NOISE).astype(np.float32)
        terminated = np.float32(step % reset_every == reset_every - 1)
        before_reset = following.copy()
        if terminated:
            before_reset[:STATE] = rng.normal(size=STATE)
        action, reward = np.eye(ACTIONS, dtype=np.float32)[step % ACTIONS], np.float32(step)
        memory = add(memory, step, action, reward, terminated, before_reset, following)
        rows.append((observation, action, reward, terminated, before_reset))
        observation = following
    return memory, rows


def stacked(rows: list[Row]) -> Transitions:
    return Transitions(*(np.stack(field) for field in zip(*rows, strict=True)))


def assert_same(found: Transitions, truth: Transitions) -> None:
    for a, b in zip(found, truth, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("steps", [1, CAPACITY, CAPACITY + 1, 3 * CAPACITY + 2])
def test_keeps_the_last_capacity_steps(steps: int) -> None:
    memory, rows = record(steps)
    kept = np.arange(max(0, steps - CAPACITY), steps)
    assert_same(gather(memory, jnp.array(kept)), stacked([rows[step] for step in kept]))


def test_a_next_observation_is_the_one_before_the_reset_and_the_next_step_starts_after_it() -> None:
    memory, _ = record(CAPACITY, reset_every=2)
    steps = gather(memory, jnp.array([1, 2]))  # step 1 ends an episode
    assert np.all(steps.next_observation[0, :STATE] != steps.observation[1, :STATE])
    np.testing.assert_array_equal(steps.next_observation[0, STATE:], steps.observation[1, STATE:])  # the same noise


@pytest.mark.parametrize("steps", [1, 3, CAPACITY, 2 * CAPACITY + 3])
def test_samples_every_step_it_keeps_and_no_other(steps: int) -> None:
    memory, rows = record(steps)
    # 400 draws miss one of five steps with a probability of 5·0.8⁴⁰⁰, 1e-38
    batch = sample(memory, jax.random.key(0), steps, 400)
    drawn = np.array(batch.reward, dtype=int)  # the reward is the step's number
    assert set(drawn) == set(range(max(0, steps - CAPACITY), steps))
    assert_same(batch, stacked([rows[step] for step in drawn]))


def test_samples_are_uniform() -> None:
    memory, _ = record(2 * CAPACITY)
    batch = sample(memory, jax.random.key(1), 2 * CAPACITY, 20_000)
    frequency = np.bincount(np.array(batch.reward, dtype=int) - CAPACITY) / 20_000
    np.testing.assert_allclose(frequency, 1 / CAPACITY, atol=0.012)  # more than four standard errors


def test_a_batch_depends_on_the_key_alone() -> None:
    memory, _ = record(CAPACITY)
    first, again, other = (sample(memory, jax.random.key(k), CAPACITY, 400) for k in (0, 0, 1))
    assert_same(first, again)
    assert np.any(np.array(first.reward != other.reward))
