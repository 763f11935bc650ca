"""State and noise mixed by a fixed random rotation, where no diagonal metric can tell them apart."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from typing_extensions import override

from envs.distractors import Distractors
from mbrl_taskmet.rl.environment import Environment, State, Step, UnsupportedEnvironment, Wrapper

MOST = 2048
"""The largest rotation, of 16 MiB in float32, that takes seconds to make."""


class Linear(Wrapper):
    """`env`, whose whole observation o is seen as M o.

    Args:
        env: the environment.
        matrix: M, (n, n).
    """

    def __init__(self, env: Environment, matrix: np.ndarray):
        super().__init__(env)
        self.matrix = matrix

    @override
    def reset(self, key: jax.Array) -> tuple[State, jax.Array]:
        state, observation = self.env.reset(key)
        return state, times(self.matrix, observation)

    @override
    def step(self, key: jax.Array, state: State, action: jax.Array) -> tuple[State, Step]:
        state, step = self.env.step(key, state, action)
        return state, step._replace(
            observation=times(self.matrix, step.observation), next_observation=times(self.matrix, step.next_observation)
        )


class Projected(Linear):
    """`env`, whose whole observation o is seen as R o, with a rotation R that depends on `seed` alone.

    Every observed dimension holds a share of the state and of the noise, and all of them change when an episode ends. So all
    count among `state_names`, as mixed_0, mixed_1, …, and the replay rounds none. The weights of a metric are those of mixed
    dimensions. The model's error on the state, a known termination and films turn observations back with Rᵀ.

    Args:
        env: the environment, with the noise that is mixed into its state.
        seed: of the rotation, which is the same in every run.

    Raises:
        UnsupportedEnvironment: an observation has more than 2048 dimensions.
    """

    def __init__(self, env: Environment, seed: int = 0):
        super().__init__(env, rotation(env.observation_size, np.random.default_rng(seed)))
        own = self.rotation[:, : len(self.env.state_names)]
        self.mixing = own if self.env.mixing is None else own @ self.env.mixing
        self.state_names = tuple(f"mixed_{i}" for i in range(env.observation_size))
        self.name, self.noise_dtype = f"{env.name}, projected", None

    @property
    def rotation(self) -> np.ndarray:
        """R, (n, n)."""
        return self.matrix

    @override
    def termination(self, observation: jax.Array, action: jax.Array, next_observation: jax.Array) -> jax.Array | None:
        back = self.rotation.T
        return self.env.termination(times(back, observation), action, times(back, next_observation))


def times(matrix: np.ndarray, observation: jax.Array) -> jax.Array:
    """The product, in the precision of the observation."""
    return jnp.matmul(jnp.asarray(matrix, observation.dtype), observation, precision="highest")


def projected(env: Environment, count: int) -> Projected:
    """`env` with `count` dimensions of fresh noise, all of it rotated: what `--disturbance projected` names."""
    return Projected(Distractors(env, count))


def rotation(size: int, generator: np.random.Generator) -> np.ndarray:
    """A rotation (size, size), uniform over all: orthogonal, of determinant 1.

    Raises:
        UnsupportedEnvironment: it would be too large to make.
    """
    if size > MOST:
        raise UnsupportedEnvironment(
            f"a random rotation of {size} dimensions is too large; give fewer distractors, for at most {MOST}"
        )
    made, triangular = np.linalg.qr(generator.standard_normal((size, size)))
    made *= np.sign(np.diag(triangular))  # without this it would not be uniform: Mezzadri, How to generate random matrices
    made[:, 0] *= np.sign(np.linalg.det(made))
    return made
