"""The replay buffer: a ring of environment steps that stores an observation, noise included, once.

What an environment resets (its *state*: the leading `state_size` dimensions of an observation) is stored twice, before and
after the reset; the remaining dimensions of a next observation are those of the following row.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Transitions(NamedTuple):
    """A batch of environment steps. `action` is a vector, one-hot where actions are discrete."""

    observation: jax.Array  # (batch, n)
    action: jax.Array  # (batch, m)
    reward: jax.Array  # (batch,)
    terminated: jax.Array  # (batch,), 1.0 where the environment ended the episode; a time limit is 0.0
    next_observation: jax.Array  # (batch, n), the one before any reset


class Replay(NamedTuple):
    """Rows keyed by environment step modulo their number, which is the capacity + 1."""

    observation: jax.Array  # (capacity + 1, n)
    next_state: jax.Array  # (capacity + 1, state_size), before any reset
    action: jax.Array  # (capacity + 1, m)
    reward: jax.Array  # (capacity + 1,)
    terminated: jax.Array  # (capacity + 1,)


def create(capacity: int, observation: jax.Array, action: jax.Array, state_size: int) -> Replay:
    """An empty buffer for `capacity` steps whose first observation is `observation` (n,); `action` (m,) gives the shape."""
    rows = capacity + 1

    def empty(*shape: int) -> jax.Array:
        return jnp.zeros((rows, *shape), observation.dtype)

    replay = Replay(empty(*observation.shape), empty(state_size), empty(*action.shape), empty(), empty())
    return replay._replace(observation=_write(replay.observation, observation, jnp.int32(0)))


def add(
    replay: Replay,
    step: jax.Array,
    action: jax.Array,
    reward: jax.Array,
    terminated: jax.Array,
    next_observation: jax.Array,
    following: jax.Array,
) -> Replay:
    """Write environment step number `step` (from 0), in place where the buffer is donated.

    Args:
        next_observation: (n,), the observation before any reset.
        following: (n,), the observation the next step starts from; equal to `next_observation` beyond `state_size`.
    """
    rows, state_size = replay.next_state.shape
    row = step % rows
    return Replay(
        observation=_write(replay.observation, following, (step + 1) % rows),
        next_state=_write(replay.next_state, next_observation[:state_size], row),
        action=_write(replay.action, action, row),
        reward=_write(replay.reward, reward, row),
        terminated=_write(replay.terminated, terminated, row),
    )


def sample(replay: Replay, key: jax.Array, steps: jax.Array, batch_size: int) -> Transitions:
    """Draw (with replacement) among the `steps` environment steps written so far, or the last `capacity` of them.

    `key` is consumed. `steps` is at least 1.
    """
    capacity = replay.reward.shape[0] - 1
    age = jax.random.randint(key, (batch_size,), 0, jnp.minimum(steps, capacity))
    return gather(replay, steps - 1 - age)


def gather(replay: Replay, steps: jax.Array) -> Transitions:
    """The transitions of the given environment steps (batch,), which must be in the buffer."""
    rows, state_size = replay.next_state.shape
    row, following = steps % rows, (steps + 1) % rows
    return Transitions(
        observation=replay.observation[row],
        action=replay.action[row],
        reward=replay.reward[row],
        terminated=replay.terminated[row],
        next_observation=jnp.concatenate([replay.next_state[row], replay.observation[following][:, state_size:]], axis=-1),
    )


def _write(buffer: jax.Array, value: jax.Array, row: jax.Array) -> jax.Array:
    return jax.lax.dynamic_update_index_in_dim(buffer, value.astype(buffer.dtype), row, axis=0)
