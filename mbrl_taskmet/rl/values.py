"""Bellman equations, one function each. Shapes are per batch; everything broadcasts."""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mbrl_taskmet.core.optimizers import Number


def smaller_head(values: Float[Array, "heads *batch"]) -> Float[Array, "*batch"]:
    """The smaller of two heads' values: (2, ...) → (...).

    The derivative of `jnp.min` divides by the number of entries that equal the minimum. XLA may compute an entry twice, and
    round it otherwise; then none does, and the derivative is NaN.
    """
    first, second = values
    return jnp.where((first < second) | jnp.isnan(first), first, second)


def soft_value(action_values: Float[Array, "*batch actions"], temperature: Number) -> Float[Array, "*batch"]:
    """V(s) = α log Σ_a exp(Q(s,a)/α) (paper eq. 9): (..., actions) → (...)."""
    return temperature * jax.nn.logsumexp(action_values / temperature, axis=-1)


def bellman_target(
    reward: Float[Array, "*batch"], terminated: Float[Array, "*batch"], next_value: Float[Array, "*batch"], discount: Number
) -> Float[Array, "*batch"]:
    """r + γ·V(s') with no bootstrap after a termination; a truncated episode does bootstrap. All of shape (...)."""
    return reward + discount * (1.0 - terminated) * next_value


def bellman_error(
    action_values: Float[Array, "heads batch"], target: Float[Array, " batch"], reduction: Literal["sum", "mean"] = "sum"
) -> Float[Array, ""]:
    """E[(Q(s,a) − y)²], summed over heads, or their mean, as in the authors' code: (heads, batch), (batch,) → scalar."""
    heads = jnp.mean((action_values - target) ** 2, axis=-1)
    return jnp.sum(heads) if reduction == "sum" else jnp.mean(heads)
