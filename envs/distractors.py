"""Distracting dimensions: fresh standard normal noise appended to every observation (TaskMet section 4.3)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from typing_extensions import override

from mbrl_taskmet.rl.environment import Environment, State, Step, UnsupportedEnvironment, Wrapper


class Distractors(Wrapper):
    """`env` with `count` values drawn from N(0, 1) at every step.

    The values are rounded to half precision, so that the replay keeps them exactly in half the memory.
    A step's noise is the same in the next observation it stores and in the observation the next step starts from, also
    across a reset.
    """

    def __init__(self, env: Environment, count: int):
        if count < 0:
            raise UnsupportedEnvironment(f"distractors is {count}; give 0 or more")
        super().__init__(env)
        self._count = count
        noisy = self.env.observation_size > len(self.env.state_names)
        half = self.env.noise_dtype is not None and jnp.dtype(self.env.noise_dtype) == jnp.float16
        self.noise_dtype = jnp.float16 if half or not noisy else None  # it is of all noise, also of what `env` has already
        self.name = f"{env.name} with {count} distractors" if count else env.name

    @property
    @override
    def observation_size(self) -> int:
        return self.env.observation_size + self._count

    @override
    def reset(self, key: jax.Array) -> tuple[State, jax.Array]:
        env_key, noise_key = jax.random.split(key)
        state, observation = self.env.reset(env_key)
        return state, jnp.concatenate([observation, self._noise(noise_key, observation)])

    @override
    def step(self, key: jax.Array, state: State, action: jax.Array) -> tuple[State, Step]:
        env_key, noise_key = jax.random.split(key)
        state, step = self.env.step(env_key, state, action)
        noise = self._noise(noise_key, step.observation)
        return state, step._replace(
            observation=jnp.concatenate([step.observation, noise]),
            next_observation=jnp.concatenate([step.next_observation, noise]),
        )

    def _noise(self, key: jax.Array, like: jax.Array) -> jax.Array:
        # float16's 5 exponent and 10 mantissa bits; XLA is free to skip a cast there and back
        return jax.lax.reduce_precision(jax.random.normal(key, (self._count,), like.dtype), 5, 10)
