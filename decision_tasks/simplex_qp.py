"""max_z bᵀz − ½zᵀAz over the simplex {z ≥ 0, Σz = 1}, exactly: the path of the critical line (Markowitz 1956).

With the multiplier τ of Σz = 1, the KKT conditions w = Az − b − τ1 ≥ 0, z ≥ 0, zᵀw = 0 are a linear complementarity problem
whose solution is piecewise linear in τ: z = 0 up to τ = −max b, then Σz rises to 1. Each breakpoint exchanges one z_i and its
w_i, one principal pivot, a rank-1 update. For a positive definite A pivoting on the least index among equals ends (Murty 1974).
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

_REFINEMENTS = 2


class _Path(NamedTuple):
    """A point of the path. The basic variable i (z_i if held, else w_i) is constant_i + slope_i τ."""

    tableau: jax.Array  # (n, n) A after the pivots; its held block is the inverse of A's
    constant: jax.Array  # (n,)
    slope: jax.Array  # (n,)
    held: jax.Array  # (n,) bool, z_i > 0
    tau: jax.Array
    pivots: jax.Array


@jax.custom_vjp
def simplex_qp(b: jax.Array, a: jax.Array) -> jax.Array:
    """z (n,) for b (n,) and a symmetric positive definite A (n, n); differentiable in both on its active set."""
    return _solve(b, a)[0]


def _solve(b: jax.Array, a: jax.Array) -> tuple[jax.Array, jax.Array]:
    n = b.shape[0]
    start = _Path(a, -b, -jnp.ones_like(b), jnp.zeros(n, bool), -jnp.max(b), jnp.int32(0))
    path = jax.lax.while_loop(lambda p: (_total(p, _next(p)[1]) < 1) & (p.pivots < 10 * n), _pivot, start)
    held = path.held
    inverse = jnp.where(held[:, None] & held, path.tableau, 0.0)
    tau = (1 - _total(path, 0.0)) / jnp.sum(jnp.where(held, path.slope, 0.0))
    z = jnp.where(held, path.constant + path.slope * tau, 0.0)
    projection = _projection(inverse)
    for _ in range(_REFINEMENTS):  # what rounding left over; the projection keeps Σz
        z = z / jnp.sum(z)
        z = jnp.maximum(z + projection @ (b - a @ z), 0.0)
    return z / jnp.sum(z), projection


def _next(path: _Path) -> tuple[jax.Array, jax.Array]:
    """(index, τ) of the next breakpoint; τ = ∞ where there is none."""
    falling = path.slope < 0
    at = jnp.where(falling, -path.constant / jnp.where(falling, path.slope, 1.0), jnp.inf)
    at = jnp.maximum(at, path.tau)  # rounding may have let it pass
    i = jnp.argmin(at)
    return i, at[i]


def _total(path: _Path, tau: jax.Array | float) -> jax.Array:
    """Σz at τ."""
    value = jnp.sum(jnp.where(path.held, path.constant, 0.0))
    slope = jnp.sum(jnp.where(path.held, path.slope, 0.0))
    return value + jnp.where(slope == 0, 0.0, slope * jnp.where(slope == 0, 0.0, tau))


def _pivot(path: _Path) -> _Path:
    i, tau = _next(path)
    at_i = jnp.arange(path.slope.shape[0]) == i
    row, column, pivot = path.tableau[i], path.tableau[:, i], path.tableau[i, i]

    def exchanged(vector: jax.Array) -> jax.Array:
        ratio = -vector[i] / pivot
        return jnp.where(at_i, ratio, vector + column * ratio)

    tableau = path.tableau - jnp.outer(column, row / pivot)
    tableau = jnp.where(at_i[:, None], -row / pivot, jnp.where(at_i, column[:, None] / pivot, tableau))
    tableau = jnp.where(at_i[:, None] & at_i, 1 / pivot, tableau)
    return _Path(tableau, exchanged(path.constant), exchanged(path.slope), path.held ^ at_i, tau, path.pivots + 1)


def _projection(inverse: jax.Array) -> jax.Array:
    """∂z/∂b = A⁻¹ − A⁻¹11ᵀA⁻¹ / 1ᵀA⁻¹1 on the held block, 0 elsewhere."""
    sums = jnp.sum(inverse, axis=1)
    return inverse - jnp.outer(sums, sums) / jnp.sum(sums)


def _forward(b: jax.Array, a: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    z, projection = _solve(b, a)
    return z, (z, projection)


def _backward(saved: tuple[jax.Array, jax.Array], cotangent: jax.Array) -> tuple[jax.Array, jax.Array]:
    z, projection = saved
    by_b = projection @ cotangent
    return by_b, -(jnp.outer(by_b, z) + jnp.outer(z, by_b)) / 2


simplex_qp.defvjp(_forward, _backward)
