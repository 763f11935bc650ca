"""Bellman equations, one function each. Shapes are per batch; everything broadcasts."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def soft_value(action_values: jax.Array, temperature: float) -> jax.Array:
    """V(s) = α log Σ_a exp(Q(s,a)/α) (paper eq. 9): (..., actions) → (...)."""
    return temperature * jax.nn.logsumexp(action_values / temperature, axis=-1)


def bellman_target(reward: jax.Array, terminated: jax.Array, next_value: jax.Array, discount: float) -> jax.Array:
    """r + γ·V(s') with no bootstrap after a termination; a truncated episode does bootstrap. All of shape (...)."""
    return reward + discount * (1.0 - terminated) * next_value


def bellman_error(action_values: jax.Array, target: jax.Array) -> jax.Array:
    """E[(Q(s,a) − y)²], summed over heads: (heads, batch), (batch,) → scalar."""
    return jnp.sum(jnp.mean((action_values - target) ** 2, axis=-1))
