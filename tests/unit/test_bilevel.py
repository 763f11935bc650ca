"""Algorithm 1: its whole gradient against the re-solved problem, its loop, and the solver that it shares with the agent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from decision_tasks.cubic import soft_top_k
from mbrl_taskmet import linear_solve
from mbrl_taskmet.bilevel import Bilevel, fit
from mbrl_taskmet.linear_solve import Dense, NormalCG
from mbrl_taskmet.methods.base import Trained
from mbrl_taskmet.metric import FactorMetric, Metric
from tests.small_problem import draw, make_taskmet, newton, start

PyTree = Any
METRIC = FactorMetric(2, 3, hidden=(4,))


class Rows(NamedTuple):
    x: jax.Array  # (instances, items, 3)
    y: jax.Array  # (instances, items, 2)


def predict(theta: jax.Array, batch: Rows) -> jax.Array:
    return jnp.tanh(batch.x @ theta)


def weigh(phi: PyTree, batch: Rows) -> jax.Array:
    return jax.vmap(lambda x: METRIC.batch(phi, x, jnp.zeros((x.shape[0], 0))))(batch.x)


def loss(prediction: jax.Array, metric: jax.Array, batch: Rows) -> jax.Array:
    error = prediction - batch.y
    return jnp.mean(jnp.einsum("bri,brij,brj->br", error, metric, error))


def task_loss(prediction: jax.Array, batch: Rows) -> jax.Array:
    chosen = jax.vmap(lambda scores: soft_top_k(scores, 2, 0.2))(prediction.sum(axis=-1))
    return -jnp.mean(jnp.sum(chosen * batch.y.sum(axis=-1), axis=-1))


def problem(**settings: Any) -> tuple[Bilevel, jax.Array, PyTree, Rows]:
    """A tanh predictor of noisy data, that can be fitted to rounding error by Newton's method; θ, φ and the data."""
    defaults = {"optimizer": optax.adam(1e-2), "metric_optimizer": optax.sgd(1.0)}
    bilevel = Bilevel(predict=predict, weigh=weigh, loss=loss, task_loss=task_loss, **{**defaults, **settings})
    theta, x = draw(np.zeros((3, 2)), 0, scale=0.5), draw(np.zeros((8, 4, 3)), 1)
    phi = draw(jax.eval_shape(METRIC.init, jax.random.key(0)), 2, scale=0.6)
    return bilevel, theta, phi, Rows(x, jnp.tanh(x @ theta) + draw(np.zeros((8, 4, 2)), 3, scale=0.2))


def test_the_metric_gradient_is_that_of_the_re_solved_bilevel_problem(
    x64: None, central_differences: Callable[..., PyTree], relative_error: Callable[..., float]
) -> None:
    bilevel, start, phi, data = problem(solver=Dense())

    @jax.jit
    def solve(phi: PyTree) -> jax.Array:
        return newton(jax.grad(lambda theta: loss(predict(theta, data), weigh(phi, data), data)), start, steps=10)

    outer = jax.jit(lambda phi: task_loss(predict(solve(phi), data), data))
    value, gradient, solved = jax.jit(bilevel.metric_gradient)(solve(phi), phi, data, data)
    assert solved.residual < 1e-10
    assert value == pytest.approx(float(outer(phi)), rel=1e-12)
    # differences of step 1e-5 are off by about 1e-8
    assert relative_error(gradient, central_differences(outer, phi)) < 1e-6


def test_five_normal_cg_iterations_descend(x64: None) -> None:
    bilevel, theta, phi, data = problem()
    exact = problem(solver=Dense())[0]
    gradient, truth = (jax.jit(b.metric_gradient)(theta, phi, data, data)[1] for b in (bilevel, exact))
    product = sum(jnp.vdot(a, b) for a, b in zip(jax.tree.leaves(gradient), jax.tree.leaves(truth), strict=True))
    assert product / (optax.tree.norm(gradient) * optax.tree.norm(truth)) > 0.9  # six unknowns, five iterations


def test_an_iteration_is_k_predictor_steps_and_one_of_the_metric() -> None:
    bilevel, theta, phi, data = problem(inner_steps=3, warmup=7, tolerance=0.0)
    state = jax.jit(bilevel.warm_up)(bilevel.init(theta, phi), data, jax.random.key(0))
    assert state.model.opt_state[0].count == 7
    after, info = jax.jit(bilevel.iterate)(state, data, jax.random.key(1))
    assert info.inner_steps == 3 and after.model.opt_state[0].count == 10
    moved = jax.tree.map(lambda new, old: bool(jnp.any(new != old)), after.metric.params, state.metric.params)
    assert all(jax.tree.leaves(moved))


def test_the_inner_loop_ends_where_its_gradient_is_small() -> None:
    descent = optax.sgd(0.5)  # halves the distance at each step
    model = Trained(jnp.array(1.0), descent.init(jnp.array(1.0)))
    loss = lambda theta, rows: 0.5 * theta**2  # noqa: E731
    fitted, count = fit(loss, descent, model, jax.random.key(0), 5, 2, steps=100, tolerance=0.1)
    assert (float(fitted.params), int(count)) == (2.0**-5, 5)  # the gradient before the fifth step is 1/16


def test_the_agent_and_the_tasks_share_the_solver(monkeypatch: pytest.MonkeyPatch) -> None:
    def gradients() -> tuple[PyTree, PyTree]:
        agent = make_taskmet(Metric(2, 2), solver=NormalCG(5))
        bilevel, theta, phi, data = problem(solver=NormalCG(5))
        return jax.jit(agent.metric_gradient)(*start(agent))[0], jax.jit(bilevel.metric_gradient)(theta, phi, data, data)[1]

    assert all(optax.tree.norm(gradient) > 0 for gradient in gradients())
    monkeypatch.setattr(linear_solve.NormalCG, "solve", lambda self, operator, g: (0 * g, jnp.linalg.norm(g), 0))
    assert all(optax.tree.norm(gradient) == 0 for gradient in gradients())
