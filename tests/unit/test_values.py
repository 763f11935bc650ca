"""Bellman equations against their closed forms."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mbrl_taskmet.rl.values import bellman_error, bellman_target, smaller_head, soft_value

VALUES = jnp.asarray(np.random.default_rng(0).normal(size=(5, 3)), jnp.float32)


def test_the_soft_value_is_the_temperatures_logarithm_of_a_sum_of_exponentials() -> None:
    truth = 0.7 * np.log(np.exp(np.asarray(VALUES, np.float64) / 0.7).sum(axis=-1))
    np.testing.assert_allclose(soft_value(VALUES, 0.7), truth, rtol=1e-5, atol=1e-6)  # float32


def test_equal_actions_add_the_entropy_of_choosing_among_them() -> None:
    np.testing.assert_allclose(soft_value(jnp.full((4,), 2.0), 0.5), 2 + 0.5 * np.log(4), rtol=1e-6)  # float32


def test_a_temperature_towards_zero_gives_the_largest_value() -> None:
    # off by at most α log 3
    np.testing.assert_allclose(soft_value(VALUES, 1e-4), VALUES.max(axis=-1), atol=1e-4 * np.log(3) + 1e-6)


def test_values_far_above_the_temperature_do_not_overflow() -> None:
    np.testing.assert_allclose(soft_value(jnp.array([500.0, 499.0, -500.0]), 0.01), 500.0, rtol=1e-6)  # float32


def test_the_soft_values_gradient_is_the_policy() -> None:
    gradient = jax.grad(lambda q: soft_value(q, 0.3))(VALUES[0])
    np.testing.assert_allclose(gradient, jax.nn.softmax(VALUES[0] / 0.3), rtol=1e-5)  # float32


@pytest.mark.parametrize(("terminated", "target"), [(0.0, 1.5 + 0.9 * 4.0), (1.0, 1.5)])
def test_only_a_termination_drops_the_bootstrap(terminated: float, target: float) -> None:
    value = bellman_target(jnp.array(1.5), jnp.array(terminated), jnp.array(4.0), 0.9)
    assert value == pytest.approx(target, rel=1e-6)  # float32


def test_the_error_is_the_mean_over_the_batch_summed_over_heads_or_their_mean() -> None:
    values, target = jnp.array([[1.0, 2.0], [0.0, 5.0]]), jnp.array([0.0, 3.0])
    assert bellman_error(values, target) == (1 + 1) / 2 + (0 + 4) / 2
    assert bellman_error(values, target, "mean") == ((1 + 1) / 2 + (0 + 4) / 2) / 2


def test_the_smaller_head_and_a_derivative_that_compares_no_numbers_for_equality() -> None:
    heads = jnp.array([[1.0, 5.0, jnp.nan, 0.0], [2.0, 3.0, 0.0, jnp.nan]])
    np.testing.assert_array_equal(smaller_head(heads), [1.0, 3.0, jnp.nan, jnp.nan])
    derivative = jax.grad(lambda heads: jnp.sum(smaller_head(heads)))
    np.testing.assert_array_equal(derivative(heads[:, :2]), [[1.0, 0.0], [0.0, 1.0]])
    assert not {"eq", "reduce_min", "div"} & {equation.primitive.name for equation in jax.make_jaxpr(derivative)(heads).eqns}
