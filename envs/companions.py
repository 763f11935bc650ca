"""Distractors that look like the task: other copies of the same environment, which act at random."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from typing_extensions import override

from envs.appended import Appended
from mbrl_taskmet.rl.environment import Environment, State, Step


class Companions(Appended):
    """`env` beside what other copies of it observe, each under uniformly random actions that are not seen.

    All begin together, and each has episodes of its own. What is seen of a copy is what its next step starts from: where its
    episode has ended, the start of the next.

    Args:
        env: the environment, with its own noise if it has any.
        count: the number of dimensions, a multiple of `env`'s observation size.

    Raises:
        UnsupportedEnvironment: `count` is no such multiple.
    """

    def __init__(self, env: Environment, count: int):
        super().__init__(env, count, "companions", multiple=env.observation_size)
        self._copies = count // env.observation_size

    @override
    def start(self, key: jax.Array) -> State:
        return jax.vmap(self.env.reset)(jax.random.split(key, self._copies))

    @override
    def move(self, key: jax.Array, process: tuple[State, jax.Array]) -> State:
        def one(key: jax.Array, state: State) -> tuple[State, jax.Array]:
            act_key, step_key = jax.random.split(key)
            state, step = self.env.step(step_key, state, self.env.action_space.sample(act_key))
            return state, Step(*step).observation

        return jax.vmap(one)(jax.random.split(key, self._copies), process[0])

    @override
    def seen(self, process: tuple[State, jax.Array]) -> jax.Array:
        return jnp.ravel(process[1])
