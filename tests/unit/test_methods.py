"""The methods' gradients against finite differences of re-solved problems, the types they keep and the actions they take."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

from mbrl_taskmet.config import INPUTS
from mbrl_taskmet.core.linear_solve import Dense, Identity
from mbrl_taskmet.rl.methods import METHODS, MLE, OMD, Method, TaskMet
from mbrl_taskmet.rl.methods.omd import task_gradient
from mbrl_taskmet.core.metric import Metric
from mbrl_taskmet.core.networks import Model, ModelParams
from tests.small_problem import CRITIC, M, N, make, make_taskmet, start, task_loss, theta_star, weighted_loss

PyTree = Any

METRICS = {
    f"{kind}-{input}-{'normalized' if normalize else 'free'}": Metric(N, M, kind, input, normalize, hidden=(3,))
    for kind in ("scalar", "diagonal", "full")
    for input in INPUTS
    for normalize in (True, False)
    if kind != "scalar" or not normalize
} | {
    "full-state_action-normalized": Metric(N, M, "full", "state_action", floor=0.3, hidden=(3,)),  # and its floor
    "diagonal-none-published": Metric(N, M, published=True),
}


loss_gradient = jax.jit(jax.grad(weighted_loss))


@pytest.mark.parametrize("name", METRICS)
def test_taskmets_gradient_is_that_of_the_re_solved_trilevel_problem(
    x64: None, name: str, central_differences: Callable[..., PyTree], relative_error: Callable[..., float]
) -> None:
    metric = METRICS[name]
    method = make_taskmet(metric, solver=Dense(), critic_solver=Dense())
    learner, batch = start(method)
    target_params, phi, reward = learner.target_params, learner.metric.params, learner.model.params.reward

    @jax.jit
    def matrices(phi: PyTree) -> jax.Array:
        values = metric.batch(phi, batch.observation, batch.action)
        return values if metric.kind == "full" else jax.vmap(metric.diagonal)(values)[:, :, None] * jnp.eye(N)

    def outer(phi: PyTree) -> jax.Array:
        theta = ModelParams(theta_star(solution, matrices(phi), batch), reward)
        return task_loss(target_params, theta, batch)[0]

    solution = theta_star(learner.model.params.dynamics, matrices(phi), batch)
    slope = loss_gradient(solution, matrices(phi), batch)
    assert all(jnp.abs(leaf).max() < 1e-13 for leaf in jax.tree.leaves(slope))  # solved to machine precision
    theta = ModelParams(solution, reward)
    _, omega = task_loss(target_params, theta, batch)
    learner = learner._replace(model=learner.model._replace(params=theta), critic=learner.critic._replace(params=omega))
    gradient, solved = jax.jit(method.metric_gradient)(learner, batch)

    assert solved.residual < 1e-10
    if name == "scalar-none-free":  # a constant factor moves no minimiser
        assert jnp.abs(gradient).max() < 1e-12
    else:  # differences of step 1e-5 are off by about 1e-8
        assert relative_error(gradient, central_differences(outer, phi)) < 1e-6


def test_omds_gradient_is_that_of_the_re_solved_bilevel_problem(
    x64: None, central_differences: Callable[..., PyTree], relative_error: Callable[..., float]
) -> None:
    method = make(OMD)
    learner, batch = start(method)
    theta, target_params = learner.model.params, learner.target_params
    learner = learner._replace(critic=learner.critic._replace(params=task_loss(target_params, theta, batch)[1]))
    truth = central_differences(lambda theta: task_loss(target_params, theta, batch)[0], theta)
    gradient, solved = jax.jit(lambda learner, batch: task_gradient(method, learner, batch, Dense()))(learner, batch)
    assert solved.residual < 1e-10
    assert relative_error(gradient, truth) < 1e-6  # differences of step 1e-5 are off by about 1e-9


def test_the_identity_gives_minus_the_derivative_of_the_two_critic_gradients_product(
    x64: None, relative_error: Callable[..., float]
) -> None:
    method = make(OMD, model=Model(N, M, (4,)))
    learner, batch = start(method)
    omega, target_params = learner.critic.params, learner.target_params

    def product(theta: ModelParams) -> jax.Array:
        real, imagined = (jax.grad(CRITIC.loss)(omega, target_params, b) for b in (batch, method.imagine(theta, batch)))
        return ravel_pytree(real)[0] @ ravel_pytree(imagined)[0]

    truth = jax.jit(jax.grad(lambda theta: -product(theta)))(learner.model.params)
    gradient, _ = jax.jit(lambda learner, batch: task_gradient(method, learner, batch, Identity()))(learner, batch)
    assert relative_error(gradient, truth) < 1e-12  # the same derivative, in another order


@pytest.mark.parametrize("precision", [np.float32, np.float64])
@pytest.mark.parametrize("method", METHODS.values())
def test_an_update_gives_back_the_types_it_was_given_in_the_default_precision(method: type[Method], precision: type) -> None:
    adam = optax.adam(1e-3)
    parts = {"model": Model(N, M, (3,)), "model_optimizer": adam, "critic_optimizer": adam}
    extra = {"metric": Metric(N, M), "metric_optimizer": adam} if method is TaskMet else {}
    built = make(method, **parts, **extra)
    with jax.enable_x64(precision == np.float64):
        learner = jax.eval_shape(built.init, jax.random.key(0))
        batch = jax.eval_shape(lambda: start(make(MLE))[1])
        new, _ = jax.eval_shape(built.update, learner, batch, jnp.int32(0))
    # otherwise a chunk compiles again for its own output
    types = jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), (learner, new))
    assert types[0] == types[1]
    floats = {leaf.dtype for leaf in jax.tree.leaves(learner) if jnp.issubdtype(leaf.dtype, jnp.floating)}
    assert floats == {np.dtype(precision)}


@pytest.mark.parametrize("policy", ["critic", "target"])
def test_actions_follow_the_critic_or_its_moving_average(policy: Any) -> None:
    method = make(MLE, policy=policy)
    learner, batch = start(method)
    followed = {"critic": learner.critic.params, "target": learner.target_params}[policy]
    keys = jax.random.split(jax.random.key(0), 200)
    act = jax.jit(jax.vmap(method.act, in_axes=(None, 0, None)))
    values = jnp.mean(CRITIC.action_values(followed, batch.observation[0]), axis=0)
    share = jax.nn.softmax(values / CRITIC.temperature)[1]
    other = jax.tree.map(lambda a, b: b if policy == "critic" else a, learner.critic.params, learner.target_params)
    assert abs(share - jax.nn.softmax(jnp.mean(CRITIC.action_values(other, batch.observation[0]), 0) / 0.5)[1]) > 0.2
    # 200 draws: a standard error of at most .035
    assert abs(np.mean(act(learner, keys, batch.observation[0])) - share) < 0.1
