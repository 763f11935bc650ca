"""The replay buffer: a ring of environment steps that stores an observation, noise included, once.

What an environment resets (its *state*: the leading `state_size` dimensions of an observation) is stored twice, before and
after the reset; the remaining dimensions, the *noise*, of a next observation are those of the following row.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike


class Transitions(NamedTuple):
    """A batch of environment steps. `action` is a vector, one-hot where actions are discrete."""

    observation: jax.Array  # (batch, n)
    action: jax.Array  # (batch, m)
    reward: jax.Array  # (batch,)
    terminated: jax.Array  # (batch,), 1.0 where the environment ended the episode; a time limit is 0.0
    next_observation: jax.Array  # (batch, n), the one before any reset


class Segments(NamedTuple):
    """Windows of consecutive environment steps.

    Attributes:
        transitions: every leaf (batch, length, …).
        mask: (batch, length), 1.0 while the window's first episode lasts: its last step, terminated or truncated, counts.
    """

    transitions: Transitions
    mask: jax.Array


class Replay(NamedTuple):
    """Rows keyed by environment step modulo their number, which is the capacity + 1."""

    state: jax.Array  # (capacity + 1, state_size)
    next_state: jax.Array  # (capacity + 1, state_size), before any reset
    action: jax.Array  # (capacity + 1, m)
    reward: jax.Array  # (capacity + 1,)
    terminated: jax.Array  # (capacity + 1,), bool
    truncated: jax.Array  # (capacity + 1,), bool
    noise: jax.Array | None = None  # (capacity + 1, n − state_size), in a smaller type where that represents it exactly


def create(
    capacity: int, observation: jax.Array, action: jax.Array, state_size: int, noise_dtype: DTypeLike | None = None
) -> Replay:
    """An empty buffer for `capacity` steps whose first observation is `observation` (n,); `action` (m,) gives the shape.

    `noise_dtype` is what the noise is kept in, by default the observation's type.
    """
    rows, dtype = capacity + 1, observation.dtype

    def empty(size: int, dtype: DTypeLike = dtype) -> jax.Array:
        return jnp.zeros((rows, size), dtype)

    replay = Replay(
        state=empty(state_size),
        next_state=empty(state_size),
        action=empty(action.size),
        reward=jnp.zeros(rows, dtype),
        terminated=jnp.zeros(rows, bool),
        truncated=jnp.zeros(rows, bool),
        noise=empty(observation.size - state_size, noise_dtype or dtype) if observation.size > state_size else None,
    )
    return set_observation(replay, jnp.int32(0), observation)


def set_observation(replay: Replay, step: jax.Array, observation: jax.Array) -> Replay:
    """Write the observation (n,) from which environment step number `step` starts."""
    rows, state_size = replay.state.shape
    replay = replay._replace(state=_write(replay.state, observation[:state_size], step % rows))
    if replay.noise is None:
        return replay
    return replay._replace(noise=_write(replay.noise, observation[state_size:], step % rows))


def add(
    replay: Replay,
    step: jax.Array,
    action: jax.Array,
    reward: jax.Array,
    terminated: jax.Array,
    truncated: jax.Array,
    next_observation: jax.Array,
    following: jax.Array,
) -> Replay:
    """Write environment step number `step` (from 0), in place where the buffer is donated.

    Args:
        replay: the buffer.
        step: the step's number.
        action: (m,).
        reward: ().
        terminated: (), whether the environment ended the episode.
        truncated: (), whether a time limit cut it.
        next_observation: (n,), the observation before any reset.
        following: (n,), the observation the next step starts from; equal to `next_observation` beyond `state_size`.
    """
    rows, state_size = replay.next_state.shape
    row = step % rows
    return set_observation(replay, step + 1, following)._replace(
        next_state=_write(replay.next_state, next_observation[:state_size], row),
        action=_write(replay.action, action, row),
        reward=_write(replay.reward, reward, row),
        terminated=_write(replay.terminated, terminated, row),
        truncated=_write(replay.truncated, truncated, row),
    )


def sample(replay: Replay, key: jax.Array, steps: jax.Array, batch_size: int) -> Transitions:
    """Draw (with replacement) among the `steps` environment steps written so far, or the last `capacity` of them.

    `key` is consumed. `steps` is at least 1.
    """
    capacity = replay.reward.shape[0] - 1
    age = jax.random.randint(key, (batch_size,), 0, jnp.minimum(steps, capacity))
    return gather(replay, steps - 1 - age)


def segments(replay: Replay, key: jax.Array, steps: jax.Array, batch_size: int, length: int) -> Segments:
    """Draw (with replacement) windows of `length` steps among those that `sample` draws from. `key` is consumed.

    There are at least `length` steps. A window of length 1 is what `sample` draws.
    """
    capacity = replay.reward.shape[0] - 1
    age = jax.random.randint(key, (batch_size,), length - 1, jnp.minimum(steps, capacity))
    window = (steps - 1 - age)[:, None] + jnp.arange(length)
    ended = (replay.terminated | replay.truncated)[window % replay.reward.shape[0]]
    before = jnp.cumsum(ended, axis=1) - ended
    return Segments(gather(replay, window), (before == 0).astype(replay.reward.dtype))


def gather(replay: Replay, steps: jax.Array) -> Transitions:
    """The transitions of the given environment steps (...), which must be in the buffer."""
    rows = replay.state.shape[0]
    row, following = steps % rows, (steps + 1) % rows

    def observation(state: jax.Array, noise_row: jax.Array) -> jax.Array:
        if replay.noise is None:
            return state
        return jnp.concatenate([state, replay.noise[noise_row].astype(state.dtype)], axis=-1)

    return Transitions(
        observation=observation(replay.state[row], row),
        action=replay.action[row],
        reward=replay.reward[row],
        terminated=replay.terminated[row].astype(replay.reward.dtype),
        next_observation=observation(replay.next_state[row], following),
    )


def _write(buffer: jax.Array, value: jax.Array, row: jax.Array) -> jax.Array:
    return jax.lax.dynamic_update_index_in_dim(buffer, value.astype(buffer.dtype), row, axis=0)
