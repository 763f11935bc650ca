"""Distractors that are predictable and linear: points that turn on circles."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from typing_extensions import override

from envs.appended import Appended
from mbrl_taskmet.rl.environment import Environment, State

SLOWEST, FASTEST = 0.1, 1.0
"""Radians a step, between which frequencies are drawn."""


class Oscillators(Appended):
    """`env` beside `count` / 2 oscillators of two dimensions each.

        d = √2 (cos φ, sin φ),    φ ← φ + ω,    so that d ← R(ω) d with the rotation R(ω) by ω

    Phases φ are uniform at the start, so that every dimension has mean 0 and variance 1. The frequencies ω are uniform on
    [0.1, 1] radians a step. They depend on `seed` alone and are the same in every run.

    Args:
        env: the environment.
        count: the number of dimensions, even.
        seed: of the frequencies; the first oscillators of one seed are the same for every count.

    Raises:
        UnsupportedEnvironment: `count` is odd or not positive.
    """

    def __init__(self, env: Environment, count: int, seed: int = 0):
        super().__init__(env, count, "oscillators", multiple=2)
        self.frequencies = np.random.default_rng(seed).uniform(SLOWEST, FASTEST, count // 2)

    @override
    def start(self, key: jax.Array) -> State:
        return jax.random.uniform(key, (self.count // 2,), maxval=2 * jnp.pi)

    @override
    def move(self, key: jax.Array, process: jax.Array) -> State:
        # phases, not points: rounding would change the radius of a point that is rotated again and again
        return jnp.mod(process + jnp.asarray(self.frequencies, process.dtype), 2 * jnp.pi)

    @override
    def seen(self, process: jax.Array) -> jax.Array:
        return jnp.sqrt(2.0) * jnp.stack([jnp.cos(process), jnp.sin(process)], axis=-1).ravel()
