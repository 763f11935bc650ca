"""What holds of every metric, whatever its parameters and inputs."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.flatten_util import ravel_pytree

from mbrl_taskmet.core.metric import INPUTS, METRICS
from tests.small_problem import make_metric, traced

N, M, BATCH = 3, 2, 8

Draw = tuple[int, float]  # a seed, and how far from 0 the parameters are
draws = st.tuples(st.integers(0, 2**32 - 1), st.sampled_from([0.1, 1.0, 5.0, 50.0]))
floors = st.sampled_from([0.0, 0.01, 0.1, 0.5, 0.9])
all_metrics = pytest.mark.parametrize(("kind", "input"), [(kind, input) for kind in METRICS for input in INPUTS])


@cache
def compiled(kind: str, input: str, normalize: bool) -> tuple[int, Callable[..., jax.Array]]:
    """(parameters' size, function from flat parameters, inputs and floor to (batch, n, n))."""
    start = make_metric(kind, input, (4,), normalize=normalize)
    flat, unravel = ravel_pytree(start.init(jax.random.key(0), N, M))

    @jax.jit
    def matrices(flat: jax.Array, observation: jax.Array, action: jax.Array, floor: jax.Array) -> jax.Array:
        values = traced(start, floor=floor).batch(unravel(flat), observation, action)
        return values if kind == "full" else values.reshape(BATCH, -1, 1) * jnp.eye(N)

    return flat.size, matrices


def matrices(kind: str, input: str, draw: Draw, normalize: bool, floor: float = 0.0) -> np.ndarray:
    """Λ of a batch, at parameters and inputs drawn at random."""
    seed, scale = draw
    normal = np.random.default_rng(seed).normal
    size, function = compiled(kind, input, normalize)
    arguments = normal(scale=scale, size=size), normal(size=(BATCH, N)), normal(size=(BATCH, M)), floor
    return np.array(function(*(np.float32(x) for x in arguments)), dtype=np.float64)


@all_metrics
@given(draw=draws)
def test_is_symmetric_and_positive_semidefinite(kind: str, input: str, draw: Draw) -> None:
    values = matrices(kind, input, draw, normalize=False)
    eigenvalues = np.linalg.eigvalsh(values)
    np.testing.assert_array_equal(values, np.swapaxes(values, 1, 2))
    assert np.all(eigenvalues >= -1e-5 * eigenvalues[:, -1:])  # float32 rounding of LLᵀ


@all_metrics
@given(draw=draws, floor=floors)
def test_a_normalised_diagonal_has_the_identitys_norm(kind: str, input: str, draw: Draw, floor: float) -> None:
    values = matrices(kind, input, draw, True, floor)
    norms = np.linalg.norm(np.diagonal(values, axis1=1, axis2=2), axis=1)
    np.testing.assert_allclose(norms, N**0.5, rtol=1e-5)  # float32


@all_metrics
@given(draw=draws, normalize=st.booleans(), floor=floors)
def test_no_direction_falls_below_the_floor(kind: str, input: str, draw: Draw, normalize: bool, floor: float) -> None:
    values = matrices(kind, input, draw, normalize, floor)
    assert np.all(np.isfinite(values))
    eigenvalues = np.linalg.eigvalsh(values)
    # float32: the error of an eigenvalue is relative to the largest
    assert np.all(eigenvalues[:, 0] >= floor - 1e-5 * eigenvalues[:, -1])


@given(draw=draws, factor=st.floats(0.125, 8.0, width=32))
def test_a_normalised_full_metric_ignores_the_scale_of_its_factor(draw: Draw, factor: float) -> None:
    (seed, scale), (size, function) = draw, compiled("full", "none", True)
    entries = np.random.default_rng(seed).normal(scale=scale, size=size).astype(np.float32)
    rest = np.zeros((BATCH, N), np.float32), np.zeros((BATCH, M), np.float32), np.float32(0)
    np.testing.assert_allclose(function(np.float32(factor) * entries, *rest), function(entries, *rest), rtol=1e-4, atol=1e-5)
