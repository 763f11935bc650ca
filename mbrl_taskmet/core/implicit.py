"""The implicit function theorem, as one function; levels are chained by calling it twice.

An inner problem x*(p) = argmin_x ℓ(f(x), p) is given by its two halves, a prediction f and a loss ℓ, and its solution by
the optimality condition ∂_x ℓ(f(x), p) = 0, however it was reached. With H = ∂²_x ℓ(f(x*), p) and a cotangent g = ∂L/∂x*,

    H u = g,        ∂L/∂p = − ∂_p ⟨∂_x ℓ(f(x*), p), u⟩ = − ∂_p ⟨∂_ŷ ℓ(ŷ, p), J u⟩,   ŷ = f(x*),  J = ∂f/∂x

(TaskMet eqs. 6–7, with the minus sign that the paper's eq. 7 drops). Keeping the halves apart makes the right-hand form
possible: the mixed derivative costs one tangent pass through f and none backwards, and the Gauss-Newton matrix is at hand.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import jax

from mbrl_taskmet.core.linear_solve import Product, Solution, Solver

PyTree = Any


def implicit_vjp(
    predict: Callable[[PyTree], PyTree],
    loss: Callable[[PyTree, PyTree], jax.Array],
    solution: PyTree,
    parameters: PyTree,
    cotangent: PyTree,
    solver: Solver,
) -> tuple[PyTree, Solution]:
    """Pull `cotangent`, an outer loss's gradient at x*, back to the parameters p of the inner problem.

    Args:
        predict: f, from x to predictions ŷ (pytrees of arrays).
        loss: ℓ, from (ŷ, p) to a scalar.
        solution: x*, where ∂_x ℓ(f(x), p) is taken to vanish. The result is zero if x* does not depend on p, whatever the
            starting point from which x* was found.
        parameters: p.
        cotangent: g, a pytree like x*.
        solver: how H u = g is solved; see `linear_solve`.

    Returns:
        (∂L/∂p, a pytree like p; the linear solve's `Solution`, whose residual tells how far to trust it).
    """
    solved = solver(curvature_product(predict, loss, solution, parameters, solver.curvature), cotangent)
    outputs, direction = jax.jvp(predict, (solution,), (solved.value,))
    _, pull_back = jax.vjp(lambda p: jax.jvp(lambda y: loss(y, p), (outputs,), (direction,))[1], parameters)
    (gradient,) = pull_back(-jax.numpy.ones_like(solved.residual))
    return gradient, solved


def curvature_product(
    predict: Callable[[PyTree], PyTree],
    loss: Callable[[PyTree, PyTree], jax.Array],
    solution: PyTree,
    parameters: PyTree,
    curvature: Literal["hessian", "gauss_newton"] = "hessian",
) -> Product:
    """v ↦ Hv at `solution`, or v ↦ Jᵀ(∂²_ŷ ℓ)Jv, linearised once so that each product is one tangent pass."""
    if curvature == "hessian":
        _, product = jax.linearize(jax.grad(lambda x: loss(predict(x), parameters)), solution)
        return product
    outputs, forward = jax.linearize(predict, solution)
    backward = jax.linear_transpose(forward, solution)
    _, outer = jax.linearize(jax.grad(lambda y: loss(y, parameters)), outputs)
    return lambda v: backward(outer(forward(v)))[0]
