"""A problem small enough to re-solve exactly at every level, for the methods' tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree

from mbrl_taskmet.rl.critics import SoftQ
from mbrl_taskmet.rl.methods import Learner, Method, TaskMet
from mbrl_taskmet.rl.methods.base import Trained
from mbrl_taskmet.core.metric import Metric
from mbrl_taskmet.core.networks import ModelParams
from mbrl_taskmet.rl.replay import Transitions

PyTree = Any
N, M, BATCH, LR, TAU = 2, 2, 32, 0.1, 0.2

# Linear heads: ω* is a linear regression. A warm temperature keeps third derivatives, and so differencing errors, small.
CRITIC = SoftQ(N, M, hidden=(), temperature=0.5, discount=0.9)


class Mixing:
    """ŝ' = z (½, −1) + gain · sin(z), z = [s, a]·w: both outputs share z, so θ* depends on all metrics but constant scalars."""

    def init(self, key: jax.Array) -> ModelParams:
        return ModelParams({"weights": jax.random.normal(key, (N + M,)), "gain": jnp.ones(N)}, jnp.zeros(N + M))

    def next_observation(self, params: PyTree, observation: jax.Array, action: jax.Array) -> jax.Array:
        z = (jnp.concatenate([observation, action], axis=-1) @ params["weights"])[..., None]
        return z * jnp.array([0.5, -1.0]) + params["gain"] * jnp.sin(z)

    def reward(self, params: PyTree, observation: jax.Array, action: jax.Array) -> jax.Array:
        return jnp.concatenate([observation, action], axis=-1) @ params


def draw(tree: PyTree, seed: int, mean: float = 0.0, scale: float = 1.0) -> PyTree:
    """Normal numbers in the shapes of `tree`, in the default precision: parameters at no special point."""
    normal = np.random.default_rng(seed).normal
    return jax.tree.map(lambda x: jnp.array(normal(mean, scale, x.shape), dtype=float), tree)


def make(method: type[Method], **parts: Any) -> Any:
    """A method whose steps are plain gradient descent."""
    descent = {"model_optimizer": optax.sgd(LR), "critic_optimizer": optax.sgd(LR), "tau": TAU}
    return method(**{"model": Mixing(), "critic": CRITIC, **descent, **parts})


def make_taskmet(metric: Metric, **parts: Any) -> TaskMet:
    return make(TaskMet, **{"metric": metric, "metric_optimizer": optax.sgd(LR), "warmup": 0, **parts})


def start(method: Method) -> tuple[Learner, Transitions]:
    """A learner at no special point, and steps that its model predicts but for noise."""
    shapes = jax.eval_shape(method.init, jax.random.key(0))
    learner = Learner(
        model=Trained(draw(shapes.model.params, 1, mean=0.5, scale=0.5), shapes.model.opt_state),
        critic=Trained(draw(shapes.critic.params, 2), shapes.critic.opt_state),
        target_params=draw(shapes.target_params, 3),
        metric=Trained(draw(shapes.metric.params, 4, mean=0.5, scale=0.4), shapes.metric.opt_state),
    )
    like = np.zeros((BATCH, N))
    observation, noise = draw(like, 5), draw(like, 6, scale=0.4)
    action = jnp.eye(M)[np.arange(BATCH) % M]
    batch = Transitions(
        observation=observation,
        action=action,
        reward=draw(like[:, 0], 7),
        terminated=jnp.array(np.arange(BATCH) % 7 == 0, dtype=float),
        next_observation=method.model.next_observation(learner.model.params.dynamics, observation, action) + noise,
    )
    return learner, batch


def newton(gradient: Callable[[PyTree], PyTree], start: PyTree, steps: int) -> PyTree:
    """A root of `gradient` near `start`."""
    flat, unravel = ravel_pytree(start)

    def flat_gradient(x: jax.Array) -> jax.Array:
        return ravel_pytree(gradient(unravel(x)))[0]

    def step(_: int, x: jax.Array) -> jax.Array:
        return x - jnp.linalg.solve(jax.jacfwd(flat_gradient)(x), flat_gradient(x))

    return unravel(jax.lax.fori_loop(0, steps, step, flat))


def weighted_loss(dynamics: PyTree, matrices: jax.Array, batch: Transitions) -> jax.Array:
    """L_pred of `Mixing` with Λ of every sample given as (batch, n, n)."""
    error = Mixing().next_observation(dynamics, batch.observation, batch.action) - batch.next_observation
    return jnp.mean(jnp.einsum("bi,bij,bj->b", error, matrices, error))


@jax.jit
def theta_star(start: PyTree, matrices: jax.Array, batch: Transitions) -> PyTree:
    """argmin_θ L_pred; mild noise lets Newton's method start where the data come from."""
    return newton(lambda dynamics: jax.grad(weighted_loss)(dynamics, matrices, batch), start, steps=12)


@jax.jit
def task_loss(target_params: PyTree, theta: ModelParams, batch: Transitions) -> tuple[jax.Array, PyTree]:
    """L_task(ω*(θ)) and ω* = argmin_ω L_Q(ω, θ), which is quadratic: one Newton step, and one for rounding."""
    imagined = batch._replace(
        reward=Mixing().reward(theta.reward, batch.observation, batch.action),
        next_observation=Mixing().next_observation(theta.dynamics, batch.observation, batch.action),
    )
    omega = newton(lambda omega: jax.grad(CRITIC.loss)(omega, target_params, imagined), target_params, steps=2)
    return CRITIC.loss(omega, target_params, batch), omega
