"""The methods' gradients against finite differences of re-solved problems, the types they keep and the actions they take."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

from mbrl_taskmet.core.linear_solve import Dense, Identity, Solution, Solver
from mbrl_taskmet.core.metric import INPUTS, Full
from mbrl_taskmet.rl.critics import SoftQSettings
from mbrl_taskmet.rl.critics.seeing import Seeing
from mbrl_taskmet.rl.methods import METHODS, Learner, Method
from mbrl_taskmet.rl.methods.mle import MLESettings
from mbrl_taskmet.rl.methods.omd import OMDSettings, task_gradient
from mbrl_taskmet.rl.model import Model, ModelParams, ModelSettings
from mbrl_taskmet.rl.replay import Transitions
from mbrl_taskmet.rl.spaces import Discrete
from tests.small_problem import (
    CRITIC,
    CRITIC_SETTINGS,
    LR,
    SIZES,
    M,
    N,
    bootstrap_of,
    make,
    make_critic,
    make_metric,
    make_taskmet,
    newton,
    start,
    task_loss,
    theta_star,
    weighted_loss,
)

PyTree = Any
KEY = jax.random.key(0)  # of a bootstrap in which nothing is random

METRICS = {
    f"{kind}-{input}-{'normalized' if normalize else 'free'}": make_metric(kind, input, (3,), normalize=normalize)
    for kind in ("scalar", "diagonal", "full")
    for input in INPUTS
    for normalize in (True, False)
    if kind != "scalar" or not normalize
} | {
    "full-state_action-normalized": make_metric("full", "state_action", (3,), floor=0.3),  # and its floor
    "diagonal-none-published": make_metric(origin="published"),
}


loss_gradient = jax.jit(jax.grad(weighted_loss))


def implicit_gradient(method: Method, learner: Learner, batch: Transitions, solver: Solver) -> tuple[PyTree, Solution]:
    bootstrap = method.critic.bootstrap(learner.critic, KEY)
    return jax.jit(lambda *args: task_gradient(method, *args, solver))(learner, batch, bootstrap)


@pytest.mark.parametrize("name", METRICS)
def test_taskmets_gradient_is_that_of_the_re_solved_trilevel_problem(
    x64: None, name: str, central_differences: Callable[..., PyTree], relative_error: Callable[..., float]
) -> None:
    metric = METRICS[name]
    method = make_taskmet(metric, solver=Dense(), critic_solver=Dense())
    learner, batch = start(method)
    target_params, phi, reward = learner.critic.target_params, learner.metric.params, learner.model.params.reward

    @jax.jit
    def matrices(phi: PyTree) -> jax.Array:
        if isinstance(metric, Full):
            return metric.batch(phi, batch.observation, batch.action)
        return metric.diagonals(phi, batch.observation, batch.action)[:, :, None] * jnp.eye(N)

    def outer(phi: PyTree) -> jax.Array:
        theta = ModelParams(theta_star(solution, matrices(phi), batch), reward)
        return task_loss(target_params, theta, batch)[0]

    solution = theta_star(learner.model.params.dynamics, matrices(phi), batch)
    slope = loss_gradient(solution, matrices(phi), batch)
    assert all(jnp.abs(leaf).max() < 1e-13 for leaf in jax.tree.leaves(slope))  # solved to machine precision
    theta = ModelParams(solution, reward)
    _, omega = task_loss(target_params, theta, batch)
    learner = learner._replace(model=learner.model._replace(params=theta), critic=learner.critic._replace(params=omega))
    gradient, solved = jax.jit(method.metric_gradient)(learner, batch, KEY)

    assert solved.residual < 1e-10
    if name == "scalar-none-free":  # a constant factor moves no minimiser
        assert jnp.abs(gradient).max() < 1e-12
    else:  # differences of step 1e-5 are off by about 1e-8
        assert relative_error(gradient, central_differences(outer, phi)) < 1e-6


@pytest.mark.parametrize("activation", ["softplus", "exp", "sigmoid"])
def test_a_shared_metrics_gradient_is_that_of_the_problem_re_solved_with_the_targets_held(
    x64: None, activation: str, central_differences: Callable[..., PyTree], relative_error: Callable[..., float]
) -> None:
    """φ weighs L_pred, and scales what the critic sees in L_Q and in L_task; the bootstrap keeps the scale it has."""
    metric = make_metric(activation=activation, floor=0.1)
    method = make_taskmet(metric, solver=Dense(), critic_solver=Dense(), metric_shared=True)
    learner, batch = start(method)
    phi, reward = learner.metric.params, learner.model.params.reward
    bootstrap = method.critic_of(learner).bootstrap(learner.critic, KEY)

    def weights(phi: PyTree) -> jax.Array:
        return metric(phi, jnp.zeros(N), jnp.zeros(M))

    @jax.jit
    def matrices(phi: PyTree) -> jax.Array:
        return jnp.broadcast_to(jnp.diag(weights(phi)), (len(batch.reward), N, N))

    @jax.jit
    def re_solved(dynamics: PyTree, phi: PyTree) -> tuple[jax.Array, PyTree]:
        critic = Seeing(CRITIC, jnp.sqrt(weights(phi)))
        imagined = method.imagine(ModelParams(dynamics, reward), batch)
        slope = jax.grad(lambda omega: critic.loss(omega, bootstrap, imagined))
        omega = newton(slope, learner.critic.target_params, steps=2)
        return critic.loss(omega, bootstrap, batch), omega

    solution = theta_star(learner.model.params.dynamics, matrices(phi), batch)
    _, omega = re_solved(solution, phi)
    learner = learner._replace(
        model=learner.model._replace(params=ModelParams(solution, reward)), critic=learner.critic._replace(params=omega)
    )
    gradient, _ = jax.jit(method.metric_gradient)(learner, batch, KEY)
    truth = central_differences(lambda phi: re_solved(theta_star(solution, matrices(phi), batch), phi)[0], phi)
    assert relative_error(gradient, truth) < 1e-6  # differences of step 1e-5 are off by about 1e-8
    # With an exact critic the two terms of the critic cancel, for its first layer undoes any scale; each alone does not.
    rough = make_taskmet(metric, solver=Dense(), critic_solver=Identity(), metric_shared=True)
    assert relative_error(jax.jit(rough.metric_gradient)(learner, batch, KEY)[0], truth) > 1e-3


def test_omds_gradient_is_that_of_the_re_solved_bilevel_problem(
    x64: None, central_differences: Callable[..., PyTree], relative_error: Callable[..., float]
) -> None:
    method = make(OMDSettings())
    learner, batch = start(method)
    theta, target_params = learner.model.params, learner.critic.target_params
    learner = learner._replace(critic=learner.critic._replace(params=task_loss(target_params, theta, batch)[1]))
    truth = central_differences(lambda theta: task_loss(target_params, theta, batch)[0], theta)
    gradient, solved = implicit_gradient(method, learner, batch, Dense())
    assert solved.residual < 1e-10
    assert relative_error(gradient, truth) < 1e-6  # differences of step 1e-5 are off by about 1e-9


def test_the_identity_gives_minus_the_derivative_of_the_two_critic_gradients_product(
    x64: None, relative_error: Callable[..., float]
) -> None:
    model = Model(N, M, ModelSettings(hidden=4))
    model.optimizer = optax.sgd(LR)
    method = make(OMDSettings(), model)
    learner, batch = start(method)
    omega = learner.critic.params

    def product(theta: ModelParams) -> jax.Array:
        real, imagined = (jax.grad(CRITIC.loss)(omega, bootstrap_of(learner), b) for b in (batch, method.imagine(theta, batch)))
        return ravel_pytree(real)[0] @ ravel_pytree(imagined)[0]

    truth = jax.jit(jax.grad(lambda theta: -product(theta)))(learner.model.params)
    gradient, _ = implicit_gradient(method, learner, batch, Identity())
    assert relative_error(gradient, truth) < 1e-12  # the same derivative, in another order


@pytest.mark.parametrize("precision", [np.float32, np.float64])
@pytest.mark.parametrize("name", METHODS)
def test_an_update_gives_back_the_types_it_was_given_in_the_default_precision(name: str, precision: type) -> None:
    built = METHODS[name]().make(SIZES, SoftQSettings().make(N, Discrete(M)))  # the optimisers of a run
    with jax.enable_x64(precision == np.float64):
        learner = jax.eval_shape(built.init, jax.random.key(0))
        batch = jax.eval_shape(lambda: start(make(MLESettings()))[1])
        new = jax.eval_shape(built.update, learner, batch, jnp.int32(0), KEY)
    # otherwise a chunk compiles again for its own output
    types = jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), (learner, new))
    assert types[0] == types[1]
    floats = {leaf.dtype for leaf in jax.tree.leaves(learner) if jnp.issubdtype(leaf.dtype, jnp.floating)}
    assert floats == {np.dtype(precision)}


@pytest.mark.parametrize("policy", ["critic", "target"])
def test_actions_follow_the_critic_or_its_moving_average(policy: Any) -> None:
    method = make(MLESettings(), critic=make_critic(dataclasses.replace(CRITIC_SETTINGS, policy=policy)))
    learner, batch = start(method)
    of_both = {"critic": learner.critic.params, "target": learner.critic.target_params}
    keys = jax.random.split(jax.random.key(0), 200)
    act = jax.jit(jax.vmap(method.act, in_axes=(None, 0, None)))

    def share(params: PyTree) -> jax.Array:
        values = jnp.mean(CRITIC.action_values(params, batch.observation[0]), axis=0)
        return jax.nn.softmax(values / CRITIC_SETTINGS.temperature)[1]

    followed = share(of_both.pop(policy))
    assert abs(followed - share(*of_both.values())) > 0.2
    # 200 draws: a standard error of at most .035
    assert abs(np.mean(act(learner, keys, batch.observation[0])) - followed) < 0.1
