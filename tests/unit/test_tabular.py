"""The tabular study: exact returns, the implicit gradient against finite differences, the bound, and the command."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agents import tabular
from agents.tabular import BOUNDS, DISCOUNT, REWARD, TRANSITION, Params, bellman, main, project

optimal_values, policy_return = jax.jit(tabular.optimal_values), jax.jit(tabular.policy_return)


@pytest.fixture
def params(x64: None) -> Params:
    """A model whose values differ by about a temperature, so that its policy mixes and J has slopes."""
    rng = np.random.default_rng(0)
    return Params(jnp.array(0.003 * rng.normal(size=(2, 2, 2))), jnp.array(0.01 * rng.normal(size=(2, 2))))


def test_the_true_model_earns_the_published_optimum(x64: None) -> None:
    truth = Params(jnp.array(tabular.TEMPERATURE * np.log(TRANSITION)), jnp.array(REWARD))
    # the soft policy of temperature .01 loses 2e-5 of the best policy's 1.0272727
    assert policy_return(optimal_values(truth)) == pytest.approx(1.0272727, abs=5e-5)
    assert policy_return(jnp.array([[1.0, 0.0], [1.0, 0.0]])) == pytest.approx(1.02727272727, abs=1e-10)


def test_a_return_is_that_of_the_summed_series(params: Params) -> None:
    values = optimal_values(params)
    policy = np.array(jax.nn.softmax(values / tabular.TEMPERATURE))
    state, total = np.full(2, 0.5), 0.0
    for t in range(400):  # .9^400 is 5e-19
        total += DISCOUNT**t * np.sum(state[:, None] * policy * REWARD)
        state = np.einsum("s,sa,ast->t", state, policy, TRANSITION)
    assert policy_return(values) == pytest.approx(total, abs=1e-12)


def test_the_values_are_the_fixed_point(params: Params) -> None:
    values = optimal_values(params)
    assert jnp.abs(bellman(values, params) - values).max() < 1e-13
    iterated = jax.lax.fori_loop(0, 400, lambda _, q: bellman(q, params), jnp.zeros((2, 2)))
    np.testing.assert_allclose(values, iterated, atol=1e-12)


@pytest.mark.parametrize("method", tabular.METHODS)
def test_the_gradient_is_that_of_finite_differences(
    method: str, params: Params, central_differences: Callable[..., Any], relative_error: Callable[..., float]
) -> None:
    def loss(params: Params) -> jax.Array:
        if method == "OMD":
            return -policy_return(optimal_values(params))
        likelihood = jnp.einsum("ast,ast->as", TRANSITION, jnp.log(tabular.transition(params)))
        return -jnp.mean(likelihood) + jnp.mean((params.reward - REWARD) ** 2)

    gradient = jax.jit(tabular.METHODS[method])(params)
    assert max(float(jnp.abs(leaf).max()) for leaf in gradient) > 0.1
    # logits count in units of the temperature .01: differences of step 1e-6 are off by about 1e-8
    assert relative_error(gradient, central_differences(jax.jit(loss), params, 1e-6)) < 1e-6


def test_projection_keeps_the_direction_and_shortens_only_what_is_too_long(params: Params) -> None:
    norm = float(jnp.sqrt(jnp.sum((params.logits / 0.01) ** 2) + jnp.sum(params.reward**2)))
    jax.tree.map(np.testing.assert_array_equal, project(params, jnp.array(1.01 * norm)), params)
    shorter = project(params, jnp.array(0.5 * norm))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, 0.5 * b, rtol=1e-12), shorter, params)


def test_the_command_prints_both_methods_beside_the_published_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seeds", "2", "--steps", "20"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["MLE", "MLE, published", "OMD", "OMD, published"]
    assert all(line.count("|") == len(BOUNDS) + 2 for line in lines)
    assert main(["--seeds", "0"]) == 2
    assert capsys.readouterr().err == "error: --seeds is 0; give 1 or more\n"
