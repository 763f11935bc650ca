"""What every way of learning the model shares: the learner's state, the critic's step and the model's step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from mbrl_taskmet.critics import SoftQ
from mbrl_taskmet.networks import Model, ModelParams
from mbrl_taskmet.normalization import Moments, deviation, include, normalize
from mbrl_taskmet.replay import Transitions

PyTree = Any


class Trained(NamedTuple):
    """Parameters and the state of the optimiser that moves them."""

    params: PyTree
    opt_state: PyTree


class Learner(NamedTuple):
    """Everything that is learned; () where a method has no metric, or observations are left as they are."""

    model: Trained  # θ
    critic: Trained  # ω
    target_params: PyTree  # ω̄
    metric: Trained  # φ; VEP keeps its frozen values here
    moments: Moments | tuple[()] = ()  # of the observations, which networks see normalised

    def normalized(self, observation: jax.Array) -> jax.Array:
        """An environment's observation (..., n) as the networks see it."""
        return normalize(self.moments, observation) if self.moments else observation

    @property
    def scale(self) -> jax.Array | float:
        """The units (n,) of a normalised observation, in the environment's."""
        return deviation(self.moments) if self.moments else 1.0

    def observe(self, observation: jax.Array) -> Learner:
        """The learner after one more observation (n,) of the environment."""
        return self._replace(moments=include(self.moments, observation)) if self.moments else self

    def normalized_batch(self, batch: Transitions) -> Transitions:
        """A batch of the replay as the networks see it."""
        return batch._replace(
            observation=self.normalized(batch.observation), next_observation=self.normalized(batch.next_observation)
        )


class Info(NamedTuple):
    """What one update reports. NaN where the method, or this update, has no such quantity."""

    residual: jax.Array  # ‖Hu − g‖/‖g‖ of the method's implicit solve


def step(optimizer: optax.GradientTransformation, trained: Trained, gradient: PyTree) -> Trained:
    """One step of `optimizer` along `gradient`."""
    updates, opt_state = optimizer.update(gradient, trained.opt_state, trained.params)
    return Trained(optax.apply_updates(trained.params, updates), opt_state)


@dataclass(frozen=True)
class Method:
    """A way of learning the model. Subclasses implement `update`; those with a metric also extend `init`.

    model, critic: the networks and their losses.
    model_optimizer, critic_optimizer: optax transformations.
    tau: τ of the target's moving average ω̄ ← τω + (1 − τ)ω̄.
    policy: whose values actions follow, the critic's ω or its moving average's ω̄, which is steadier.
    """

    model: Model
    critic: SoftQ
    model_optimizer: optax.GradientTransformation
    critic_optimizer: optax.GradientTransformation
    tau: float
    policy: Literal["critic", "target"] = "critic"

    def init(self, key: jax.Array) -> Learner:
        """A new learner. `key` is consumed."""
        model_key, critic_key = jax.random.split(key)
        model, critic = self.model.init(model_key), self.critic.init(critic_key)
        return Learner(
            model=Trained(model, self.model_optimizer.init(model)),
            critic=Trained(critic, self.critic_optimizer.init(critic)),
            target_params=jax.tree.map(jnp.copy, critic),
            metric=Trained((), ()),
        )

    def update(self, learner: Learner, batch: Transitions, step: jax.Array) -> tuple[Learner, Info]:
        """One update of every level on one batch, at environment step `step` (int scalar, the same for all seeds)."""
        raise NotImplementedError(f"{type(self).__name__} does not say how it updates")

    def act(self, learner: Learner, key: jax.Array, observation: jax.Array, epsilon: jax.Array | float = 0.0) -> jax.Array:
        """The action, ε-greedy, for an observation (n,) of the environment. `key` is consumed."""
        params = learner.target_params if self.policy == "target" else learner.critic.params
        return self.critic.act(params, key, learner.normalized(observation), epsilon)

    def metric_diagonal(self, learner: Learner, batch: Transitions) -> jax.Array | None:
        """The mean over the batch of Λ's diagonal (n,), or None for a method without a metric."""
        del learner, batch
        return None

    def diagnose(self, learner: Learner, batch: Transitions, state_size: int) -> dict[str, jax.Array | None]:
        """What a report says of a batch of the replay, by the names in `Report`; `state_size` dimensions are real."""
        batch = learner.normalized_batch(batch)
        squared = jnp.mean(self.prediction_error(learner.model.params.dynamics, batch) ** 2, axis=0) * learner.scale**2
        imagined = self.imagine(learner.model.params, batch)
        return {
            "model_mse": jnp.sum(squared),
            "model_mse_state": jnp.sum(squared[:state_size]),
            "task_loss": self.critic.loss(learner.critic.params, learner.target_params, batch),
            "q_loss": self.critic.loss(learner.critic.params, learner.target_params, imagined),
            "metric_diagonal": self.metric_diagonal(learner, batch),
        }

    def imagine(self, params: ModelParams, batch: Transitions) -> Transitions:
        """The batch with the model's reward and next observation; terminations stay the data's."""
        return batch._replace(
            reward=self.model.reward(params.reward, batch.observation, batch.action),
            next_observation=self.model.next_observation(params.dynamics, batch.observation, batch.action),
        )

    def prediction_error(self, dynamics: PyTree, batch: Transitions) -> jax.Array:
        """ŝ' − s' of shape (batch, n)."""
        return self.model.next_observation(dynamics, batch.observation, batch.action) - batch.next_observation

    def reward_loss(self, reward: PyTree, batch: Transitions) -> jax.Array:
        """E(r̂ − r)²: the reward network's own least squares, which no metric weighs."""
        return jnp.mean((self.model.reward(reward, batch.observation, batch.action) - batch.reward) ** 2)

    def fit_model(self, learner: Learner, batch: Transitions, next_observation_loss: Callable[[PyTree], jax.Array]) -> Learner:
        """One step on `next_observation_loss`(dynamics parameters) + E(r̂ − r)²."""

        def loss(params: ModelParams) -> jax.Array:
            return next_observation_loss(params.dynamics) + self.reward_loss(params.reward, batch)

        gradient = jax.grad(loss)(learner.model.params)
        return learner._replace(model=step(self.model_optimizer, learner.model, gradient))

    def fit_critic(self, learner: Learner, batch: Transitions) -> Learner:
        """One step on L_Q(ω, θ), the Bellman error against the model's predictions, then one of the target's average."""
        imagined = self.imagine(learner.model.params, batch)
        gradient = jax.grad(self.critic.loss)(learner.critic.params, learner.target_params, imagined)
        critic = step(self.critic_optimizer, learner.critic, gradient)
        target = optax.incremental_update(critic.params, learner.target_params, self.tau)
        return learner._replace(critic=critic, target_params=target)
