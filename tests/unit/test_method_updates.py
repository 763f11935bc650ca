"""One update of every method: its steps in the published order, against the same steps written out."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mbrl_taskmet.core.linear_solve import Dense, Identity
from mbrl_taskmet.rl.methods import Learner, Method
from mbrl_taskmet.rl.methods.itervaml import IterVAMLSettings
from mbrl_taskmet.rl.methods.mle import MLESettings
from mbrl_taskmet.rl.methods.model_free import ModelFreeSettings
from mbrl_taskmet.rl.methods.omd import OMDSettings, task_gradient
from mbrl_taskmet.rl.methods.taskmet import TaskMetSettings
from mbrl_taskmet.rl.methods.vagram import VaGraMSettings
from mbrl_taskmet.rl.methods.vep import VEPSettings
from mbrl_taskmet.rl.model import ModelParams
from mbrl_taskmet.rl.replay import Transitions
from tests.small_problem import (
    BATCH,
    CRITIC,
    CRITIC_SETTINGS,
    LR,
    SIZES,
    TAU,
    Mixing,
    N,
    bootstrap_of,
    make,
    make_critic,
    make_metric,
    make_taskmet,
    start,
    weighted_loss,
)

PyTree = Any
KEY = jax.random.key(0)  # of critics in which nothing is random


def update(method: Method, learner: Learner, batch: Transitions) -> Learner:
    """The update at step 0."""
    return jax.jit(method.update)(learner, batch, jnp.int32(0), KEY)


def residual(method: Method, learner: Learner, batch: Transitions, step: int) -> jax.Array | None:
    """What a report at `step` says of the method's solve."""
    return jax.jit(method.residual)(learner, batch, jnp.int32(step), KEY)


def squared_error(method: Method, theta: ModelParams, batch: Transitions) -> jax.Array:
    """‖ŝ' − s'‖² + (r̂ − r)², summed over dimensions, mean over the batch."""
    imagined = method.imagine(theta, batch)
    state = jnp.sum((imagined.next_observation - batch.next_observation) ** 2, axis=-1)
    return jnp.mean(state + (imagined.reward - batch.reward) ** 2)


def descend(params: PyTree, gradient: PyTree) -> PyTree:
    return jax.tree.map(lambda p, g: p - LR * g, params, gradient)


def critic_and_target_step(method: Method, learner: Learner, theta: ModelParams, batch: Transitions) -> tuple[PyTree, PyTree]:
    """ω' along L_Q(·, θ) at the old ω̄, then ω̄' towards ω'."""
    gradient = jax.grad(CRITIC.loss)(learner.critic.params, bootstrap_of(learner), method.imagine(theta, batch))
    omega = descend(learner.critic.params, gradient)
    return omega, jax.tree.map(lambda new, old: TAU * new + (1 - TAU) * old, omega, learner.critic.target_params)


def assert_learned(learner: Learner, *truth: PyTree, tolerance: float = 1e-10) -> None:
    """θ, ω, ω̄ and φ are as given, up to the order of sums in float64."""
    found = (learner.model.params, learner.critic.params, learner.critic.target_params, learner.metric.params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance), found, truth)


def test_mle_steps_the_model_then_the_critic_then_the_target(x64: None) -> None:
    method = make(MLESettings())
    learner, batch = start(method)
    error = partial(squared_error, method)

    @jax.jit
    def expected(learner: Learner, batch: Transitions) -> tuple[PyTree, ...]:
        theta = descend(learner.model.params, jax.grad(error)(learner.model.params, batch))
        return theta, *critic_and_target_step(method, learner, theta, batch), ()

    new = update(method, learner, batch)
    assert_learned(new, *expected(learner, batch))
    assert error(new.model.params, batch) < error(learner.model.params, batch)
    assert residual(method, new, batch, 1) is None


def test_omd_steps_the_critic_then_the_target_then_the_model_at_both_of_them(x64: None) -> None:
    method = make(OMDSettings())
    learner, batch = start(method)

    @jax.jit
    def expected(learner: Learner, batch: Transitions) -> tuple[PyTree, ...]:
        omega, target_params = critic_and_target_step(method, learner, learner.model.params, batch)
        critic = learner.critic._replace(params=omega, target_params=target_params)
        after = learner._replace(critic=critic)
        gradient, _ = task_gradient(method, after, batch, bootstrap_of(after), Identity())
        return descend(learner.model.params, gradient), omega, target_params, ()

    new = update(method, learner, batch)
    assert_learned(new, *expected(learner, batch))
    assert jnp.isfinite(residual(method, new, batch, 1))


def test_taskmet_steps_the_model_under_the_old_metric_then_critic_target_and_metric(x64: None) -> None:
    metric, l1 = make_metric("full", normalize=False), 0.5
    method = make_taskmet(metric, solver=Dense(), l1=l1)
    learner, batch = start(method)

    @jax.jit
    def expected(learner: Learner, batch: Transitions) -> tuple[PyTree, ...]:
        phi, inputs = learner.metric.params, (batch.observation, batch.action)

        def loss(theta: ModelParams) -> jax.Array:
            reward = jnp.mean((method.model.reward(theta.reward, *inputs) - batch.reward) ** 2)
            return weighted_loss(theta.dynamics, metric.batch(phi, *inputs), batch) + reward

        theta = descend(learner.model.params, jax.grad(loss)(learner.model.params))
        omega, target_params = critic_and_target_step(method, learner, theta, batch)
        critic = learner.critic._replace(params=omega, target_params=target_params)
        at = learner._replace(model=learner.model._replace(params=theta), critic=critic)
        gradient, _ = method.metric_gradient(at, batch, KEY)
        penalty = jax.grad(lambda p: l1 * jnp.sum(jnp.abs(metric.batch(p, *inputs))) / BATCH)(phi)
        return theta, omega, target_params, descend(phi, jax.tree.map(jnp.add, gradient, penalty))

    new = update(method, learner, batch)
    # one dense solve by two compilations: rounding times a condition number of at most 1e5
    assert_learned(new, *expected(learner, batch), tolerance=1e-9)
    assert residual(method, new, batch, 1) < 1e-9


def assert_steps_like_mle(method: Method, loss: Callable[[PyTree, Learner, Transitions], jax.Array]) -> None:
    """One update: the model along `loss`(dynamics, learner, batch) and the reward's squared error, then critic and target."""
    learner, batch = start(method)

    @jax.jit
    def expected(learner: Learner, batch: Transitions) -> tuple[PyTree, ...]:
        def total(theta: ModelParams) -> jax.Array:
            reward = method.imagine(theta, batch).reward
            return loss(theta.dynamics, learner, batch) + jnp.mean((reward - batch.reward) ** 2)

        theta = descend(learner.model.params, jax.grad(total)(learner.model.params))
        return theta, *critic_and_target_step(method, learner, theta, batch), learner.metric.params

    new = update(method, learner, batch)
    assert_learned(new, *expected(learner, batch))


def soft(values: jax.Array) -> jax.Array:
    return CRITIC_SETTINGS.temperature * jnp.log(jnp.sum(jnp.exp(values / CRITIC_SETTINGS.temperature), axis=-1))


def test_vep_asks_for_the_frozen_values_of_the_next_observation(x64: None) -> None:
    def loss(dynamics: PyTree, learner: Learner, batch: Transitions) -> jax.Array:
        imagined = Mixing().next_observation(dynamics, batch.observation, batch.action)
        total = jnp.zeros(())
        for i in range(5):
            x, y = imagined, batch.next_observation
            layers = [jax.tree.map(lambda leaf: leaf[i], layer) for layer in learner.metric.params["params"].values()]  # noqa: B023
            for depth, layer in enumerate(layers):
                x, y = (z @ layer["kernel"] + layer["bias"] for z in (x, y))
                if depth < 2:
                    x, y = jnp.maximum(x, 0), jnp.maximum(y, 0)
            total += jnp.mean((x - y)[:, 0] ** 2)
        return total

    assert_steps_like_mle(make(VEPSettings()), loss)
    first, second = (make(VEPSettings()).init(jax.random.key(seed)).metric.params for seed in (0, 1))
    kernels = np.concatenate([tree["params"]["Dense_0"]["kernel"] for tree in (first, second)])
    assert kernels.shape == (10, N, 32) and len(np.unique(kernels[:, 0, 0])) == 10  # each seed has five values of its own


def test_vagram_weighs_errors_with_the_values_gradients_of_both_heads_and_both_averages(
    x64: None, central_differences: Callable[..., PyTree]
) -> None:
    method = make(VaGraMSettings())
    learner, batch = start(method)
    squares = []
    for params in (learner.critic.params, learner.critic.target_params):
        for head in (0, 1):
            # rows do not mix, so the slope of the sum holds the gradient of every row's value
            value = jax.jit(lambda s: jnp.sum(soft(CRITIC.action_values(params, s)[head])))  # noqa: B023
            squares.append(central_differences(value, batch.next_observation) ** 2)
    weights = sum(squares) / 4
    # differences of step 1e-5 are off by about 1e-9
    np.testing.assert_allclose(method.metric(learner, batch), weights, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(method.metric_diagonal(learner, batch), jnp.mean(weights, axis=0), rtol=1e-6, atol=1e-8)

    def loss(dynamics: PyTree, learner: Learner, batch: Transitions) -> jax.Array:
        error = Mixing().next_observation(dynamics, batch.observation, batch.action) - batch.next_observation
        return jnp.mean(jnp.sum(method.metric(learner, batch) * error**2, axis=-1))

    assert_steps_like_mle(method, loss)


def test_itervaml_asks_for_the_value_of_the_target_network(x64: None) -> None:
    def value(target_params: PyTree, observation: jax.Array) -> jax.Array:
        return soft(CRITIC.action_values(target_params, observation).min(axis=0))

    def loss(dynamics: PyTree, learner: Learner, batch: Transitions) -> jax.Array:
        imagined = Mixing().next_observation(dynamics, batch.observation, batch.action)
        return jnp.mean(
            (value(learner.critic.target_params, imagined) - value(learner.critic.target_params, batch.next_observation)) ** 2
        )

    assert_steps_like_mle(make(IterVAMLSettings()), loss)


def test_vagram_is_itervaml_linearised_where_the_heads_agree(x64: None) -> None:
    """With one critic in all four places and a small error, along each dimension alone, both losses are the same."""
    vagram, itervaml = make(VaGraMSettings()), make(IterVAMLSettings())
    learner, batch = start(vagram)
    head = jax.tree.map(lambda leaf: jnp.stack([leaf[0], leaf[0]]), learner.critic.target_params)
    learner = learner._replace(critic=learner.critic._replace(params=head, target_params=head))
    dynamics = learner.model.params.dynamics
    exact = vagram.model.next_observation(dynamics, batch.observation, batch.action)
    for shift in 1e-4 * np.eye(N):
        near = batch._replace(next_observation=exact - shift)
        weighted = jnp.mean(jnp.sum(vagram.metric(learner, near) * shift**2, axis=-1))
        # the next term of the expansion is smaller by the shift, 1e-4
        np.testing.assert_allclose(itervaml.loss(dynamics, bootstrap_of(learner), near), weighted, rtol=1e-2)


def test_model_free_trains_the_critic_on_the_data_and_has_no_model(x64: None) -> None:
    adam, critic = optax.adam(LR), make_critic()
    critic.optimizer = adam
    method = ModelFreeSettings().make(SIZES, critic)
    _, batch = start(make(MLESettings()))
    learner = jax.jit(method.init)(jax.random.key(0))
    assert jax.tree.leaves(learner.model.params) == []
    assert jnp.all(jnp.isnan(method.prediction_error(learner.model.params.dynamics, batch)))
    gradient = jax.grad(CRITIC.loss)(learner.critic.params, bootstrap_of(learner), batch)
    updates, _ = adam.update(gradient, learner.critic.opt_state)
    new = update(method, learner, batch)
    omega = optax.apply_updates(learner.critic.params, updates)
    target = jax.tree.map(lambda new, old: TAU * new + (1 - TAU) * old, omega, learner.critic.target_params)
    assert_learned(new, learner.model.params, omega, target, ())
    assert residual(method, new, batch, 1) is None


@pytest.mark.parametrize("until", [None, 9])
def test_taskmets_metric_moves_between_two_steps_at_every_so_many(until: int | None) -> None:
    metric = make_metric(normalize=False)
    method = make(
        TaskMetSettings(metric=metric, metric_lr=LR, metric_lr_decay=0, metric_warmup=4, metric_until=until, metric_every=3)
    )
    learner, (_, batch) = method.init(jax.random.key(0)), start(method)
    compiled, metrics, moved = jax.jit(method.update), learner.metric, []
    for step in range(10):
        learner = compiled(learner, batch, jnp.int32(step), KEY)
        same = jax.tree.map(lambda a, b: bool(jnp.all(a == b)), learner.metric, metrics)
        if not all(jax.tree.leaves(same)):  # the optimiser's state is left alone as well
            moved.append(step)
        assert jnp.isfinite(residual(method, learner, batch, step)) == (4 < step <= (until or step))
        metrics = learner.metric
    assert moved == ([6] if until else [6, 9])


def test_a_user_is_told_of_a_run_too_short_for_its_metric_to_move() -> None:
    assert "from step 5000 on (--metric-warmup), so not in this run" in (TaskMetSettings().notice(3000) or "")
    assert TaskMetSettings().notice(5001) is TaskMetSettings(metric_warmup=100).notice(3000) is OMDSettings().notice(1) is None
