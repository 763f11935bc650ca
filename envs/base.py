"""The contract between an environment and the training loop, for vector observations and discrete actions.

An environment of your own is a subclass with `reset` and `transition`; starting a new episode at the end of one is done here.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from mbrl_taskmet.config import ConfigError

State = Any


class Step(NamedTuple):
    """What one environment step gives. Termination and truncation are two facts: only the first ends the bootstrap."""

    observation: jax.Array  # (n,), what the next step starts from: after the reset, where the episode ended
    next_observation: jax.Array  # (n,), what this step led to: before any reset
    reward: jax.Array  # ()
    terminated: jax.Array  # (), bool: the environment itself ended the episode
    truncated: jax.Array  # (), bool: a time limit cut it


class UnsupportedEnvironment(ConfigError):
    """An environment that the agents cannot run; its message names the reason and the mend."""


class Environment:
    """One environment, as pure functions of explicit state and keys.

    name: what logs call it.
    state_names: names of the k leading dimensions of an observation, those that belong to the task. The others (n − k) are
        noise: they are not reset with an episode.
    observation_size: n, which is k unless noise is appended.
    noise_dtype: a smaller type that represents the noise exactly, for the replay; None where there is none.
    num_actions: actions are 0 … num_actions − 1.
    max_episode_steps: no episode is longer.
    """

    name: str
    state_names: tuple[str, ...]
    num_actions: int
    max_episode_steps: int
    noise_dtype: DTypeLike | None = None

    @property
    def observation_size(self) -> int:
        return len(self.state_names)

    def reset(self, key: jax.Array) -> tuple[State, jax.Array]:
        """Start an episode: (state, observation (n,)). `key` is consumed."""
        raise NotImplementedError(f"{type(self).__name__} does not say how an episode starts")

    def transition(
        self, key: jax.Array, state: State, action: jax.Array
    ) -> tuple[State, jax.Array, jax.Array, jax.Array, jax.Array]:
        """One step without any reset: (state, observation, reward, terminated, truncated). `key` is consumed."""
        raise NotImplementedError(f"{type(self).__name__} does not say how it moves")

    def step(self, key: jax.Array, state: State, action: jax.Array) -> tuple[State, Step]:
        """One step, and a reset where it ended the episode. `key` is consumed; `action` is an int scalar."""
        step_key, reset_key = jax.random.split(key)
        state, next_observation, reward, terminated, truncated = self.transition(step_key, state, action)
        fresh_state, fresh_observation = self.reset(reset_key)
        done = terminated | truncated
        state = jax.tree.map(lambda fresh, old: jnp.where(done, fresh, old), fresh_state, state)
        observation = jnp.where(done, fresh_observation, next_observation)
        return state, Step(observation, next_observation, reward, terminated, truncated)
