"""Model-free: the critic is trained on the real transitions, as if the model were perfect.

    ω ← ω − η ∂_ω E[ (Q_ω(s,a) − (r + γ·V_ω̄(s')))² ]

Soft double Q-learning itself (TaskMet eqs. 9–10; Haarnoja et al. 2017): what a perfect one-step model would give the
critic. No model is learned: it has no parameters, and its error is NaN.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import optax
from typing_extensions import override

from mbrl_taskmet.rl.critics import Bootstrap, Critic
from mbrl_taskmet.rl.environment import Environment
from mbrl_taskmet.rl.methods.base import Learner, Method, MethodSettings, PyTree
from mbrl_taskmet.rl.model import Model, ModelParams
from mbrl_taskmet.rl.replay import Transitions


class NoModel(Model):
    """Has no parameters and predicts nothing: NaN."""

    def __init__(self, observation_size: int) -> None:
        self.observation_size, self.optimizer = observation_size, optax.set_to_zero()

    @override
    def init(self, key: jax.Array) -> ModelParams:
        return ModelParams((), ())

    @override
    def next_observation(self, params: PyTree, observation: jax.Array, action: jax.Array) -> jax.Array:
        return jnp.full_like(observation, jnp.nan)

    @override
    def reward(self, params: PyTree, observation: jax.Array, action: jax.Array) -> jax.Array:
        return jnp.full_like(observation[..., 0], jnp.nan)


@dataclass(frozen=True, kw_only=True)
class ModelFreeSettings(MethodSettings):
    """There is no model to set."""

    @override
    def make(self, env: Environment, critic: Critic) -> ModelFree:
        return ModelFree(self, NoModel(env.observation_size), critic)


class ModelFree(Method):
    """Critic step, target step."""

    @override
    def update(self, learner: Learner, batch: Transitions, step: jax.Array, key: jax.Array) -> Learner:
        return self.fit_critic(learner, batch, key)

    @override
    def rollout(self, learner: Learner, params: ModelParams, batch: Transitions, bootstrap: Bootstrap) -> Transitions:
        return batch  # the data, in the place of a model's predictions
