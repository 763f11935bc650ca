"""Distractors that are predictable and not linear, as VaGraM's are (Voelcker et al., 2022)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from typing_extensions import override

from envs.appended import Appended
from envs.projected import rotation
from mbrl_taskmet.rl.environment import Environment, State

FARTHEST = 20.0
"""The size of a component beyond which all start anew."""


class Nonlinear(Appended):
    """`env` beside `count` dimensions of a deterministic process.

        d ← A d + 0.1 sin(B d),    and d ← N(0, I), as at the start, where any |d_i| > 20

    The recurrence and the 20 are VaGraM's. The matrices are ours: A is a random rotation, which alone would keep the length
    of d, and B = A G Gᵀ / count with entries N(0, 1) in G, so that d cannot come to rest at 0. (A single dimension may come
    to rest, elsewhere.) They depend on `seed` alone and are the same in every run. Most of what moves d is linear.

    Args:
        env: the environment.
        count: the number of dimensions.
        seed: of A and B.

    Raises:
        UnsupportedEnvironment: `count` is not positive, or more than 2048.
    """

    def __init__(self, env: Environment, count: int, seed: int = 0):
        super().__init__(env, count, "nonlinear dynamics")
        generator = np.random.default_rng(seed)
        self.linear = rotation(count, generator)
        entries = generator.standard_normal((count, count))
        self.inner = self.linear @ entries @ entries.T / count

    @override
    def start(self, key: jax.Array) -> State:
        return jax.random.normal(key, (self.count,))

    @override
    def move(self, key: jax.Array, process: jax.Array) -> State:
        def times(matrix: np.ndarray) -> jax.Array:
            return jnp.matmul(jnp.asarray(matrix, process.dtype), process, precision="highest")

        following = times(self.linear) + 0.1 * jnp.sin(times(self.inner))
        return jnp.where(jnp.max(jnp.abs(following)) > FARTHEST, self.start(key), following)
