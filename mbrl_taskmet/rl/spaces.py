"""Action spaces: what an agent chooses from, and the vector by which models and the replay know it."""

from __future__ import annotations

import operator
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from mbrl_taskmet.core.settings import MOST, ConfigError


@dataclass(frozen=True)
class Discrete:
    """The actions 0 … n − 1, int scalars; as a vector, one-hot.

    Attributes:
        n: how many actions there are.

    Raises:
        ConfigError: that is no whole number from 1.
    """

    n: int

    def __post_init__(self) -> None:
        try:
            n = operator.index(self.n)
        except Exception:  # an array may raise its own
            n = 0
        if isinstance(self.n, (bool, np.bool_)) or not 1 <= n <= MOST:
            raise ConfigError(f"Discrete has n = {self.n!r}; give the number of actions, 1 or more")
        object.__setattr__(self, "n", n)

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

    Raises:
        ConfigError: they are not.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]

    def __post_init__(self) -> None:
        try:
            low, high = (np.asarray(bound, float) for bound in (self.low, self.high))
            fits = low.ndim == 1 and low.shape == high.shape and low.size > 0 and np.isfinite([low, high]).all()
            fits = fits and (low < high).all()
        except (TypeError, ValueError):
            fits = False
        if not fits:
            raise ConfigError(f"Box has low = {self.low!r} and high = {self.high!r}; "
                              "give two tuples of finite numbers, each lower than its partner")  # fmt: skip
        object.__setattr__(self, "low", tuple(low.tolist()))
        object.__setattr__(self, "high", tuple(high.tolist()))

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
