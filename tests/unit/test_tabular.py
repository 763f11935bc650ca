"""The tabular study: exact returns, the gradients against finite differences, both norms, the published runs, the command."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agents import tabular
from agents.tabular import BOUNDS, DISCOUNT, ORIGINAL, REWARD, TRANSITION, Params, bellman, main, start, study

optimal_values, policy_return = jax.jit(tabular.optimal_values), jax.jit(tabular.policy_return)


@pytest.fixture
def params(x64: None) -> Params:
    """A model whose values differ by about a temperature, so that its policy mixes and J has slopes."""
    rng = np.random.default_rng(0)
    return Params(jnp.array(0.003 * rng.normal(size=(2, 2, 2))), jnp.array(0.01 * rng.normal(size=(2, 2))))


@pytest.fixture
def countable(x64: None) -> Params:
    """A model whose norms are sums of squares of 1 to 9 hundredths, or of 1 to 9."""
    logits = jnp.array([[[0.01, 0.02], [0.0, 0.02]], [[2.0, 0.0], [6.0, 0.0]]])  # action 0: 1² + 2² + 2² = 9 in units of T
    return Params(logits, jnp.array([[0.03, 0.0], [0.0, 4.0]]))


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
        model = tabular.transition(params)
        return jnp.mean(jnp.sum(TRANSITION * jnp.log(TRANSITION / model), -1)) + jnp.mean((params.reward - REWARD) ** 2)

    gradient = jax.jit(tabular.METHODS[method])(params)
    assert max(float(jnp.abs(leaf).max()) for leaf in gradient) > 0.1
    # logits count in units of the temperature .01: differences of step 1e-6 are off by about 1e-8
    assert relative_error(gradient, central_differences(jax.jit(loss), params, 1e-6)) < 1e-6


def test_the_bounds_are_eight_of_twenty_from_0_to_6() -> None:
    printed = [0.3158, 0.6316, 0.9474, 1.2632, 1.8947, 2.8421, 4.1053, 5.0526]
    np.testing.assert_allclose(BOUNDS, printed, atol=5e-5)  # what four decimals leave


def test_the_original_norm_bounds_each_array_and_counts_half_of_it_in_temperatures(countable: Params) -> None:
    # logits: √(1 + 4 + 4 + 2² + 6²) = 7; rewards: √(3² + 4²) = 5
    project = jax.jit(tabular.PROJECTIONS["original"])
    jax.tree.map(np.testing.assert_array_equal, project(countable, jnp.array(7.0)), countable)
    both = project(countable, jnp.array(2.5))
    np.testing.assert_allclose(both.logits, countable.logits * 2.5 / 7, rtol=1e-14)
    np.testing.assert_allclose(both.reward, [[0.015, 0.0], [0.0, 2.0]], rtol=1e-14)
    only_logits = project(countable, jnp.array(6.0))
    np.testing.assert_allclose(only_logits.logits, countable.logits * 6 / 7, rtol=1e-14)
    np.testing.assert_array_equal(only_logits.reward, countable.reward)


def test_the_norm_of_the_text_is_that_of_the_whole_model(countable: Params) -> None:
    # (9 + 200² + 600²) + (.03² + 4²)
    project = jax.jit(tabular.PROJECTIONS["text"])
    norm = np.sqrt(9 + 40_000 + 360_000 + 0.0009 + 16)
    jax.tree.map(np.testing.assert_array_equal, project(countable, jnp.array(1.01 * norm)), countable)
    shorter = project(countable, jnp.array(0.5 * norm))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, 0.5 * b, rtol=1e-12), shorter, countable)


def test_the_start_is_what_jax_drew_in_2021_whatever_it_draws_today(x64: None) -> None:
    model = start(1)
    assert model.logits.dtype == model.reward.dtype == jnp.float64
    assert all(x.min() >= 0 and 0.5 < x.max() < 1 for x in model)  # not projected: half a unit is 50 temperatures
    with jax.threefry_partitionable(False):
        _, logits, reward = jax.random.split(jax.random.key(1), 3)
        theirs = jax.random.uniform(logits, (2, 2, 2)), jax.random.uniform(reward, (2, 2))
    with jax.threefry_partitionable(True):
        _, logits, _ = jax.random.split(jax.random.key(1), 3)
        assert jnp.abs(jax.random.uniform(logits, (2, 2, 2)) - model.logits).max() > 1e-3
        jax.tree.map(np.testing.assert_array_equal, start(1), model)
    jax.tree.map(np.testing.assert_array_equal, tuple(model), theirs)


@pytest.mark.parametrize(("method", "norm"), [("MLE", "original"), ("MLE", "text"), ("OMD", "original")])
def test_a_return_is_the_mean_of_the_two_models_before_the_last_step(method: str, norm: str, x64: None) -> None:
    begin, bound = start(1), jnp.array(BOUNDS[3])
    gradient = jax.jit(tabular.METHODS[method])(begin)
    moved = jax.tree.map(lambda x, g: x - 0.01 * g / (jnp.abs(g) + 1e-8), begin, gradient)  # Adam's first step
    earned = [policy_return(optimal_values(model)) for model in (begin, tabular.PROJECTIONS[norm](moved, bound))]
    learned = jax.jit(partial(tabular.learn, method=method, norm=norm, steps=2))(begin, bound)
    # a gradient's rounding, 1e-16, is 1e-8 of Adam's ε, and a step 1 in units of the temperature
    assert learned == pytest.approx(float(np.mean(earned)), abs=1e-7)
    assert abs(earned[0] - earned[1]) > 0.01


def test_the_study_is_the_same_every_time() -> None:
    first, second = study(2, 20), study(2, 20)
    assert {method: values.shape for method, values in first.items()} == {"MLE": (2, 8), "OMD": (2, 8)}
    for method, values in first.items():
        assert values.dtype == np.float64
        np.testing.assert_array_equal(values, second[method])


@pytest.mark.slow
def test_every_cell_is_within_3_hundredths_of_the_original_code_run_again() -> None:
    for method, values in study(seeds=10, steps=10_000).items():
        np.testing.assert_allclose(values.mean(axis=0), ORIGINAL[method], atol=0.03)


def test_the_command_prints_both_methods_beside_the_published_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seeds", "2", "--steps", "20"]) == 0
    *lines, empty, found = capsys.readouterr().out.splitlines()
    assert lines[0] == "| method | B | here | original code run again | published figure |"
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[2:]]
    assert [row[:2] for row in rows] == [[method, f"{bound:.2f}"] for method in ("MLE", "OMD") for bound in BOUNDS]
    assert rows[0][3:] == ["−0.825", "−0.83"]
    assert rows[11][3:] == ["0.597", "0.595"]
    assert not empty
    assert found.startswith("Largest difference from the original code run again: ")
    assert main(["--seeds", "0"]) == 2
    assert capsys.readouterr().err == "error: --seeds is 0; give 1 or more\n"


def test_an_unknown_norm_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--norm", "euclidean"]) == 2
    error = capsys.readouterr().err
    assert "--norm" in error
    assert "'euclidean'" in error
    assert "original" in error
    assert "text" in error
