"""Differentiable budget decisions that do not enumerate subsets."""

from __future__ import annotations

import jax
import jax.numpy as jnp

DAMPING = 0.01
_STEPS, _RATE, _MOMENTUM = 100, 0.1, 0.9
_BISECTIONS = 40


def soft_greedy(y: jax.Array, choose: int, temperature: float) -> jax.Array:
    """Greedy's choice with a softmax in place of each argmax: z (items,), in [0, 1] with Σz ≤ choose."""

    def add(z: jax.Array, _: None) -> tuple[jax.Array, None]:
        silent = jnp.prod(1 - z[:, None] * y, axis=0)
        share = jax.nn.softmax((1 - z) * (y @ silent) / temperature)
        return z + (1 - z) * share, None

    return jax.lax.scan(add, jnp.zeros_like(y[:, 0]), None, length=choose)[0]


@jax.custom_vjp
def projected_gradient(y: jax.Array, choose: float) -> jax.Array:
    """The published relaxation: accelerated projected gradient on the multilinear g over {0 ≤ z ≤ 1, Σz ≤ choose}.

    100 steps of 0.1 with momentum 0.9, from a start that is random but the same every time. Its derivative solves the KKT
    system with 0.01·I added to it. At integral solutions, nearly all of them, the true derivative is 0 and this one comes
    from that 0.01 alone.
    """
    return _ascend(y, choose)


def _ascend(y: jax.Array, choose: float) -> jax.Array:
    start = jax.random.uniform(jax.random.key(0), y.shape[:1], y.dtype)

    def advance(_: int, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        z, velocity = carry
        velocity = _MOMENTUM * velocity + _gradient(z, y)
        return _project(z + _RATE * velocity, choose), velocity

    return jax.lax.fori_loop(0, _STEPS, advance, (_project(start, choose), jnp.zeros_like(start)))[0]


def _gradient(z: jax.Array, y: jax.Array) -> jax.Array:
    """∂g/∂z (items,). The products leave out one factor each, so that none is divided by."""
    factors = 1 - z[:, None] * y
    others = jnp.where(jnp.eye(len(z), dtype=bool)[:, :, None], 1.0, factors[None])
    return jnp.sum(y * jnp.prod(others, axis=1), axis=1)


def _project(z: jax.Array, choose: float) -> jax.Array:
    """The nearest point with 0 ≤ z ≤ 1 and Σz ≤ choose, by bisection on the multiplier of the sum."""

    def halve(_: int, ends: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = ends
        middle = (low + high) / 2
        over = jnp.sum(jnp.clip(z - middle, 0, 1)) > choose
        return jnp.where(over, middle, low), jnp.where(over, high, middle)

    low, high = jax.lax.fori_loop(0, _BISECTIONS, halve, (jnp.zeros_like(z[0]), jnp.maximum(jnp.max(z), 0.0)))
    return jnp.where(jnp.sum(jnp.clip(z, 0, 1)) <= choose, jnp.clip(z, 0, 1), jnp.clip(z - (low + high) / 2, 0, 1))


def _forward(y: jax.Array, choose: float) -> tuple[jax.Array, tuple[jax.Array, jax.Array, float]]:
    z = _ascend(y, choose)
    return z, (z, y, choose)


def _backward(saved: tuple[jax.Array, jax.Array, float], cotangent: jax.Array) -> tuple[jax.Array, None]:
    """K = [[−∂²g/∂z², Gᵀ], [diag(λ)G, diag(Gz − h)]] + 0.01·I for Gz ≤ h;  dz = −K⁻¹ [−∂²g/∂z∂y; 0] dy."""
    z, y, choose = saved
    n = z.shape[0]
    identity = jnp.eye(n, dtype=z.dtype)
    constraints = jnp.concatenate([-identity, identity, jnp.ones((1, n), z.dtype)])
    limits = jnp.concatenate([jnp.zeros(n), jnp.ones(n), jnp.full(1, choose)]).astype(z.dtype)
    slope = _gradient(z, y)
    # the multiplier of the sum: what separates the gradients of those at 1 from the others', and never negative
    least_full = jnp.min(jnp.where(z > 1 - 1e-4, slope, jnp.inf))
    most_other = jnp.max(jnp.where(z > 1 - 1e-4, -jnp.inf, slope))
    price = jnp.maximum(jnp.where(jnp.isfinite(least_full) & jnp.isfinite(most_other), (least_full + most_other) / 2,
                                  jnp.where(jnp.isfinite(most_other), most_other, 0.0)), 0.0)  # fmt: skip
    multipliers = jnp.concatenate([jnp.where(z < 1e-4, jnp.maximum(price - slope, 0.0), 0.0),
                                   jnp.where(z > 1 - 1e-4, jnp.maximum(slope - price, 0.0), 0.0), price[None]])  # fmt: skip
    curvature = jax.jacfwd(_gradient)(z, y)
    system = jnp.block([
        [-curvature, constraints.T],
        [multipliers[:, None] * constraints, jnp.diag(constraints @ z - limits)],
    ]) + DAMPING * jnp.eye(3 * n + 1, dtype=z.dtype)  # fmt: skip
    right = jnp.concatenate([cotangent, jnp.zeros_like(limits)])
    adjoint = jax.lax.platform_dependent(system.T, right, cpu=_solve_apart, default=jnp.linalg.solve)[:n]
    _, pull_back = jax.vjp(lambda rates: _gradient(z, rates), y)
    return pull_back(adjoint)[0], None


@jax.custom_batching.sequential_vmap
def _solve_apart(matrix: jax.Array, right: jax.Array) -> jax.Array:
    """One system after the other: jaxlib 0.10.2 deadlocks in batched LU factors when several CPU devices make them at once."""
    return jnp.linalg.solve(matrix, right)


projected_gradient.defvjp(_forward, _backward)
