"""A problem small enough to re-solve exactly at every level, for the methods' tests."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree

from mbrl_taskmet.core.metric import INPUTS, METRICS, Metric
from mbrl_taskmet.core.optimizers import Trained
from mbrl_taskmet.rl.critics import SoftQ, SoftQSettings
from mbrl_taskmet.rl.critics.soft_q import SoftQBootstrap
from mbrl_taskmet.rl.environment import Environment
from mbrl_taskmet.rl.methods import Learner, Method, MethodSettings
from mbrl_taskmet.rl.methods.taskmet import TaskMet, TaskMetSettings
from mbrl_taskmet.rl.model import Model, ModelParams
from mbrl_taskmet.rl.replay import Transitions
from mbrl_taskmet.rl.spaces import ActionSpace, Discrete

PyTree = Any
N, M, BATCH, LR, TAU = 2, 2, 32, 0.1, 0.2


class Sizes(Environment):
    """An environment's sizes alone."""

    def __init__(self, observation_size: int, action_space: ActionSpace):
        self.state_names, self.action_space = ("x",) * observation_size, action_space


SIZES = Sizes(N, Discrete(M))

# Linear heads: ω* is a linear regression. A warm temperature keeps third derivatives, and so differencing errors, small.
CRITIC_SETTINGS = SoftQSettings(
    temperature=0.5, discount=0.9, tau=TAU, policy="critic", layer_norm=False, sparsity=0.0, epsilon=0.0
)


def make_critic(settings: SoftQSettings = CRITIC_SETTINGS) -> SoftQ:
    """A critic of linear heads whose steps are plain gradient descent."""
    critic = SoftQ(N, Discrete(M), settings, layers=0)
    critic.optimizer = optax.sgd(LR)
    return critic


CRITIC = make_critic()
KEY = jax.random.key(0)


class Mixing(Model):
    """ŝ' = z (½, −1) + gain · sin(z), z = [s, a]·w: both outputs share z, so θ* depends on all metrics but constant scalars."""

    def __init__(self) -> None:
        self.observation_size, self.optimizer = N, optax.sgd(LR)

    def init(self, key: jax.Array) -> ModelParams:
        return ModelParams({"weights": jax.random.normal(key, (N + M,)), "gain": jnp.ones(N)}, jnp.zeros(N + M))

    def next_observation(self, params: PyTree, observation: jax.Array, action: jax.Array) -> jax.Array:
        z = (jnp.concatenate([observation, action], axis=-1) @ params["weights"])[..., None]
        return z * jnp.array([0.5, -1.0]) + params["gain"] * jnp.sin(z)

    def reward(self, params: PyTree, observation: jax.Array, action: jax.Array) -> jax.Array:
        return jnp.concatenate([observation, action], axis=-1) @ params


@dataclass(frozen=True, kw_only=True)
class DescendingTaskMet(TaskMetSettings):
    """TaskMet whose metric moves from the start, at every step, by plain gradient descent."""

    metric_warmup: int = 0
    metric_every: int = 1

    @property
    def metric_optimizer(self) -> optax.GradientTransformation:
        return optax.sgd(LR)


def bootstrap_of(learner: Learner) -> SoftQBootstrap:
    """What the critic's losses of an update take; nothing is drawn from its key where rollouts have one step."""
    return CRITIC.bootstrap(learner.critic, KEY)


def draw(tree: PyTree, seed: int, mean: float = 0.0, scale: float = 1.0) -> PyTree:
    """Normal numbers in the shapes of `tree`, in the default precision: parameters at no special point."""
    normal = np.random.default_rng(seed).normal
    return jax.tree.map(lambda x: jnp.array(normal(mean, scale, x.shape), dtype=float), tree)


def make(settings: MethodSettings, model: Model | None = None, critic: SoftQ = CRITIC) -> Any:
    """A method whose steps are plain gradient descent, of `Mixing` unless another model is given."""
    return dataclasses.replace(settings.make(SIZES, critic), model=Mixing() if model is None else model)


def make_taskmet(metric: Metric, **parts: Any) -> TaskMet:
    return make(DescendingTaskMet(metric=metric, **parts))


def make_metric(kind: str = "diagonal", input: str = "none", hidden: tuple[int, ...] = (32, 32), **more: Any) -> Metric:
    """A metric by the names of its kind and input; normalised, without a floor, unless `more` says otherwise."""
    conditional = {} if input == "none" else {"hidden": hidden}
    return METRICS[kind](**{"input": INPUTS[input](**conditional), "normalize": True, "floor": 0.0, **more})


def start(method: Method) -> tuple[Learner, Transitions]:
    """A learner at no special point, and steps that its model predicts but for noise."""
    shapes = jax.eval_shape(method.init, jax.random.key(0))
    critic = shapes.critic
    learner = Learner(
        model=Trained(draw(shapes.model.params, 1, mean=0.5, scale=0.5), shapes.model.opt_state),
        critic=critic._replace(params=draw(critic.params, 2), target_params=draw(critic.target_params, 3)),
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


def traced(record: Any, **numbers: jax.Array) -> Any:
    """Settings with numbers that are arrays, past the check of types in their constructor: a test then compiles once."""
    new = copy.copy(record)
    for name, value in numbers.items():
        object.__setattr__(new, name, value)
    return new


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
    bootstrap = SoftQBootstrap(target_params, KEY)
    omega = newton(lambda omega: jax.grad(CRITIC.loss)(omega, bootstrap, imagined), target_params, steps=2)
    return CRITIC.loss(omega, bootstrap, batch), omega
