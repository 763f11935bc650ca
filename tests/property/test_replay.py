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

STATE, NOISE, MOST = 2, 1, 14


@cache
def compiled(capacity: int) -> tuple[Any, Any]:
    """The whole stream written by one scan; and a sample."""

    def write(first: jax.Array, stream: Transitions, following: jax.Array, length: jax.Array) -> replay.Replay:
        def step(memory: replay.Replay, row: Any) -> tuple[replay.Replay, None]:
            number, (_, action, reward, terminated, next_observation), after = row
            new = replay.add(memory, number, action, reward, terminated, next_observation, after)
            return jax.tree.map(lambda a, b: jnp.where(number < length, a, b), new, memory), None

        memory = replay.create(capacity, first, stream.action[0], STATE)
        return jax.lax.scan(step, memory, (jnp.arange(MOST), stream, following))[0]

    return jax.jit(write), jax.jit(partial(replay.sample, batch_size=64))


@given(
    capacity=st.sampled_from([1, 2, 3, 5, MOST]),
    length=st.integers(1, MOST),
    resets=st.lists(st.booleans(), min_size=MOST, max_size=MOST),
    seed=st.integers(0, 2**31 - 1),
)
def test_a_sample_holds_only_steps_of_the_lists_tail_as_they_were_given(
    capacity: int, length: int, resets: list[bool], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    observations = rng.normal(size=(MOST + 1, STATE + NOISE)).astype(np.float32)
    before_reset = observations[1:].copy()
    before_reset[resets, :STATE] += 1
    actions = rng.normal(size=(MOST, 2)).astype(np.float32)
    stream = Transitions(observations[:-1], actions, np.arange(MOST, dtype=np.float32), np.float32(resets), before_reset)

    write, sample = compiled(capacity)
    batch = sample(write(observations[0], stream, observations[1:], length), jax.random.key(seed), length)

    drawn = np.array(batch.reward, dtype=int)  # the reward is the step's number
    assert drawn.min() >= max(0, length - capacity) and drawn.max() < length
    for found, given_rows in zip(batch, stream, strict=True):
        np.testing.assert_array_equal(found, given_rows[drawn])
