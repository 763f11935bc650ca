"""Metrics: where they start, what they depend on, and the losses they define."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mbrl_taskmet.core.metric import INPUTS, METRICS, Full, Metric, Weights
from mbrl_taskmet.core.settings import options
from tests.small_problem import make_metric

N, M, BATCH = 4, 2, 5
OBSERVATION = jnp.array(np.random.default_rng(0).normal(size=(BATCH, N)), dtype=jnp.float32)
ACTION = jnp.eye(M)[np.arange(BATCH) % M]
ERROR = jnp.array(np.random.default_rng(1).normal(size=(BATCH, N)), dtype=jnp.float32)

all_kinds = pytest.mark.parametrize("kind", METRICS)
all_inputs = pytest.mark.parametrize("input", INPUTS)
ACTIVATIONS = next(option.choices for option in options(Weights) if option.name == "metric_activation")


def dense(metric: Metric, values: jax.Array) -> np.ndarray:
    """Λ of every row as (batch, n, n), whatever the kind."""
    return np.array(values if isinstance(metric, Full) else values.reshape(BATCH, -1, 1) * np.eye(N))


def matrices(metric: Metric, params: Any) -> np.ndarray:
    return dense(metric, jax.jit(metric.batch)(params, OBSERVATION, ACTION))


def first(metric: Metric) -> np.ndarray:
    """Λ of every row at the start."""
    start = jax.jit(lambda key: metric.batch(metric.init(key, N, M), OBSERVATION, ACTION))
    return dense(metric, start(jax.random.key(0)))


def scattered(metric: Metric) -> Any:
    """Parameters at no special point."""
    shapes = jax.eval_shape(lambda key: metric.init(key, N, M), jax.random.key(0))
    normal = np.random.default_rng(2).normal
    return jax.tree.map(lambda x: normal(size=x.shape).astype(np.float32), shapes)


@pytest.mark.parametrize(
    ("kind", "more"),
    [("full", {}), *[(kind, {"activation": name}) for kind in ("scalar", "diagonal") for name in ACTIVATIONS]],
    ids=str,
)
@all_inputs
def test_starts_near_the_identity(kind: str, more: dict[str, str], input: str) -> None:
    # Without normalising, which could only bring it nearer. All the paper says is "close": a percent.
    metric = make_metric(kind, input, normalize=False, **more)
    np.testing.assert_allclose(first(metric), np.tile(np.eye(N), (BATCH, 1, 1)), atol=1e-2)


def test_a_normalised_exponential_metric_is_finite_however_far_it_goes_and_no_factor_changes_it() -> None:
    metric, raw = make_metric(activation="exp"), jnp.array([0.0, 1.0, 2.0, 3.0])

    @jax.jit
    def evaluate(params: jax.Array) -> tuple[jax.Array, jax.Array]:
        inputs = OBSERVATION, ACTION
        return metric.batch(params, *inputs)[0], jax.grad(metric.loss)(params, *inputs, ERROR)

    weights = np.exp(np.arange(4.0))
    for value, gradient in (evaluate(raw), evaluate(raw + 300)):  # exp(300) is no float32, exp(45)² neither
        np.testing.assert_allclose(value, weights * 2 / np.linalg.norm(weights), rtol=1e-5)
        np.testing.assert_allclose(gradient, evaluate(raw)[1], rtol=1e-4, atol=1e-5)  # 300 costs two digits of raw
        assert abs(np.sum(gradient)) < 1e-4 * np.abs(gradient).sum()  # along the common factor nothing changes


@pytest.mark.parametrize("kind", ["scalar", "diagonal"])
def test_a_step_of_an_exponential_metric_multiplies_its_weights(kind: str) -> None:
    metric = make_metric(kind, normalize=False, activation="exp")
    params = scattered(metric)
    moved = matrices(metric, params + np.float32(np.log(2)))
    np.testing.assert_allclose(moved, 2 * matrices(metric, params), rtol=1e-6)  # float32


def test_the_published_unconditional_diagonal_starts_at_n_plus_m_and_moves_as_many_times_faster() -> None:
    metric = make_metric(normalize=False, origin="published")
    params = metric.init(jax.random.key(0), N, M)
    # softplus(6) is 6.0025
    np.testing.assert_allclose(matrices(metric, params)[0], (N + M) * np.eye(N), rtol=1e-3)
    moved = jax.tree.map(lambda x: x + 0.1, params)  # one step of Adam moves every parameter alike
    np.testing.assert_allclose(matrices(metric, moved)[0], (N + M) * 1.1 * np.eye(N), rtol=1e-3)


@all_inputs
def test_the_published_full_metric_starts_at_lower_triangular_ones(input: str) -> None:
    metric = make_metric("full", input, origin="published")
    start = first(metric)
    np.testing.assert_allclose(np.diagonal(start[0]), [0.37, 0.73, 1.10, 1.46], atol=0.006)  # published to two digits
    ones = np.tril(np.ones((N, N)))
    np.testing.assert_allclose(start / start[:, :1, :1], np.tile(ones @ ones.T, (BATCH, 1, 1)), rtol=1e-5)  # float32


@all_kinds
@pytest.mark.parametrize(("input", "sees"), [("none", ()), ("state", (0,)), ("state_action", (0, 1))])
def test_depends_on_its_input_alone(kind: str, input: str, sees: tuple[int, ...]) -> None:
    metric = make_metric(kind, input, (8,), normalize=False)
    params, inputs = scattered(metric), (OBSERVATION[0], ACTION[0])
    derivatives = jax.jit(jax.jacobian(metric, argnums=(1, 2)))(params, *inputs)
    for argument, derivative in enumerate(derivatives):
        assert bool(np.any(derivative != 0)) == (argument in sees)


@all_kinds
@all_inputs
def test_the_losses_are_the_papers_sums(kind: str, input: str) -> None:
    metric = make_metric(kind, input, (8,), normalize=kind != "scalar", floor=0.1)

    @jax.jit
    def evaluate(params: Any) -> tuple[jax.Array, ...]:
        inputs = OBSERVATION, ACTION
        return metric.batch(params, *inputs), metric.loss(params, *inputs, ERROR), metric.l1(params, *inputs)

    values, loss, l1 = evaluate(scattered(metric))
    values = dense(metric, values).astype(np.float64)
    # sums of 80 terms in float32
    assert loss == pytest.approx(np.mean(np.einsum("bi,bij,bj->b", ERROR, values, ERROR)), rel=1e-5)
    assert l1 == pytest.approx(np.abs(values).sum() / BATCH, rel=1e-5)


@all_kinds
def test_the_diagonal_is_the_matrix_diagonal(kind: str) -> None:
    metric = make_metric(kind, "state", (8,), normalize=False)
    params = scattered(metric)
    diagonal = jax.jit(metric.diagonals)(params, OBSERVATION, ACTION)
    np.testing.assert_array_equal(diagonal, np.diagonal(matrices(metric, params), axis1=1, axis2=2))


def test_a_full_metric_weighs_products_of_errors() -> None:
    metric = make_metric("full", normalize=False)
    value = matrices(metric, scattered(metric))[0]
    assert np.abs(value - np.diag(np.diagonal(value))).max() > 0.1
    np.testing.assert_allclose(value, value.T, rtol=1e-6)


@all_kinds
def test_the_loss_has_a_gradient_at_the_start(kind: str) -> None:
    metric = make_metric(kind, "state", normalize=kind != "scalar")  # a normalised scalar is 1 for ever
    slope = jax.jit(lambda key: jax.grad(metric.loss)(metric.init(key, N, M), OBSERVATION, ACTION, ERROR))
    gradient = slope(jax.random.key(0))
    leaves = [np.array(leaf) for leaf in jax.tree.leaves(gradient)]
    assert all(np.all(np.isfinite(leaf)) for leaf in leaves) and any(np.any(leaf != 0) for leaf in leaves)
