"""The contract between an environment and the training loop, for vector observations.

An environment of your own is a subclass with `reset` and `transition`; starting a new episode at the end of one is done here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from mbrl_taskmet.core.settings import ConfigError, setting
from mbrl_taskmet.rl.spaces import ActionSpace

State = Any


@dataclass(frozen=True, kw_only=True)
class EnvironmentSettings:
    """Which environment, and what disturbs its observations."""

    name: str = setting("CartPole-v1", "registered gymnax environment, or module:Class of your own", flag="env")
    distractors: int = setting(0, "distracting dimensions in every observation", low=0)
    disturbance: str = setting("noise", "what the distracting dimensions are")


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
    action_space: what an action is.
    max_episode_steps: no episode is longer.
    costly_reset: a reset costs as much as a step, or more: it is then computed only where an episode has ended. Otherwise it
        is computed at every step, which is cheaper than a branch.
    """

    name: str
    state_names: tuple[str, ...]
    action_space: ActionSpace
    max_episode_steps: int
    noise_dtype: DTypeLike | None = None
    costly_reset: ClassVar[bool] = False

    @property
    def observation_size(self) -> int:
        """n, the length of an observation."""
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
        """One step, and a reset where it ended the episode. `key` is consumed; `action` is one of `action_space`."""
        step_key, reset_key = jax.random.split(key)
        state, next_observation, reward, terminated, truncated = self.transition(step_key, state, action)
        done, now = terminated | truncated, (state, next_observation)
        if self.costly_reset:
            state, observation = jax.lax.cond(done, lambda: self.reset(reset_key), lambda: now)
        else:
            state, observation = jax.tree.map(lambda fresh, old: jnp.where(done, fresh, old), self.reset(reset_key), now)
        return state, Step(observation, next_observation, reward, terminated, truncated)


class Wrapper(Environment):
    """An environment that is `env` but for what a subclass changes."""

    def __init__(self, env: Environment):
        self.env = env
        self.name, self.state_names, self.action_space = env.name, env.state_names, env.action_space
        self.max_episode_steps, self.noise_dtype = env.max_episode_steps, env.noise_dtype

    @property
    def observation_size(self) -> int:
        """n of the wrapped environment, unless a subclass adds to it."""
        return self.env.observation_size

    def reset(self, key: jax.Array) -> tuple[State, jax.Array]:
        """Start an episode of the wrapped environment."""
        return self.env.reset(key)

    def step(self, key: jax.Array, state: State, action: jax.Array) -> tuple[State, Step]:
        """One step of the wrapped environment."""
        return self.env.step(key, state, action)
