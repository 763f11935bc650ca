"""The preset paper-code: Adam's first steps, averaged heads, one linear system for the whole model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mbrl_taskmet import Config
from mbrl_taskmet.core.linear_solve import CG, Dense, NormalCG
from mbrl_taskmet.rl.critics import CRITICS
from mbrl_taskmet.rl.critics.soft_q import SoftQSettings
from mbrl_taskmet.rl.methods.mle import MLESettings
from mbrl_taskmet.rl.methods.omd import OMDSettings
from mbrl_taskmet.rl.spaces import Box, Discrete
from tests.small_problem import CRITIC, M, N, bootstrap_of, make, make_metric, make_taskmet, start

PyTree = Any
KEY = jax.random.key(9)


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("mle", {}),
        ("omd", {"critic_optimizer": "first_adam"}),
        ("taskmet", {"model_optimizer": "first_adam", "linear_system": "model"}),
    ],
)
def test_the_preset_gives_each_method_its_accidents(method: str, expected: dict[str, str]) -> None:
    code, paper = (Config(preset=preset, method=method, distractors=8).resolve().names for preset in ("paper-code", "paper"))
    metric = {"metric_start": "published", "l1_reduction": "sum"} if method == "taskmet" else {}
    changed = {name: value for name, value in code.items() if value != paper[name]}
    assert changed == {"preset": "paper-code", "head_reduction": "mean", **metric, **expected}


def test_a_critic_of_first_steps_moves_by_the_sign_of_its_gradient_every_time(x64: None) -> None:
    settings = SoftQSettings(optimizer="first_adam", lr=3e-4, sparsity=0.0, layer_norm=False)
    method = make(OMDSettings(), critic=settings.make(N, Discrete(M)))
    learner, batch = start(make(MLESettings(), critic=method.critic))
    for _ in range(2):
        imagined = method.imagine(learner.model.params, batch)
        gradient = jax.grad(method.critic.loss)(learner.critic.params, bootstrap_of(learner), imagined)
        new = jax.jit(method.update)(learner, batch, jnp.int32(0), KEY)
        expected = jax.tree.map(lambda p, g: p - 3e-4 * g / (jnp.abs(g) + 1e-8), learner.critic.params, gradient)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12), new.critic.params, expected)
        learner = new
    # Adam's own first step is the same, to the rounding of its bias corrections
    first, _ = optax.adam(3e-4).update(gradient, optax.adam(3e-4).init(gradient))
    ours, _ = method.critic.optimizer.update(gradient, method.critic.optimizer.init(gradient), learner.critic.params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9), ours, first)


@pytest.mark.parametrize("name", CRITICS)
def test_averaged_heads_halve_the_bellman_error_and_its_gradient(name: str, x64: None) -> None:
    space = Discrete(M) if CRITICS[name].acts_in is Discrete else Box((-1.0,) * M, (1.0,) * M)
    summed, averaged = (CRITICS[name](head_reduction=how).make(N, space) for how in ("sum", "mean"))
    state = summed.init(KEY)
    _, batch = start(make(MLESettings()))
    bootstrap = summed.bootstrap(state, KEY)
    values = [jax.value_and_grad(critic.loss)(state.params, bootstrap, batch) for critic in (summed, averaged)]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, 2 * b, rtol=1e-12), *values)  # a power of two is exact


def test_the_system_of_the_whole_model_has_the_same_solution(x64: None, relative_error: Callable[..., float]) -> None:
    metric = make_metric("full", normalize=False)
    gradients = []
    for system in ("dynamics", "model"):
        method = make_taskmet(metric, solver=Dense(), linear_system=system)
        gradients.append(method.metric_gradient(*start(method), KEY)[0])
    assert relative_error(gradients[1], gradients[0]) < 1e-9  # two dense solves of condition number 1e4


@pytest.mark.parametrize("solver", [CG(2), NormalCG(2)])
def test_few_iterations_run_on_the_reward_networks_block_too(
    solver: Any, x64: None, relative_error: Callable[..., float]
) -> None:
    metric = make_metric("full", normalize=False)
    method = make_taskmet(metric, solver=solver, linear_system="model")
    learner, batch = start(method)
    theta, phi = learner.model.params, learner.metric.params

    def loss(theta: PyTree, phi: PyTree) -> jax.Array:
        imagined = method.imagine(theta, batch)
        error = imagined.next_observation - batch.next_observation
        reward = jnp.mean((imagined.reward - batch.reward) ** 2)
        return metric.loss(phi, batch.observation, batch.action, error) + reward

    # the outer gradient of both parts, by OMD's formula with the identity
    def product(theta: PyTree) -> jax.Array:
        losses = [jax.grad(CRITIC.loss)(learner.critic.params, bootstrap_of(learner), b)
                  for b in (batch, method.imagine(theta, batch))]  # fmt: skip
        return -sum(jnp.vdot(a, b) for a, b in zip(*map(jax.tree.leaves, losses), strict=True))

    outer = jax.grad(product)(theta)
    solution = solver(lambda v: jax.jvp(lambda t: jax.grad(loss)(t, phi), (theta,), (v,))[1], outer).value
    truth = jax.grad(lambda phi: -jax.jvp(lambda t: loss(t, phi), (theta,), (solution,))[1])(phi)
    gradient, _ = method.metric_gradient(learner, batch, KEY)
    assert relative_error(gradient, truth) < 1e-9  # the same sums in another order
    alone = make_taskmet(metric, solver=solver).metric_gradient(learner, batch, KEY)[0]
    assert relative_error(alone, gradient) > 1e-3
