"""The implicit gradient against closed forms, re-solved problems and jaxopt."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import jaxopt.implicit_diff
import jaxopt.linear_solve
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from mbrl_taskmet.core import implicit
from mbrl_taskmet.core.implicit import curvature_product
from mbrl_taskmet.core.linear_solve import CG, Dense, GaussNewton, Minres, NormalCG, Solver

pytestmark = pytest.mark.usefixtures("x64")
PyTree = Any

implicit_vjp = jax.jit(implicit.implicit_vjp, static_argnames=("predict", "loss", "solver"))


def normal(*shape: int, seed: int) -> jax.Array:
    return jnp.array(np.random.default_rng(seed).normal(size=shape))


@dataclass(frozen=True, eq=False)
class Ridge:
    """x*(λ, b) = argmin ½‖Ax − b‖² + ½λ‖x‖², in closed form."""

    design: jax.Array

    def predict(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        return self.design @ x, x

    @staticmethod
    def loss(outputs: tuple[jax.Array, jax.Array], parameters: tuple[jax.Array, jax.Array]) -> jax.Array:
        (fitted, x), (strength, targets) = outputs, parameters
        return 0.5 * jnp.sum((fitted - targets) ** 2) + 0.5 * strength * jnp.sum(x**2)

    def solve(self, parameters: tuple[jax.Array, jax.Array]) -> jax.Array:
        strength, targets = parameters
        return jnp.linalg.solve(self.design.T @ self.design + strength * jnp.eye(4), self.design.T @ targets)


# Four unknowns: Krylov methods are exact after four steps. The problem is linear, so Gauss-Newton is the Hessian.
@pytest.mark.parametrize(
    "solver", [Dense(), CG(4), NormalCG(4), Minres(4), GaussNewton(4, damping=0.0)], ids=lambda s: type(s).__name__
)
def test_ridge_regression_has_its_closed_form(solver: Solver) -> None:
    ridge, parameters, g = Ridge(normal(7, 4, seed=0)), (jnp.array(0.7), normal(7, seed=1)), normal(4, seed=2)
    x = ridge.solve(parameters)
    (by_strength, by_targets), solved = implicit_vjp(ridge.predict, ridge.loss, x, parameters, g, solver)
    u = jnp.linalg.solve(ridge.design.T @ ridge.design + 0.7 * jnp.eye(4), g)
    np.testing.assert_allclose(by_strength, -u @ x, rtol=1e-8)  # condition number about 10, squared by NormalCG
    np.testing.assert_allclose(by_targets, ridge.design @ u, rtol=1e-8)
    np.testing.assert_allclose(solved.value, u, rtol=1e-8)


def test_the_sign_is_that_of_the_theorem() -> None:
    # x*(p) = argmin ½(x − p)² = p and L = 3x, so dL/dp = 3; the paper's eq. 7 would say −3
    gradient, _ = implicit_vjp(
        lambda x: x, lambda x, p: 0.5 * (x - p) ** 2, jnp.array(2.0), jnp.array(2.0), jnp.array(3.0), Dense()
    )
    assert gradient == pytest.approx(3.0, rel=1e-14)


@dataclass(frozen=True, eq=False)
class Network:
    """Weight decay and one weight per sample and output, of a tanh network's least squares: the inner problem of TaskMet."""

    inputs: jax.Array  # (12, 2)
    targets: jax.Array  # (12, 2)

    def predict(self, x: PyTree) -> PyTree:
        return jnp.tanh(self.inputs @ x["in"] + x["bias"]) @ x["out"], x

    def loss(self, outputs: PyTree, parameters: PyTree) -> jax.Array:
        fitted, x = outputs
        weights = jax.nn.softplus(parameters["weights"])
        decay = sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(x))
        return jnp.sum(weights * (fitted - self.targets) ** 2) + jnp.exp(parameters["decay"]) * decay

    def newton(self, x: PyTree, parameters: PyTree, steps: int = 8) -> PyTree:
        """A stationary point of the inner loss, from a start close to it."""
        flat, unravel = ravel_pytree(x)
        gradient = jax.grad(lambda z: self.loss(self.predict(unravel(z)), parameters))
        step = lambda _, z: z - jnp.linalg.solve(jax.jacfwd(gradient)(z), gradient(z))  # noqa: E731
        return unravel(jax.lax.fori_loop(0, steps, step, flat))


@functools.cache
def network() -> tuple[Network, PyTree, PyTree]:
    """A problem, parameters, and a minimiser to machine precision."""
    problem = Network(normal(12, 2, seed=3), normal(12, 2, seed=4))
    parameters = {"weights": normal(12, 2, seed=5), "decay": jnp.array(-1.0)}
    x = {"in": normal(2, 3, seed=6), "bias": normal(3, seed=7), "out": normal(3, 2, seed=8)}
    descend = jax.jit(jax.grad(lambda x: problem.loss(problem.predict(x), parameters)))
    step = lambda _, x: jax.tree.map(lambda a, b: a - 0.02 * b, x, descend(x))  # noqa: E731
    x = jax.jit(lambda x: problem.newton(jax.lax.fori_loop(0, 2000, step, x), parameters))(x)
    assert max(jnp.abs(leaf).max() for leaf in jax.tree.leaves(descend(x))) < 1e-13
    return problem, parameters, x


def test_a_network_agrees_with_finite_differences_of_its_re_solved_problem(
    central_differences: Callable[..., PyTree], relative_error: Callable[..., float]
) -> None:
    problem, parameters, x = network()

    def outer(x: PyTree) -> jax.Array:
        return sum(jnp.sum(jnp.sin(leaf + 1)) for leaf in jax.tree.leaves(x))

    truth = central_differences(jax.jit(lambda p: outer(problem.newton(x, p))), parameters)
    gradient, solved = implicit_vjp(problem.predict, problem.loss, x, parameters, jax.jit(jax.grad(outer))(x), Dense())
    assert relative_error(gradient, truth) < 1e-6  # differences of step 1e-5 are off by about 1e-9
    assert solved.residual < 1e-10


def test_agrees_with_jaxopt() -> None:
    problem, parameters, x = network()
    flat, unravel = ravel_pytree(x)
    condition = jax.grad(lambda z, p: problem.loss(problem.predict(unravel(z)), p))
    root = jaxopt.implicit_diff.custom_root(condition, solve=jaxopt.linear_solve.solve_lu)(lambda _, p: flat)
    theirs = jax.jit(jax.grad(lambda p: jnp.sum(jnp.sin(root(None, p)))))(parameters)
    ours, _ = implicit_vjp(problem.predict, problem.loss, x, parameters, unravel(jnp.cos(flat)), Dense())
    # two exact solves of one system
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-12), ours, theirs)


def test_a_solution_that_does_not_depend_on_the_parameters_has_gradient_zero() -> None:
    # An interpolated linear problem has the same minimiser under every weighting of its errors.
    design, x = normal(6, 3, seed=0), normal(3, seed=1)
    targets = design @ x
    loss = lambda fitted, weights: jnp.sum(weights * (fitted - targets) ** 2)  # noqa: E731
    weights = jnp.arange(1.0, 7.0)
    gradient, solved = implicit_vjp(lambda x: design @ x, loss, x, weights, normal(3, seed=2), Dense())
    assert jnp.linalg.norm(ravel_pytree(solved.value)[0]) > 1e-2  # nothing else made it vanish
    np.testing.assert_allclose(gradient, np.zeros(6), atol=1e-14)  # errors are rounding, 1e-16


def test_curvature_products_are_those_of_the_dense_matrices() -> None:
    problem, parameters, x = network()
    flat, unravel = ravel_pytree(jax.tree.map(lambda leaf: leaf + 0.5, x))  # away from the optimum the two differ most
    v = normal(flat.size, seed=9)

    def predict(z: jax.Array) -> jax.Array:
        return problem.predict(unravel(z))[0]

    def loss(fitted: jax.Array, parameters: PyTree) -> jax.Array:
        return jnp.sum(jax.nn.softplus(parameters["weights"]) * jnp.log(jnp.cosh(fitted - problem.targets)))

    @jax.jit
    def products(z: jax.Array) -> tuple[jax.Array, ...]:
        outputs = predict(z)
        jacobian = jax.jacfwd(predict)(z).reshape(outputs.size, -1)
        outer = jax.hessian(lambda y: loss(y, parameters))(outputs).reshape(outputs.size, -1)
        hessian = jax.hessian(lambda z: loss(predict(z), parameters))(z)
        ours = (curvature_product(predict, loss, z, parameters, name)(v) for name in ("hessian", "gauss_newton"))
        return hessian @ v, jacobian.T @ (outer @ (jacobian @ v)), *ours

    hessian, gauss_newton, ours_hessian, ours_gauss_newton = products(flat)
    assert jnp.linalg.norm(hessian - gauss_newton) > 0.1 * jnp.linalg.norm(hessian)
    np.testing.assert_allclose(ours_hessian, hessian, rtol=1e-10, atol=1e-12)  # the same sums in another order
    np.testing.assert_allclose(ours_gauss_newton, gauss_newton, rtol=1e-10, atol=1e-12)


def test_the_gauss_newton_solver_uses_the_gauss_newton_matrix() -> None:
    problem, parameters, x = network()
    g = jax.tree.map(jnp.ones_like, x)
    # The weight decay makes JᵀBJ positive definite: CG on 15 unknowns is exact after 15 steps, two more for rounding.
    _, solved = implicit_vjp(problem.predict, problem.loss, x, parameters, g, GaussNewton(17, damping=0.0))
    product = jax.jit(curvature_product(problem.predict, problem.loss, x, parameters, "gauss_newton"))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), product(solved.value), g)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "solver", [Dense(), CG(5), NormalCG(5), Minres(5), GaussNewton(5, damping=0.0)], ids=lambda s: type(s).__name__
)
def test_the_gradient_has_a_derivative_by_the_cotangent_beyond_exhaustion(solver: Solver, dtype: type[np.floating]) -> None:
    # min_x ½xᵀHx − pᵀx is at H⁻¹p, so the gradient by p is H⁻¹g. Two unknowns: three of the five steps have nothing left to do.
    h = jnp.array([[2.0, 0.5], [0.5, 1.0]], dtype)
    g, p = jnp.array([0.3, -1.0], dtype), jnp.array([1.0, 2.0], dtype)

    def gradient(g: jax.Array) -> jax.Array:
        loss = lambda x, p: 0.5 * x @ h @ x - p @ x  # noqa: E731
        return implicit.implicit_vjp(lambda x: x, loss, jnp.linalg.solve(h, p), p, g, solver)[0]

    with jax.debug_nans(True):
        slope = jax.jit(jax.jacrev(gradient))(g)
    # condition number 2.6, two steps of a few roundings each
    np.testing.assert_allclose(slope, np.linalg.inv(np.array(h, np.float64)), atol=1e3 * np.finfo(dtype).eps)
