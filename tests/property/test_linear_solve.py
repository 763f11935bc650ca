"""What theory guarantees of the linear solvers, on random symmetric matrices."""

from __future__ import annotations

from functools import partial

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mbrl_taskmet.core.linear_solve import CG, SOLVERS, Iterative, Minres, NormalCG, Solution, Solver
from tests.small_problem import traced

pytestmark = pytest.mark.usefixtures("x64")
SIZE = 6

Problem = tuple[np.ndarray, np.ndarray]


@st.composite
def problems(draw: st.DrawFn, definite: bool = False) -> Problem:
    """H with eigenvalues between 0.1 and 3 in absolute value, some of them equal, and g with entries up to 1.

    Not singular: beyond the Krylov space of a singular and inconsistent system MINRES has no answer to converge to.
    """
    sizes = st.sampled_from([0.1, 3.0]) | st.floats(0.1, 3.0)
    signs = st.just(1) if definite else st.sampled_from([-1, 1])
    eigenvalues = draw(st.lists(st.builds(float.__mul__, sizes, signs.map(float)), min_size=SIZE, max_size=SIZE))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    vectors, _ = np.linalg.qr(rng.normal(size=(SIZE, SIZE)))
    return vectors * np.array(eigenvalues) @ vectors.T, rng.uniform(0.1, 1, size=SIZE)


@partial(jax.jit, static_argnums=(0, 1))
def solve(kind: type[Solver], steps: int, h: jax.Array, g: jax.Array, damping: float = 0.0) -> Solution:
    iterations = {"steps": steps} if issubclass(kind, Iterative) else {}
    return traced(kind(**iterations), damping=damping)(lambda v: h @ v, g)


def residual(kind: type[Solver], steps: int, problem: Problem) -> float:
    """‖g − Hu‖ / ‖g‖ of what the solver returns, computed here."""
    h, g = problem
    return float(np.linalg.norm(g - h @ np.array(solve(kind, steps, h, g).value)) / np.linalg.norm(g))


@pytest.mark.parametrize("kind", SOLVERS.values())
@given(problem=problems())
def test_the_reported_residual_is_the_true_one(kind: type[Solver], problem: Problem) -> None:
    # rounding of a recursion of three steps; Neumann's iterate is at most 3·1.3³
    assert solve(kind, 3, *problem).residual == pytest.approx(residual(kind, 3, problem), abs=1e-10)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", [Minres, NormalCG])
@given(rank=st.integers(1, 3), seed=st.integers(0, 2**32 - 1))
def test_the_residual_of_a_singular_inconsistent_system_is_true(
    kind: type[Solver], dtype: type[np.floating], rank: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    vectors, _ = np.linalg.qr(rng.normal(size=(12, 12)))
    eigenvalues = np.zeros(12)
    eigenvalues[:rank] = 10 ** rng.uniform(-1, 0.5, rank) * rng.choice([-1, 1], rank)
    h, g = vectors * eigenvalues @ vectors.T, rng.uniform(0.1, 1, size=12)
    solution = solve(kind, 5, h.astype(dtype), g.astype(dtype), dtype(0))
    true = np.linalg.norm(g - h @ np.array(solution.value, np.float64)) / np.linalg.norm(g)
    # Eigenvalues span a factor of 30, so that rounding grows by its powers until the space is exhausted, up to where a vector
    # still counts as new: a part of 1 % in the earlier ones, whose square the residual is off by.
    assert solution.residual == pytest.approx(true, abs=1e-3)
    assert true <= 1 + 1e-3


@pytest.mark.parametrize("kind", [Minres, NormalCG])
@given(problem=problems())
def test_minimal_residuals_never_increase_with_steps(kind: type[Solver], problem: Problem) -> None:
    residuals = [1.0, *(residual(kind, steps, problem) for steps in (1, 2, 3, 4))]
    assert np.all(np.diff(residuals) <= 1e-9)  # rounding


@pytest.mark.parametrize("steps", [1, 2])
@given(problem=problems())
def test_minres_leaves_no_more_than_normal_cg_at_fewer_products(steps: int, problem: Problem) -> None:
    # Normal CG's iterate after k steps lies in span{Hg, …, H²ᵏ⁻¹g}, part of the space in which 2k steps of MINRES are best.
    assert residual(Minres, 2 * steps, problem) <= residual(NormalCG, steps, problem) + 1e-9  # rounding


@given(problem=problems(definite=True))
def test_cg_never_raises_the_energy_of_a_definite_problem(problem: Problem) -> None:
    h, g = problem
    solutions = [np.zeros(SIZE), *(np.array(solve(CG, steps, h, g).value) for steps in (1, 2, 3, 4))]
    energies = [0.5 * u @ h @ u - g @ u for u in solutions]
    assert np.all(np.diff(energies) <= 1e-9)  # rounding


@pytest.mark.parametrize("kind", SOLVERS.values())
@given(problem=problems(definite=True), exponent=st.integers(-30, 30))
def test_a_solver_scales_with_the_right_hand_side(kind: type[Solver], problem: Problem, exponent: int) -> None:
    (h, g), factor = problem, 2.0**exponent
    scaled, plain = solve(kind, 3, h, factor * g, 0.1), solve(kind, 3, h, g, 0.1)
    np.testing.assert_allclose(scaled.value / factor, plain.value, rtol=1e-7, atol=1e-9)  # rounding
    assert scaled.residual == pytest.approx(float(plain.residual), abs=1e-9)


@pytest.mark.parametrize("kind", SOLVERS.values())
@given(problem=problems(), damping=st.floats(0.0, 2.0))
def test_damping_is_added_to_the_matrix(kind: type[Solver], problem: Problem, damping: float) -> None:
    h, g = problem
    inside, outside = solve(kind, 1, h, g, damping).value, solve(kind, 1, h + damping * np.eye(SIZE), g, 0.0).value
    # one step: rounding, but where damping makes H nearly singular and the solution large
    np.testing.assert_allclose(inside, outside, rtol=1e-6, atol=1e-9)
