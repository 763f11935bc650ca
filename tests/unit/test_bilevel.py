"""Algorithm 1: its whole gradient against the re-solved problem, its loop, its inner solvers, and the linear solver that it
shares with the agent.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from decision_tasks.cubic import soft_top_k
from mbrl_taskmet.core import linear_solve
from mbrl_taskmet.core.bilevel import JAXOPT, Bilevel, Inner, Jaxopt, State, fit, take
from mbrl_taskmet.core.linear_solve import Dense, NormalCG
from mbrl_taskmet.core.metric import Diagonal, FactorMetric
from mbrl_taskmet.core.optimizers import Trained, step
from mbrl_taskmet.core.settings import ConfigError
from tests.small_problem import draw, make_taskmet, newton, start

PyTree = Any
METRIC = FactorMetric(2, 3, hidden=(4,))
KEY = jax.random.key(0)


class Rows(NamedTuple):
    x: jax.Array  # (instances, items, 3)
    y: jax.Array  # (instances, items, 2)


def predict(theta: jax.Array, batch: Rows) -> jax.Array:
    return jnp.tanh(batch.x @ theta)


def weigh(phi: PyTree, batch: Rows) -> jax.Array:
    return jax.vmap(jax.vmap(METRIC, in_axes=(None, 0)), in_axes=(None, 0))(phi, batch.x)


def loss(prediction: jax.Array, metric: jax.Array, batch: Rows) -> jax.Array:
    error = prediction - batch.y
    return jnp.mean(jnp.einsum("bri,brij,brj->br", error, metric, error))


def task_loss(prediction: jax.Array, batch: Rows) -> jax.Array:
    chosen = jax.vmap(lambda scores: soft_top_k(scores, 2, 0.2))(prediction.sum(axis=-1))
    return -jnp.mean(jnp.sum(chosen * batch.y.sum(axis=-1), axis=-1))


def problem(**settings: Any) -> tuple[Bilevel, jax.Array, PyTree, Rows]:
    """A tanh predictor of noisy data, that can be fitted to rounding error by Newton's method; θ, φ and the data."""
    defaults: dict[str, Any] = {"predict": predict, "task_loss": task_loss}
    optimizers = {"optimizer": optax.adam(1e-2), "metric_optimizer": optax.sgd(1.0)}
    bilevel = Bilevel(weigh=weigh, loss=loss, **{**defaults, **optimizers, **settings})
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


def square_loss(prediction: jax.Array, batch: Rows) -> jax.Array:
    return jnp.mean((prediction[..., 0] - batch.y[..., 0]) ** 2)


SEVERAL = {
    "choices": (0.7, task_loss),
    "first": (3.0, square_loss),
    "watched": (0.0, lambda prediction, batch: prediction.sum()),
}


def test_the_metric_gradient_of_several_task_losses_is_that_of_their_weighted_sum(
    x64: None, central_differences: Callable[..., PyTree], relative_error: Callable[..., float]
) -> None:
    bilevel, start, phi, data = problem(solver=Dense(), task_loss=SEVERAL)

    @jax.jit
    def outer(phi: PyTree) -> jax.Array:
        theta = newton(jax.grad(lambda theta: loss(predict(theta, data), weigh(phi, data), data)), start, steps=10)
        prediction = predict(theta, data)
        return 0.7 * task_loss(prediction, data) + 3.0 * square_loss(prediction, data)

    theta = newton(jax.grad(lambda theta: loss(predict(theta, data), weigh(phi, data), data)), start, steps=10)
    value, gradient, _ = jax.jit(bilevel.metric_gradient)(theta, phi, data, data)
    assert value == pytest.approx(float(outer(phi)), rel=1e-12)
    assert relative_error(gradient, central_differences(outer, phi)) < 1e-6  # differences of step 1e-5 are off by about 1e-8


def test_an_iteration_reports_each_task_loss_by_name() -> None:
    bilevel, theta, phi, data = problem(inner_steps=1, task_loss=SEVERAL)
    _, info = jax.jit(bilevel.iterate)(bilevel.init(theta, phi), data, KEY)
    assert set(info.task_losses) == set(SEVERAL)
    assert info.task_loss == pytest.approx(float(sum(w * info.task_losses[name] for name, (w, _) in SEVERAL.items())), rel=1e-5)
    one, *_ = problem(inner_steps=1)
    assert jax.eval_shape(one.iterate, one.init(theta, phi), data, KEY)[1].task_losses == {}


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


def solution(bilevel: Bilevel, theta: jax.Array, phi: PyTree, data: Rows) -> jax.Array:
    """θ*(φ), by the inner solver from θ on; `warmup` are its steps."""
    solve = jax.jit(lambda phi: bilevel.warm_up(bilevel.init(theta, phi), data, jax.random.key(0)).model.params)
    return solve(phi)


def gradient_norm(theta: jax.Array, phi: PyTree, data: Rows) -> jax.Array:
    """‖∂_θ L_pred‖, on all data."""
    return jnp.linalg.norm(jax.grad(lambda theta: loss(predict(theta, data), weigh(phi, data), data))(theta))


def test_lbfgs_and_many_adam_steps_agree(x64: None, relative_error: Callable[..., float]) -> None:
    def answers(inner: Inner) -> tuple[PyTree, PyTree]:
        bilevel, theta, phi, data = problem(inner=inner, solver=Dense(), warmup=20_000, tolerance=1e-10)
        one = jax.tree.map(lambda leaf: leaf.reshape(1, -1, leaf.shape[-1]), data)  # so that a minibatch is all of it
        theta = solution(bilevel, 0.5 * theta, phi, one)
        assert gradient_norm(theta, phi, data) < 2e-10  # `fit` looks at the gradient before its last step
        return theta, jax.jit(bilevel.metric_gradient)(theta, phi, data, data)[1]

    # Each θ is within 2e-10 over the smallest curvature, 0.5, of θ*, of norm 0.6; the metric's gradient is smooth in θ.
    assert relative_error(answers(Jaxopt("LBFGS")), answers(fit)) < 1e-8


def test_lbfgs_reaches_the_closed_form_of_a_linear_predictor(x64: None, relative_error: Callable[..., float]) -> None:
    linear = {"predict": lambda theta, batch: batch.x @ theta}
    bilevel, theta, phi, data = problem(**linear, inner=Jaxopt("LBFGS"), solver=Dense(), tolerance=1e-10)

    def closed_form(phi: PyTree) -> jax.Array:
        """The weighted least squares: Σ (x xᵀ ⊗ Λ) vec θ = Σ x ⊗ Λy."""
        metric = weigh(phi, data)
        matrix = jnp.einsum("brk,brl,brij->kilj", data.x, data.x, metric).reshape(theta.size, theta.size)
        return jnp.linalg.solve(matrix, jnp.einsum("brk,brij,brj->ki", data.x, metric, data.y).ravel()).reshape(theta.shape)

    truth = jax.grad(lambda phi: task_loss(data.x @ closed_form(phi), data))(phi)
    fitted = solution(bilevel, theta, phi, data)
    _, gradient, _ = jax.jit(bilevel.metric_gradient)(fitted, phi, data, data)
    # θ is within 1e-10 over the smallest curvature, 1.2, of θ*, of norm 0.5; the metric's gradient is smooth in θ.
    assert relative_error((fitted, gradient), (closed_form(phi), truth)) < 1e-8


OPTIONS: dict[str, dict[str, Any]] = {
    "OptaxSolver": {"opt": optax.adam(1e-2)},
    "PolyakSGD": {"fun_min": 0.0, "max_stepsize": 0.1},  # a bound of L_pred that is no minimum: then its steps are 0.1
}


@pytest.mark.parametrize("name", JAXOPT)
def test_any_jaxopt_solver_is_an_inner_solver(x64: None, name: str) -> None:
    bilevel, theta, phi, data = problem(inner=Jaxopt(name, **OPTIONS.get(name, {})), warmup=2000, tolerance=1e-6)
    fitted = solution(bilevel, 0.5 * theta, phi, data)
    # Most end at the tolerance, but some by the norm at the point before: 10 times that is converged for all.
    assert gradient_norm(fitted, phi, data) < 1e-5 < 1e-2 < gradient_norm(0.5 * theta, phi, data)


def test_an_unknown_inner_solver_is_refused() -> None:
    with pytest.raises(ConfigError) as refusal:
        Jaxopt("LBFSG", maxiter=50)
    assert str(refusal.value) == (
        "inner solver 'LBFSG' is unknown; did you mean 'LBFGS'? "
        "There are ArmijoSGD, BFGS, GradientDescent, LBFGS, NonlinearCG, OptaxSolver, PolyakSGD"
    )


def test_an_iteration_is_k_steps_of_a_jaxopt_solver_too_and_leaves_the_optimisers_state() -> None:
    bilevel, theta, phi, data = problem(inner=Jaxopt("GradientDescent"), inner_steps=3, tolerance=0.0)
    after, info = jax.jit(bilevel.iterate)(bilevel.init(theta, phi), data, jax.random.key(1))
    assert info.inner_steps == 3 and after.model.opt_state[0].count == 0
    assert jnp.any(after.model.params != theta) and after.metric.params["log_identity"] != phi["log_identity"]


def test_a_jaxopt_solver_takes_options_and_may_be_given_as_a_class() -> None:
    import jaxopt

    model = Trained(jnp.array(1.0), ())

    def steps(inner: Jaxopt, most: int) -> tuple[float, int]:
        descend = jax.jit(lambda model: inner(lambda theta, _: 0.5 * theta**2, optax.identity(), model, KEY, 5, 2, most, 0.1))
        fitted, count = descend(model)
        return float(fitted.params), int(count)

    halving = {"stepsize": 0.5, "acceleration": False}
    for solver in ("GradientDescent", jaxopt.GradientDescent):
        assert steps(Jaxopt(solver, **halving), 3) == (2.0**-3, 3)
        assert steps(Jaxopt(solver, **halving, maxiter=2), 3) == (2.0**-2, 2)
    assert steps(Jaxopt("GradientDescent", **halving), 0) == (1.0, 0)
    assert steps(Jaxopt("GradientDescent", **halving), 100)[0] <= 0.1  # ends by the tolerance


def test_an_iteration_with_a_jaxopt_solver_compiles_once_and_can_be_scanned_and_batched(
    x64: None, relative_error: Callable[..., float]
) -> None:
    bilevel, theta, phi, data = problem(inner=Jaxopt("LBFGS", maxiter=5, linesearch="backtracking"))  # compiles in less time
    keys = jax.random.split(jax.random.key(1), 3)
    iterate = jax.jit(bilevel.iterate)
    starts = [bilevel.init(scale * theta, phi) for scale in (0.5, 0.7)]
    ends = []
    for state in starts:
        for key in keys:
            state, _ = iterate(state, data, key)
        ends.append(state)
    assert iterate._cache_size() == 1

    @jax.jit
    @jax.vmap
    def batched(state: State) -> State:
        return jax.lax.scan(lambda state, key: bilevel.iterate(state, data, key), state, keys)[0]

    stacked = [jax.tree.map(lambda *leaves: jnp.stack(leaves), *states) for states in (starts, ends)]
    # The same operations up to their order of summation, 1e-16, which a few curvature updates amplify.
    assert relative_error(batched(stacked[0]), stacked[1]) < 1e-10


def test_the_default_inner_solver_is_optax_steps_on_random_minibatches(x64: None, relative_error: Callable[..., float]) -> None:
    bilevel, theta, phi, data = problem(inner_steps=4, tolerance=0.0, inner_batch=3)
    state, key = bilevel.init(theta, phi), jax.random.key(1)
    after, info = jax.jit(bilevel.iterate)(state, data, key)

    @jax.jit
    def expected(model: Trained) -> Trained:
        for rows in jax.random.randint(jax.random.split(key, 3)[0], (4, 3), 0, 8):
            batch = take(data, rows)
            gradient = jax.grad(lambda theta, b: loss(predict(theta, b), weigh(phi, b), b))(model.params, batch)
            model = step(bilevel.optimizer, model, gradient)
        return model

    assert info.inner_steps == 4
    assert relative_error(after.model, expected(state.model)) < 1e-13  # the same operations, compiled apart


def test_the_agent_and_the_tasks_share_the_solver(monkeypatch: pytest.MonkeyPatch) -> None:
    def gradients() -> tuple[PyTree, PyTree]:
        agent = make_taskmet(Diagonal(floor=0.0), solver=NormalCG(5))
        bilevel, theta, phi, data = problem(solver=NormalCG(5))
        by_agent, _ = jax.jit(agent.metric_gradient)(*start(agent), KEY)
        return by_agent, jax.jit(bilevel.metric_gradient)(theta, phi, data, data)[1]

    assert all(optax.tree.norm(gradient) > 0 for gradient in gradients())
    monkeypatch.setattr(linear_solve.NormalCG, "solve", lambda self, operator, g: (0 * g, jnp.linalg.norm(g), 0))
    assert all(optax.tree.norm(gradient) == 0 for gradient in gradients())
