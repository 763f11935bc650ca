"""VaGraM: the model is fitted under a metric made by hand from the critic's gradients.

    Λ(s') = mean_k diag(g_k²),   g_k = ∂V_k(s')/∂s',   V_k the soft value of each head of ω and of ω̄, g_k not differentiated
    θ ← θ − η ∂_θ [ E ‖f_θ(s,a) − s'‖²_Λ(s') + E (r_θ(s,a) − r)² ]

Voelcker, Liao, Garg, Farahmand, *Value Gradient weighted Model-Based Reinforcement Learning* (ICLR 2022), which averages over
dimensions where a metric sums: a factor n, to which Adam is blind. It is the linearisation of IterVAML's loss around s'.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from typing_extensions import override

from mbrl_taskmet.core.metric import prediction_loss
from mbrl_taskmet.rl.critics import Critic
from mbrl_taskmet.rl.environment import Environment
from mbrl_taskmet.rl.methods.base import Learner, Method, ModelBased, PyTree
from mbrl_taskmet.rl.replay import Transitions


@dataclass(frozen=True, kw_only=True)
class VaGraMSettings(ModelBased):
    """VaGraM has no settings of its own."""

    @override
    def make(self, env: Environment, critic: Critic) -> VaGraM:
        return VaGraM(self, self.model.make(env), critic)


class VaGraM(Method):
    """Model step under the critic's metric, critic step, target step."""

    @override
    def update(self, learner: Learner, batch: Transitions, step: jax.Array, key: jax.Array) -> Learner:
        metric = self.metric(learner, batch)
        learner = self.fit_model(
            learner, batch, lambda dynamics: prediction_loss(metric, self.prediction_error(dynamics, batch))
        )
        return self.fit_critic(learner, batch, key)

    def metric(self, learner: Learner, batch: Transitions) -> jax.Array:
        """The diagonal of Λ(s') for every row, (batch, n)."""

        def gradients(params: PyTree) -> jax.Array:
            values = jax.jacrev(lambda s: self.critic.head_values(params, learner.critic, s))
            return jax.vmap(values)(batch.next_observation)

        both = jnp.concatenate([gradients(learner.critic.params), gradients(learner.critic.target_params)], axis=1)
        return jnp.mean(both**2, axis=1)

    @override
    def metric_diagonal(self, learner: Learner, batch: Transitions) -> jax.Array:
        return jnp.mean(self.metric(learner, batch), axis=0)
