"""MLE: the model is fitted by least squares, whatever it is used for.

    θ ← θ − η ∂_θ E[ ‖f_θ(s,a) − s'‖² + (r_θ(s,a) − r)² ]

The baseline of both papers: Nikishin et al. (2022), section 4; TaskMet, section 4.3.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from typing_extensions import override

from mbrl_taskmet.rl.critics import Critic
from mbrl_taskmet.rl.environment import Environment
from mbrl_taskmet.rl.methods.base import Learner, Method, ModelBased
from mbrl_taskmet.rl.replay import Transitions


@dataclass(frozen=True, kw_only=True)
class MLESettings(ModelBased):
    """MLE has no settings of its own."""

    @override
    def make(self, env: Environment, critic: Critic) -> MLE:
        return MLE(self, self.model.make(env), critic)


class MLE(Method):
    """Model step, critic step, target step."""

    @override
    def update(self, learner: Learner, batch: Transitions, step: jax.Array, key: jax.Array) -> Learner:
        def squared_error(dynamics: object) -> jax.Array:
            return jnp.mean(jnp.sum(self.prediction_error(dynamics, batch) ** 2, axis=-1))

        learner = self.fit_model(learner, batch, squared_error)
        return self.fit_critic(learner, batch, key)
