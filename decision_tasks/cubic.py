"""Cubic: choose the best `choose` of `items`, each worth y = 10x³ − 6.5x, with a linear model of y (Shah et al. 2022).

The relaxation is entropic optimal transport to the two anchors 0 (left) and 1 (chosen), Xie et al. (2020). With two anchors
it has a closed form: with d_i = (c_i0 − c_i1) / max c the advantage of choosing i over leaving it, c_ia = (ŷ_i − a)²,

    Z_i = σ((d_i + t)/ε)  and the scalar t for which Σ Z = k,      dZ/dd = (diag(w) − wwᵀ/Σw)/ε,  w = Z(1 − Z)

The largest cost max c is differentiated too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from typing_extensions import override

from decision_tasks.base import Data, Split, split
from decision_tasks.choosing import Choosing
from mbrl_taskmet.core.settings import setting


@dataclass(frozen=True)
class Cubic(Choosing):
    """Choose k = `choose` of n = `items`; ε = `epsilon` is that of the relaxation."""

    name: ClassVar[str] = "cubic"
    learning_rate: ClassVar[float] = 0.1
    outer_batch: ClassVar[int] = 50
    lodl_std: ClassVar[float | None] = 0.3  # published: 1, where the quadratics that fit best prefer a falling line
    lodl_learning_rate: ClassVar[float] = 0.01

    items: int = setting(50, "items to choose from", low=1)
    choose: int = setting(1, "how many to choose", low=1)
    train: int = setting(200, "training instances", low=1)
    validation: int = setting(200, "validation instances", low=1)
    test: int = setting(400, "test instances", low=1)
    epsilon: float = 0.01

    @override
    def data(self, key: jax.Array) -> Split:
        x = jax.random.uniform(key, (self.train + self.validation + self.test, self.items, 1), minval=-1.0, maxval=1.0)
        data = Data(x, 10 * x**3 - 6.5 * x)
        return split(data, self.train, self.validation)

    @override
    def value(self, z: jax.Array, y: jax.Array, given: Any = ()) -> jax.Array:
        return jnp.sum(z * y[:, 0])

    @override
    def decide(self, y: jax.Array, given: Any = ()) -> jax.Array:
        return hard_top_k(y[:, 0], self.choose)

    @override
    def relax(self, y: jax.Array, given: Any = ()) -> jax.Array:
        return soft_top_k(y[:, 0], self.choose, self.epsilon)


def hard_top_k(scores: jax.Array, k: int) -> jax.Array:
    """1 at the k largest of scores (n,), the first ones of equals, 0 elsewhere."""
    return jnp.zeros_like(scores).at[jax.lax.top_k(scores, k)[1]].set(1.0)


def soft_top_k(scores: jax.Array, k: int, epsilon: float) -> jax.Array:
    """Z (n,) of scores (n,), in [0, 1] with ΣZ = k."""
    if k == scores.shape[0]:
        return jnp.ones_like(scores)
    largest = jnp.max(jnp.maximum(scores**2, (scores - 1) ** 2))  # at least ¼
    return _balanced((2 * scores - 1) / largest, k, epsilon)


@jax.custom_vjp
def _balanced(advantage: jax.Array, k: float, epsilon: float) -> jax.Array:
    """σ((d + t)/ε) with the t that makes its sum k."""
    return _balance(advantage, k, epsilon)


def _balance(advantage: jax.Array, k: float, epsilon: float) -> jax.Array:
    n = advantage.shape[0]
    # σ((d_i + t)/ε) ≥ k/n for all i at the upper end and ≤ k/n for all at the lower: ΣZ = k is between.
    offset = epsilon * (jnp.log(k) - jnp.log(n - k))
    ends = offset - jnp.max(advantage), offset - jnp.min(advantage)

    def halve(_: int, ends: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = ends
        middle = (low + high) / 2
        over = jnp.sum(jax.nn.sigmoid((advantage + middle) / epsilon)) > k
        return jnp.where(over, low, middle), jnp.where(over, middle, high)

    low, high = jax.lax.fori_loop(0, jnp.finfo(advantage.dtype).nmant + 4, halve, ends)  # to the last digit
    return jax.nn.sigmoid((advantage + (low + high) / 2) / epsilon)


def _forward(advantage: jax.Array, k: float, epsilon: float) -> tuple[jax.Array, tuple[jax.Array, float]]:
    chosen = _balance(advantage, k, epsilon)
    return chosen, (chosen, epsilon)


def _backward(saved: tuple[jax.Array, float], cotangent: jax.Array) -> tuple[jax.Array, None, None]:
    chosen, epsilon = saved
    w = chosen * (1 - chosen)
    total = jnp.sum(w)
    mean = jnp.sum(w * cotangent) / jnp.where(total == 0, 1.0, total)
    return w * (cotangent - mean) / epsilon, None, None


_balanced.defvjp(_forward, _backward)
