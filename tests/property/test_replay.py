"""The replay buffer against a Python list."""

from __future__ import annotations

from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mbrl_taskmet.rl import replay
from mbrl_taskmet.rl.replay import Transitions

STATE, NOISE, MOST, BATCH = 2, 1, 14, 64
ENDS = [(False, False), (True, False), (False, True), (True, True)]  # terminated, truncated

capacities = st.sampled_from([1, 2, 3, 5, MOST])
lengths = st.integers(1, MOST)
all_ends = st.lists(st.sampled_from(ENDS), min_size=MOST, max_size=MOST)
seeds = st.integers(0, 2**31 - 1)


@cache
def writer(capacity: int) -> Any:
    """The whole stream written by one scan."""

    def write(first: jax.Array, stream: Any, length: jax.Array) -> replay.Replay:
        def step(memory: replay.Replay, row: Any) -> tuple[replay.Replay, None]:
            number, arguments = row
            new = replay.add(memory, number, *arguments)
            return jax.tree.map(lambda a, b: jnp.where(number < length, a, b), new, memory), None

        memory = replay.create(capacity, first, stream[0][0], STATE)
        return jax.lax.scan(step, memory, (jnp.arange(MOST), stream))[0]

    return jax.jit(write)


sample = jax.jit(partial(replay.sample, batch_size=BATCH))
segments = jax.jit(partial(replay.segments, batch_size=BATCH), static_argnames="length")


def written(capacity: int, length: int, ends: list[tuple[bool, bool]], seed: int) -> tuple[replay.Replay, Transitions]:
    """A buffer after so many steps, and the list: every step of the stream, whose reward is its number."""
    rng = np.random.default_rng(seed)
    observations = rng.normal(size=(MOST + 1, STATE + NOISE)).astype(np.float32)
    terminated, truncated = np.array(ends).T
    before_reset = observations[1:].copy()
    before_reset[terminated | truncated, :STATE] += 1
    action, reward = rng.normal(size=(MOST, 2)).astype(np.float32), np.arange(MOST, dtype=np.float32)
    stream = action, reward, terminated, truncated, before_reset, observations[1:]
    memory = writer(capacity)(observations[0], stream, length)
    return memory, Transitions(observations[:-1], action, reward, np.float32(terminated), before_reset)


@given(capacity=capacities, length=lengths, ends=all_ends, seed=seeds)
def test_a_sample_holds_only_steps_of_the_lists_tail_as_they_were_given(
    capacity: int, length: int, ends: list[tuple[bool, bool]], seed: int
) -> None:
    memory, rows = written(capacity, length, ends, seed)
    batch = sample(memory, jax.random.key(seed), length)

    drawn = np.array(batch.reward, dtype=int)
    assert drawn.min() >= max(0, length - capacity) and drawn.max() < length
    for found, given_rows in zip(batch, rows, strict=True):
        np.testing.assert_array_equal(found, given_rows[drawn])


@given(capacity=capacities, length=lengths, ends=all_ends, seed=seeds, size=st.sampled_from([1, 2, 5]))
def test_a_segment_is_a_slice_of_the_lists_tail_and_its_mask_ends_with_the_episode(
    capacity: int, length: int, ends: list[tuple[bool, bool]], seed: int, size: int
) -> None:
    size = min(size, length, capacity)  # no window is longer than what is there
    memory, rows = written(capacity, length, ends, seed)
    transitions, mask = segments(memory, jax.random.key(seed), length, length=size)

    starts = np.array(transitions.reward[:, 0], dtype=int)
    assert starts.min() >= max(0, length - capacity) and starts.max() + size <= length
    for found, given_rows in zip(transitions, rows, strict=True):
        np.testing.assert_array_equal(found, np.stack([given_rows[start : start + size] for start in starts]))
    for start, row in zip(starts, mask, strict=True):
        window = ends[start : start + size]
        lasts = [i + 1 for i, end in enumerate(window) if any(end)]
        steps = lasts[0] if lasts else size  # the step that ends the episode counts
        np.testing.assert_array_equal(row, [1.0] * steps + [0.0] * (size - steps))
