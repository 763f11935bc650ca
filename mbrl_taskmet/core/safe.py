"""Arithmetic whose values and derivatives stay finite: division by 0 and at 0, and norms whose squares leave the range."""

from __future__ import annotations

import jax
import jax.numpy as jnp


@jax.custom_jvp
def _divide(numerator: jax.Array, denominator: jax.Array) -> jax.Array:
    """Division whose derivative squares no denominator: that of a small one would be 0."""
    return numerator / denominator


@_divide.defjvp
def _(primals: tuple[jax.Array, jax.Array], tangents: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
    quotient = _divide(*primals)
    return quotient, (tangents[0] - quotient * tangents[1]) / primals[1]


def safe_divide(numerator: jax.Array, denominator: jax.Array, where: jax.Array | None = None) -> jax.Array:
    """numerator / denominator, and 0 with derivatives 0 where it shall not be divided, or else where the denominator is 0."""
    safe = denominator != 0 if where is None else where
    return jnp.where(safe, _divide(numerator, jnp.where(safe, denominator, 1.0)), 0.0)


def magnitude(x: jax.Array) -> jax.Array:
    """The power of two at the largest |entry|, which rounds nothing that it multiplies or divides; 1 for none, 0 and NaN."""
    largest = jnp.max(jnp.abs(jax.lax.stop_gradient(x)), initial=0.0)
    known = (largest > 0) & jnp.isfinite(largest)
    limits = jnp.finfo(x.dtype)
    exponent = jnp.clip(jnp.frexp(jnp.where(known, largest, 1.0))[1], limits.minexp, -limits.minexp)
    return jnp.where(known, jnp.ldexp(jnp.ones_like(largest), exponent), 1.0)


def norm(x: jax.Array) -> jax.Array:
    """‖x‖, whose square may be out of the number range; its derivative at 0 is 0."""
    unit = magnitude(x)
    y = x / unit
    square = jnp.sum(y * y)
    zero = square == 0
    return jnp.where(zero, 0.0, unit * jnp.sqrt(jnp.where(zero, 1.0, square)))


def rounding_of(x: jax.Array) -> float:
    """The relative size under which a figure that is computed from products with vectors like x may be rounding alone."""
    return 30 * float(jnp.finfo(x.dtype).eps)
