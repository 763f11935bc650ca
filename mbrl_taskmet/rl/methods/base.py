"""What all methods share: the learner's state, the critic's step and the model's step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mbrl_taskmet.core.optimizers import Trained, step
from mbrl_taskmet.core.settings import group
from mbrl_taskmet.rl.critics import Bootstrap, Critic
from mbrl_taskmet.rl.environment import Environment
from mbrl_taskmet.rl.model import Model, ModelParams, ModelSettings
from mbrl_taskmet.rl.normalization import Moments, deviation, include, normalize
from mbrl_taskmet.rl.replay import Transitions
from mbrl_taskmet.rl.rollout import rollout

PyTree = Any


class Learner(NamedTuple):
    """All learned state; () where a method has no metric, or observations are not normalised."""

    model: Trained  # θ
    critic: Any  # ω, ω̄ and whatever else the critic learns
    metric: Trained  # φ; VEP keeps its frozen values here
    moments: Moments | tuple[()] = ()  # of the observations, which networks see normalised

    def normalized(self, observation: Float[Array, "*batch n"]) -> Float[Array, "*batch n"]:
        """An environment's observation (..., n) as the networks see it."""
        return normalize(self.moments, observation) if self.moments else observation

    @property
    def scale(self) -> jax.Array | float:
        """The units (n,) of a normalised observation, in the environment's."""
        return deviation(self.moments) if self.moments else 1.0

    def observe(self, observation: Float[Array, " n"]) -> Learner:
        """The learner after one more observation (n,) of the environment."""
        return self._replace(moments=include(self.moments, observation)) if self.moments else self

    def normalized_batch(self, batch: Transitions) -> Transitions:
        """A batch of the replay as the networks see it."""
        return batch._replace(
            observation=self.normalized(batch.observation), next_observation=self.normalized(batch.next_observation)
        )


@dataclass(frozen=True, kw_only=True)
class MethodSettings:
    """The settings of a method; a subclass for each."""

    def make(self, env: Environment, critic: Critic) -> Method:
        """The method of these settings, for an environment and a critic."""
        raise NotImplementedError(f"{type(self).__name__} does not say which method it makes")

    def notice(self, steps: int) -> str | None:
        """What a user of a run of so many environment steps would want to know before it starts, in a sentence."""
        del steps
        return None


@dataclass(frozen=True, kw_only=True)
class ModelBased(MethodSettings):
    """The settings of a method that learns a model."""

    model: ModelSettings = group(ModelSettings)


@dataclass(frozen=True)
class Method:
    """A method of training the model. Subclasses implement `update`; those with a metric also extend `init`.

    Attributes:
        settings: the method's own.
        model, critic: what is learned, each with its losses and its optimiser.
    """

    settings: Any
    model: Model
    critic: Critic

    def init(self, key: jax.Array) -> Learner:
        """A new learner. `key` is consumed."""
        model_key, critic_key = jax.random.split(key)
        model = self.model.init(model_key)
        return Learner(
            model=Trained(model, self.model.optimizer.init(model)),
            critic=self.critic.init(critic_key),
            metric=Trained((), ()),
        )

    def update(self, learner: Learner, batch: Transitions, step: jax.Array, key: jax.Array) -> Learner:
        """One update of every level on one batch.

        Args:
            learner: what is learned so far.
            batch: transitions as the networks see them.
            step: the environment step, an int scalar, the same for all seeds.
            key: for what is random in the critic's losses; consumed.
        """
        raise NotImplementedError(f"{type(self).__name__} does not say how it updates")

    def critic_of(self, learner: Learner) -> Critic:
        """The critic as it sees observations, which may depend on what is learned."""
        del learner
        return self.critic

    def act(
        self, learner: Learner, key: jax.Array, observation: jax.Array,
        explore: jax.Array | bool = False, random: jax.Array | bool = False,
    ) -> jax.Array:  # fmt: skip
        """The critic's action for an observation (n,) of the environment. `key` is consumed."""
        return self.critic_of(learner).act(learner.critic, key, learner.normalized(observation), explore, random)

    def residual(self, learner: Learner, batch: Transitions, step: jax.Array, key: jax.Array) -> Float[Array, ""] | None:
        """‖Hu − g‖/‖g‖ of the method's implicit solve, NaN where it takes none at `step`; None for a method without one."""
        del learner, batch, step, key
        return None

    def metric_diagonal(self, learner: Learner, batch: Transitions) -> Float[Array, " n"] | None:
        """The mean over the batch of Λ's diagonal (n,), or None for a method without a metric."""
        del learner, batch
        return None

    def diagnose(
        self, learner: Learner, batch: Transitions, state_of: Callable[[jax.Array], jax.Array], step: jax.Array, key: jax.Array
    ) -> dict[str, jax.Array | None]:
        """What a report at `step` says of a batch of the replay, by the names in `Report`.

        `state_of` takes the task's own dimensions out of observations, as an environment's does. `key` is consumed.
        """
        batch = learner.normalized_batch(batch)
        error = self.prediction_error(learner.model.params.dynamics, batch) * learner.scale
        critic = self.critic_of(learner)
        bootstrap = critic.bootstrap(learner.critic, key)
        imagined = self.rollout(learner, learner.model.params, batch, bootstrap)
        return {
            "model_mse": jnp.sum(jnp.mean(error**2, axis=0)),
            "model_mse_state": jnp.sum(jnp.mean(state_of(error) ** 2, axis=0)),
            "task_loss": critic.task_loss(learner.critic.params, bootstrap, batch),
            "q_loss": critic.loss(learner.critic.params, bootstrap, imagined),
            "residual": self.residual(learner, batch, step, key),
            "metric_diagonal": self.metric_diagonal(learner, batch),
        }

    def imagine(self, params: ModelParams, batch: Transitions) -> Transitions:
        """The batch with the model's reward and next observation; terminations stay the data's."""
        return batch._replace(
            reward=self.model.reward(params.reward, batch.observation, batch.action),
            next_observation=self.model.next_observation(params.dynamics, batch.observation, batch.action),
        )

    def rollout(self, learner: Learner, params: ModelParams, batch: Transitions, bootstrap: Bootstrap) -> Transitions:
        """The transitions that the critic is trained on, imagined by a model θ = `params`; `imagine`'s where H is 1."""
        return rollout(self.model, self.critic_of(learner), params, bootstrap, batch, learner.moments)

    def prediction_error(self, dynamics: PyTree, batch: Transitions) -> Float[Array, "batch n"]:
        """ŝ' − s' of shape (batch, n)."""
        return self.model.next_observation(dynamics, batch.observation, batch.action) - batch.next_observation

    def reward_loss(self, reward: PyTree, batch: Transitions) -> Float[Array, ""]:
        """E(r̂ − r)²: the reward network's own least squares, which no metric weighs."""
        return jnp.mean((self.model.reward(reward, batch.observation, batch.action) - batch.reward) ** 2)

    def fit_model(self, learner: Learner, batch: Transitions, next_observation_loss: Callable[[PyTree], jax.Array]) -> Learner:
        """One step on `next_observation_loss`(dynamics parameters) + E(r̂ − r)²."""

        def loss(params: ModelParams) -> jax.Array:
            return next_observation_loss(params.dynamics) + self.reward_loss(params.reward, batch)

        return self.step_model(learner, batch, jax.grad(loss)(learner.model.params))

    def step_model(self, learner: Learner, batch: Transitions, gradient: ModelParams) -> Learner:
        """One step of the model along `gradient`; what predicts terminations is always fitted to the batch by likelihood."""
        ends = jax.grad(self.model.termination_loss)(learner.model.params.termination, batch)
        gradient = gradient._replace(termination=ends)
        return learner._replace(model=step(self.model.optimizer, learner.model, gradient))

    def fit_critic(self, learner: Learner, batch: Transitions, key: jax.Array) -> Learner:
        """One step of the critic, its L_Q(ω, θ) on the model's predictions. `key` is consumed."""
        bootstrap_key, critic_key = jax.random.split(key)
        critic = self.critic_of(learner)
        bootstrap = critic.bootstrap(learner.critic, bootstrap_key)
        imagined = self.rollout(learner, learner.model.params, batch, bootstrap)
        return learner._replace(critic=critic.update(learner.critic, bootstrap, imagined, batch, critic_key))
