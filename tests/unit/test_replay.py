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
segments = jax.jit(replay.segments, static_argnums=(3, 4))
Row = tuple[np.ndarray, ...]


def record(steps: int, reset_every: int = 4, cut_every: int | None = None) -> tuple[Replay, list[Row]]:
    """A buffer after so many steps, and the transitions it was given, oldest first.

    Every `reset_every`-th step terminates an episode; a time limit truncates it at every `cut_every`-th.
    """
    rng = np.random.default_rng(0)
    observation = rng.normal(size=STATE + NOISE).astype(np.float32)
    memory = replay.create(CAPACITY, jnp.array(observation), jnp.zeros(ACTIONS), STATE)
    rows = []
    for step in range(steps):
        following = rng.normal(size=STATE + NOISE).astype(np.float32)
        terminated = (step + 1) % reset_every == 0
        truncated = cut_every is not None and (step + 1) % cut_every == 0
        before_reset = following.copy()
        if terminated or truncated:
            before_reset[:STATE] = rng.normal(size=STATE)
        action, reward = np.eye(ACTIONS, dtype=np.float32)[step % ACTIONS], np.float32(step)
        memory = add(memory, step, action, reward, np.bool_(terminated), np.bool_(truncated), before_reset, following)
        rows.append((observation, action, reward, np.float32(terminated), before_reset))
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


def test_keeps_terminations_and_truncations_apart() -> None:
    memory, rows = record(CAPACITY, reset_every=3, cut_every=2)
    assert (memory.terminated.dtype, memory.truncated.dtype) == (np.dtype(bool), np.dtype(bool))
    np.testing.assert_array_equal(memory.terminated[:CAPACITY], [False, False, True, False, False])
    np.testing.assert_array_equal(memory.truncated[:CAPACITY], [False, True, False, True, False])
    # a truncation does not end the bootstrap, but what follows is of another episode
    steps = gather(memory, jnp.arange(CAPACITY))
    assert_same(steps, stacked(rows))
    np.testing.assert_array_equal(steps.terminated, [0.0, 0.0, 1.0, 0.0, 0.0])
    changed = np.any(steps.next_observation[:-1, :STATE] != steps.observation[1:, :STATE], axis=1)
    np.testing.assert_array_equal(changed, [False, True, True, True])


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


@pytest.mark.parametrize("steps", [3, CAPACITY, CAPACITY + 1, 2 * CAPACITY + 3])
@pytest.mark.parametrize("length", [2, 3])
def test_segments_are_every_window_it_keeps_and_no_other_also_where_the_ring_starts_anew(steps: int, length: int) -> None:
    memory, rows = record(steps)
    transitions, _ = segments(memory, jax.random.key(0), steps, 400, length)
    starts = np.array(transitions.reward[:, 0], dtype=int)
    assert set(starts) == set(range(max(0, steps - CAPACITY), steps - length + 1))
    for i in range(length):
        assert_same(jax.tree.map(lambda leaf, i=i: leaf[:, i], transitions), stacked([rows[start + i] for start in starts]))


def test_a_segment_of_all_that_is_kept_is_the_whole_of_it() -> None:
    steps = 2 * CAPACITY + 3
    memory, rows = record(steps)
    transitions, mask = segments(memory, jax.random.key(0), steps, 2, CAPACITY)
    for i in range(2):
        assert_same(jax.tree.map(lambda leaf, i=i: leaf[i], transitions), stacked(rows[-CAPACITY:]))
    # steps 8 to 12, of which 11 terminates
    np.testing.assert_array_equal(mask, [[1.0, 1.0, 1.0, 1.0, 0.0]] * 2)


@pytest.mark.parametrize("how", ["terminated", "truncated"])
def test_a_mask_ends_after_a_termination_or_a_truncation(how: str) -> None:
    never, steps, length = 10**6, CAPACITY, 3
    memory, _ = record(steps, **{"terminated": {"reset_every": 3}, "truncated": {"reset_every": never, "cut_every": 3}}[how])
    transitions, mask = segments(memory, jax.random.key(0), steps, 100, length)
    # step 2 ends an episode: windows from 0, 1 and 2
    by_start = {0: [1.0, 1.0, 1.0], 1: [1.0, 1.0, 0.0], 2: [1.0, 0.0, 0.0]}
    starts = np.array(transitions.reward[:, 0], dtype=int)
    assert set(starts) == set(by_start)
    np.testing.assert_array_equal(mask, [by_start[start] for start in starts])
    assert mask.dtype == transitions.reward.dtype


def test_a_mask_ends_at_the_first_end_of_several_and_without_one_not_at_all() -> None:
    often, never = (record(CAPACITY, reset_every=every)[0] for every in (2, 10**6))
    _, mask = segments(often, jax.random.key(0), CAPACITY, 1, CAPACITY)  # steps 1 and 3 end episodes
    np.testing.assert_array_equal(mask, [[1.0, 1.0, 0.0, 0.0, 0.0]])
    _, mask = segments(never, jax.random.key(0), CAPACITY, 1, CAPACITY)
    np.testing.assert_array_equal(mask, np.ones((1, CAPACITY)))


@pytest.mark.parametrize("steps", [1, CAPACITY, 2 * CAPACITY + 3])
def test_segments_of_one_step_are_the_sample_of_the_same_key(steps: int) -> None:
    memory, _ = record(steps, reset_every=2)
    transitions, mask = segments(memory, jax.random.key(3), steps, 50, 1)
    assert_same(jax.tree.map(lambda leaf: leaf[:, 0], transitions), sample(memory, jax.random.key(3), steps, 50))
    np.testing.assert_array_equal(mask, np.ones((50, 1)))


def test_segments_are_uniform() -> None:
    memory, _ = record(2 * CAPACITY)
    transitions, _ = segments(memory, jax.random.key(1), 2 * CAPACITY, 20_000, 2)
    frequency = np.bincount(np.array(transitions.reward[:, 0], dtype=int) - CAPACITY) / 20_000
    np.testing.assert_allclose(frequency, 1 / (CAPACITY - 1), atol=0.013)  # more than four standard errors


def test_noise_is_kept_in_a_smaller_type_without_loss() -> None:
    rng = np.random.default_rng(0)
    observation = rng.normal(size=STATE + NOISE).astype(np.float16).astype(np.float32)
    memory = replay.create(CAPACITY, jnp.array(observation), jnp.zeros(ACTIONS), STATE, jnp.float16)
    memory = add(memory, 0, np.zeros(ACTIONS), 0.0, False, False, 2 * observation, 2 * observation)
    step = jax.tree.map(lambda leaf: leaf[0], gather(memory, jnp.array([0])))
    assert memory.noise is not None and memory.noise.dtype == jnp.float16
    np.testing.assert_array_equal(step.observation, observation)
    np.testing.assert_array_equal(step.next_observation, 2 * observation)
