"""Every linear solver against the dense answer, against textbook iterations and against jaxopt and scipy."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import jaxopt.linear_solve
import numpy as np
import pytest
import scipy.sparse.linalg
from jax.flatten_util import ravel_pytree

from mbrl_taskmet.core.linear_solve import (
    CG,
    SOLVERS,
    Dense,
    GaussNewton,
    Identity,
    Iterative,
    Minres,
    Neumann,
    NormalCG,
    Solution,
    Solver,
)

pytestmark = pytest.mark.usefixtures("x64")

DEFINITE = (1.0, 1.3, 1.7, 2.0, 2.6, 3.0)
INDEFINITE = (-2.0, -1.0, -0.7, 0.8, 1.5, 3.0)
SINGULAR = (-2.0, -1.0, 0.0, 0.8, 1.5, 3.0)

# Six unknowns: six Krylov steps are exact but for rounding, two more let it settle. Neumann contracts by 1 − 0.4·1 a step.
CONVERGED: dict[str, Solver] = {
    "cg": CG(8),
    "gauss_newton": GaussNewton(8, damping=0.0),
    "normal_cg": NormalCG(8),
    "minres": Minres(8),
    "dense": Dense(),
    "neumann": Neumann(80, step_size=0.4),
}
FOR_INDEFINITE = ("normal_cg", "minres", "dense")
TRUNCATED = {
    name: solver(steps=3, damping=0.0) if issubclass(solver, Iterative) else solver(damping=0.0)
    for name, solver in SOLVERS.items()
}


def matrix(eigenvalues: Sequence[float], seed: int = 0) -> np.ndarray:
    """A symmetric matrix with these eigenvalues."""
    vectors, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(len(eigenvalues),) * 2))
    return vectors * np.array(eigenvalues) @ vectors.T


def vector(size: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=size)


@partial(jax.jit, static_argnums=0)
def solve(solver: Solver, h: jax.Array, g: jax.Array) -> Solution:
    return solver(lambda v: h @ v, g)


def damped(solver: Solver, damping: float) -> Solver:
    return dataclasses.replace(solver, damping=damping)


def test_the_cases_cover_every_solver() -> None:
    assert {*CONVERGED, "identity"} == set(SOLVERS)


@pytest.mark.parametrize("damping", [0.0, 0.5])
@pytest.mark.parametrize("name", CONVERGED)
def test_solves_a_definite_system(name: str, damping: float) -> None:
    h, g = matrix(DEFINITE), vector(6)
    solution = solve(damped(CONVERGED[name], damping), h, g)
    # condition number 3: rounding stays near 1e-15, and Neumann's 0.6^81 is 1e-18
    np.testing.assert_allclose(solution.value, np.linalg.solve(h + damping * np.eye(6), g), rtol=1e-10)
    assert solution.residual < 1e-10


@pytest.mark.parametrize("name", FOR_INDEFINITE)
def test_solves_an_indefinite_system(name: str) -> None:
    h, g = matrix(INDEFINITE), vector(6)
    # condition number 4; normal equations square it
    np.testing.assert_allclose(solve(CONVERGED[name], h, g).value, np.linalg.solve(h, g), rtol=1e-9)


@pytest.mark.parametrize("name", FOR_INDEFINITE)
def test_gives_the_shortest_solution_of_a_consistent_singular_system(name: str) -> None:
    h = matrix(SINGULAR)
    g = h @ vector(6)
    solution = solve(CONVERGED[name], h, g)
    np.testing.assert_allclose(solution.value, np.linalg.pinv(h, rcond=1e-10) @ g, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("name", ["normal_cg", "dense"])
def test_gives_the_least_squares_solution_of_an_inconsistent_system(name: str) -> None:
    h, g = matrix(SINGULAR), vector(6)
    truth = np.linalg.pinv(h, rcond=1e-10) @ g
    solution = solve(CONVERGED[name], h, g)
    np.testing.assert_allclose(solution.value, truth, rtol=1e-8, atol=1e-10)
    assert solution.residual == pytest.approx(np.linalg.norm(g - h @ truth) / np.linalg.norm(g), rel=1e-8)


@pytest.mark.parametrize("name", TRUNCATED)
def test_a_right_hand_side_that_h_annihilates_leaves_the_whole_residual(name: str) -> None:
    solution = solve(TRUNCATED[name], jnp.diag(jnp.array([0.0, 2.0])), jnp.array([3.0, 0.0]))
    assert solution.residual == 1
    assert np.linalg.norm(solution.value) <= 3  # nothing to gain, so no further than the identity's g


@pytest.mark.parametrize("name", TRUNCATED)
def test_the_residual_is_that_of_the_returned_value_in_the_damped_system(name: str) -> None:
    h, g = matrix(INDEFINITE), vector(6)
    solution = solve(damped(TRUNCATED[name], 0.4), h, g)
    truth = np.linalg.norm(g - (h + 0.4 * np.eye(6)) @ solution.value) / np.linalg.norm(g)
    assert solution.residual == pytest.approx(float(truth), rel=1e-9, abs=1e-12)  # a recursion of three steps


@pytest.mark.parametrize("name", TRUNCATED)
def test_a_pytree_is_solved_as_its_flat_vector(name: str) -> None:
    tree = {"weights": vector(4).reshape(2, 2), "rest": (vector(1, seed=2), jnp.array(0.3))}
    flat, unravel = ravel_pytree(tree)
    h = matrix(DEFINITE)
    solution = jax.jit(lambda h, tree: TRUNCATED[name](lambda v: unravel(h @ ravel_pytree(v)[0]), tree))(h, tree)
    assert jax.tree.map(jnp.shape, solution.value) == jax.tree.map(jnp.shape, tree)
    np.testing.assert_allclose(ravel_pytree(solution.value)[0], solve(TRUNCATED[name], h, flat).value, rtol=1e-12)


@pytest.mark.parametrize("name", TRUNCATED)
def test_products_counts_the_products_spent(name: str) -> None:
    h, g = matrix(DEFINITE), vector(6)
    calls: list[None] = []

    def product(v: jax.Array) -> jax.Array:
        jax.debug.callback(lambda _: calls.append(None), v[0])  # runs once per loop step and per row of a vmap
        return h @ v

    solution = TRUNCATED[name](product, g)
    jax.block_until_ready(solution.value)
    jax.effects_barrier()
    residual_only = 1 if name == "identity" else 0  # documented: "residual excluded"
    assert len(calls) == solution.products + residual_only


@pytest.mark.parametrize("name", TRUNCATED)
def test_a_zero_right_hand_side_gives_zero(name: str) -> None:
    solution = solve(TRUNCATED[name], matrix(INDEFINITE), jnp.zeros(6))
    np.testing.assert_array_equal(solution.value, np.zeros(6))
    assert solution.residual == 0


@pytest.mark.parametrize("name", CONVERGED)
def test_the_gradient_through_a_converged_solver_is_the_inverse(name: str) -> None:
    h, g, c = matrix(DEFINITE), vector(6), vector(6, seed=3)
    exact = {"cg": CG(6), "gauss_newton": GaussNewton(6, damping=0.0), "normal_cg": NormalCG(6), "minres": Minres(6)}
    solver = exact.get(name, CONVERGED[name])
    by_h, by_g = jax.jit(jax.grad(lambda h, g: c @ solve(solver, h, g).value, argnums=(0, 1)))(h, g)
    left, u = np.linalg.solve(h, c), np.linalg.solve(h, g)
    # d(cᵀH⁻¹g) = (H⁻¹c)ᵀ(dg − dH u); symmetric part only, since a solver may use H's symmetry. Last steps divide by the
    # rounding-prone last residuals, which costs about half the digits.
    np.testing.assert_allclose(by_g, left, rtol=1e-6)
    np.testing.assert_allclose(by_h + by_h.T, -np.outer(left, u) - np.outer(u, left), rtol=1e-6, atol=1e-6)


def test_normal_cg_is_cg_on_the_squared_matrix() -> None:
    h, g = matrix(np.linspace(-2.0, 3.0, 20)), vector(20)
    squared, u, r = h @ h, np.zeros(20), h @ g
    p = r
    for _ in range(5):
        length = r @ r / (p @ squared @ p)
        u, new = u + length * p, r - length * squared @ p
        r, p = new, new + new @ new / (r @ r) * p
    solution = solve(NormalCG(5), h, g)
    np.testing.assert_allclose(solution.value, u, rtol=1e-10, atol=1e-11)  # rounding grows a hundredfold a step from the fourth
    theirs = jaxopt.linear_solve.solve_normal_cg(lambda v: h @ v, g, maxiter=5, tol=0.0)
    np.testing.assert_allclose(solution.value, theirs, rtol=1e-10, atol=1e-11)


def test_cg_is_jaxopts() -> None:
    h, g = matrix(np.linspace(0.5, 3.0, 20)), vector(20)
    theirs = jaxopt.linear_solve.solve_cg(lambda v: h @ v, g, maxiter=5, tol=0.0)
    np.testing.assert_allclose(solve(CG(5), h, g).value, theirs, rtol=1e-10)  # the same recursion


@pytest.mark.parametrize(("steps", "damping"), [(1, 0.0), (2, 0.2), (5, 0.2)])
def test_minres_is_scipys(steps: int, damping: float) -> None:
    h, g = matrix(np.linspace(-2.0, 3.0, 20)), vector(20)
    theirs, _ = scipy.sparse.linalg.minres(np.array(h), np.array(g), shift=-damping, rtol=0.0, maxiter=steps)
    ours = solve(Minres(steps, damping=damping), h, g).value
    np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-12)  # the same iteration, other rounding


def test_cg_stops_at_the_first_direction_without_positive_curvature() -> None:
    at_once = solve(CG(3), np.diag([-2.0, 1.0, 1.0]), np.array([1.0, 0.0, 1.0]))
    np.testing.assert_array_equal(at_once.value, np.zeros(3))
    assert at_once.residual == 1
    later, g = np.diag([3.0, 1.0, -0.5]), np.ones(3)  # curvatures 3.5, then −1.6; going on, the next would be 1.7
    np.testing.assert_allclose(solve(CG(3), later, g).value, solve(CG(1), later, g).value, rtol=1e-14)


def test_identity_returns_the_right_hand_side() -> None:
    h, g = matrix(INDEFINITE), vector(6)
    np.testing.assert_array_equal(solve(Identity(), h, g).value, g)


def test_neumann_is_the_truncated_series() -> None:
    h, g = matrix(DEFINITE), vector(6)
    contraction = np.eye(6) - 0.2 * h
    series = 0.2 * sum(np.linalg.matrix_power(contraction, k) @ g for k in range(3))
    np.testing.assert_allclose(solve(Neumann(3, step_size=0.2), h, g).value, series, rtol=1e-12)


KRYLOV = (CG, GaussNewton, NormalCG, Minres)
DTYPES = (np.float32, np.float64)


def low_rank(size: int, rank: int, seed: int, definite: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """(H, g) of which no u solves Hu = g, with eigenvalues between 0.3 and 3 in absolute value beside 0."""
    rng = np.random.default_rng(seed)
    vectors, _ = np.linalg.qr(rng.normal(size=(size, size)))
    signs = 1 if definite else rng.choice([-1, 1], rank)
    eigenvalues = np.concatenate([rng.uniform(0.3, 3, rank) * signs, np.zeros(size - rank)])
    return vectors * eigenvalues @ vectors.T, rng.normal(size=size)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("kind", KRYLOV)
def test_the_residual_of_an_exhausted_singular_system_is_the_true_one(
    kind: type[Iterative], rank: int, dtype: type[np.floating]
) -> None:
    for seed in range(5):
        h, g = low_rank(12, rank, seed, definite=issubclass(kind, CG))
        solution = solve(kind(5, damping=0.0), h.astype(dtype), g.astype(dtype))
        true = np.linalg.norm(g - h @ np.array(solution.value, np.float64)) / np.linalg.norm(g)
        # Rounding of the products, in units of what is multiplied: H u may be as large as CG's residual, which is no minimum
        # and reaches some hundred here, and some thousand in units of the smallest eigenvalue.
        assert solution.residual == pytest.approx(true, abs=100 * np.finfo(dtype).eps * max(1.0, 10 * true) ** 1.5)
        if not issubclass(kind, CG):
            assert true <= 1 + 1e-6  # u = 0 leaves 1, and both minimise: MINRES once left 3e5 and reported .94


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("steps", [5, 20])
@pytest.mark.parametrize("kind", KRYLOV)
def test_the_derivative_beyond_exhaustion_is_the_inverse(kind: type[Iterative], steps: int, dtype: type[np.floating]) -> None:
    solver = kind(steps, damping=0.0)
    for seed in range(4):
        h, g = matrix((1.0, 2.5), seed).astype(dtype), vector(2, seed).astype(dtype)
        slope = jax.jit(jax.jacrev(lambda g, h=h: solve(solver, h, g).value))(g)
        # condition number 2.5; two steps, each of a few roundings, and a division by what the first one left
        np.testing.assert_allclose(slope, np.linalg.inv(np.array(h, np.float64)), atol=1e3 * np.finfo(dtype).eps)
        of_residual = jax.jit(jax.grad(lambda g, h=h: solve(solver, h, g).residual))(g)
        np.testing.assert_allclose(of_residual, 0, atol=1e3 * np.finfo(dtype).eps)  # 0 for every g


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", TRUNCATED)
def test_derivatives_at_a_zero_right_hand_side_are_finite(name: str, dtype: type[np.floating]) -> None:
    h = matrix(DEFINITE).astype(dtype)
    for at in (np.zeros(6, dtype), np.eye(6, dtype=dtype)[0]):
        of_residual = jax.grad(lambda g: solve(TRUNCATED[name], h, g).residual)(at)
        of_value = jax.jacrev(lambda g: solve(TRUNCATED[name], h, g).value)(at)
        assert np.isfinite(of_residual).all() and np.isfinite(of_value).all()


@pytest.mark.parametrize("factor", [1e25, 1e-25, 1e37])
@pytest.mark.parametrize("name", TRUNCATED)
def test_a_right_hand_side_whose_square_leaves_float32_is_solved_like_any_other(name: str, factor: float) -> None:
    h, g = matrix(DEFINITE).astype(np.float32), vector(6).astype(np.float32)
    plain, scaled = solve(TRUNCATED[name], h, g), solve(TRUNCATED[name], h, np.float32(factor) * g)
    np.testing.assert_allclose(scaled.value / np.float64(np.float32(factor)), plain.value, rtol=1e-5, atol=1e-6)  # rounding
    assert scaled.residual == pytest.approx(float(plain.residual), abs=1e-5)
    slope = jax.jacrev(lambda g: solve(TRUNCATED[name], h, g).value)
    np.testing.assert_allclose(slope(np.float32(factor) * g), slope(g), rtol=1e-4, atol=1e-4)  # rounding, amplified by 3 steps


@pytest.mark.parametrize("factor", [1e25, 1e-25])
@pytest.mark.parametrize("kind", [*KRYLOV, Dense])
def test_a_matrix_whose_square_leaves_float32_is_solved_like_any_other(kind: type[Solver], factor: float) -> None:
    solver = kind(5, damping=0.0) if issubclass(kind, Iterative) else kind()
    h, g = matrix(DEFINITE).astype(np.float32), vector(6).astype(np.float32)
    plain, scaled = solve(solver, h, g), solve(solver, np.float32(factor) * h, g)
    np.testing.assert_allclose(np.float64(np.float32(factor)) * scaled.value, plain.value, rtol=1e-4, atol=1e-5)  # rounding


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", TRUNCATED)
def test_no_solver_passes_through_nan(name: str, dtype: type[np.floating]) -> None:
    singular, rank_one = matrix(SINGULAR).astype(dtype), np.outer(vector(6), vector(6)).astype(dtype)
    with jax.debug_nans(True):
        for h in (singular, rank_one, np.zeros((6, 6), dtype)):
            for g in (vector(6).astype(dtype), np.zeros(6, dtype)):
                solution = solve(TRUNCATED[name], h, g)
                slope = jax.jacrev(lambda g, h=h: solve(TRUNCATED[name], h, g).value)(g)
                assert np.isfinite(solution.value).all() and np.isfinite(slope).all()


@pytest.mark.parametrize("name", TRUNCATED)
def test_nan_is_not_hidden(name: str) -> None:
    for h, g in ((matrix(DEFINITE), np.full(6, np.nan)), (np.full((6, 6), np.nan), vector(6))):
        solution = solve(TRUNCATED[name], h, g)
        assert np.isnan(solution.residual)
        assert name == "identity" or np.isnan(solution.value).all()
