"""Action spaces: what an agent chooses from, and the vector by which models and the replay know it."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int


@dataclass(frozen=True)
class Discrete:
    """The actions 0 … n − 1, int scalars; as a vector, one-hot.

    Attributes:
        n: how many actions there are.
    """

    n: int

    @property
    def size(self) -> int:
        """m, the length of an action's vector."""
        return self.n

    def sample(self, key: jax.Array) -> Int[Array, ""]:
        """An action, uniform. `key` is consumed."""
        return jax.random.randint(key, (), 0, self.n)

    def encode(self, action: Int[Array, "*batch"]) -> Float[Array, "*batch n"]:
        """The action () as a vector (m,)."""
        return jax.nn.one_hot(action, self.n)

    def decode(self, vector: Float[Array, "*batch n"]) -> Int[Array, "*batch"]:
        """The inverse of `encode`."""
        return jnp.argmax(vector, axis=-1)


@dataclass(frozen=True)
class Box:
    """The vectors (m,) between `low` and `high`; as a vector, scaled to [−1, 1].

    Attributes:
        low, high: the bounds of each component, finite.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]

    @property
    def size(self) -> int:
        """m, the length of an action."""
        return len(self.low)

    def sample(self, key: jax.Array) -> Float[Array, " m"]:
        """An action, uniform. `key` is consumed."""
        return self.decode(jax.random.uniform(key, (self.size,), minval=-1.0, maxval=1.0))

    def encode(self, action: Float[Array, "*batch m"]) -> Float[Array, "*batch m"]:
        """An action (..., m) in [−1, 1]."""
        low, high = self._bounds(action)
        return 2 * (action - low) / (high - low) - 1

    def decode(self, vector: Float[Array, "*batch m"]) -> Float[Array, "*batch m"]:
        """The inverse of `encode`."""
        low, high = self._bounds(vector)
        return jnp.clip(low + (vector + 1) * (high - low) / 2, low, high)  # rounding would leave the bounds

    def _bounds(self, like: jax.Array) -> tuple[jax.Array, jax.Array]:
        return jnp.asarray(np.array(self.low), like.dtype), jnp.asarray(np.array(self.high), like.dtype)


ActionSpace = Discrete | Box
