"""Base of the disturbances that append an independent process to every observation."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from typing_extensions import override

from mbrl_taskmet.rl.environment import Environment, State, Step, UnsupportedEnvironment, Wrapper


class Appended(Wrapper):
    """`env` with `count` dimensions of a process that neither the agent nor an episode's end affects.

    The process starts with `reset` and moves at every step. It goes on across the ends of episodes: its values are the same in
    the next observation that a step stores and in the observation that the next step starts from. They keep full precision, so
    that each follows from the one before exactly as the process moves.

    Args:
        env: the environment.
        count: the number of dimensions.
        what: the process, for names and messages.
        multiple: a whole number that divides `count`.

    Raises:
        UnsupportedEnvironment: `count` will not do.
    """

    def __init__(self, env: Environment, count: int, what: str, multiple: int = 1):
        super().__init__(env)
        if count < 1 or count % multiple:
            near = max(1, round(count / multiple)) * multiple
            raise UnsupportedEnvironment(
                f"distractors is {count}, and {what} need a multiple of {multiple} dimensions; give {near}"
                if count > 0 else f"distractors is {count}, and {what} add dimensions; give {near} or more"
            )  # fmt: skip
        self.count, self.name = count, f"{env.name} with {count} dimensions of {what}"
        self.noise_dtype = None

    def start(self, key: jax.Array) -> State:
        """The process at the start. `key` is consumed."""
        raise NotImplementedError(f"{type(self).__name__} does not say how its process starts")

    def move(self, key: jax.Array, process: Any) -> State:
        """The process one step later. `key` is consumed."""
        raise NotImplementedError(f"{type(self).__name__} does not say how its process moves")

    def seen(self, process: Any) -> jax.Array:
        """What is observed of the process, (count,); by default the process itself."""
        return process

    @property
    @override
    def observation_size(self) -> int:
        return self.env.observation_size + self.count

    @override
    def reset(self, key: jax.Array) -> tuple[State, jax.Array]:
        env_key, own_key = jax.random.split(key)
        state, observation = self.env.reset(env_key)
        process = self.start(own_key)
        return (state, process), jnp.concatenate([observation, self.seen(process)])

    @override
    def step(self, key: jax.Array, state: State, action: jax.Array) -> tuple[State, Step]:
        env_key, own_key = jax.random.split(key)
        own, process = state
        own, step = self.env.step(env_key, own, action)
        process = self.move(own_key, process)
        seen = self.seen(process)
        return (own, process), step._replace(
            observation=jnp.concatenate([step.observation, seen]),
            next_observation=jnp.concatenate([step.next_observation, seen]),
        )
