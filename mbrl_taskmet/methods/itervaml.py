"""IterVAML: the model's next state is to have the value of the real one, under the critic of the moment.

    θ ← θ − η ∂_θ [ E (V_ω̄(f_θ(s,a)) − V_ω̄(s'))² + E (r_θ(s,a) − r)² ]

Farahmand, *Iterative Value-Aware Model Learning* (NeurIPS 2018), with the value V_ω̄ that the critic's own targets take.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from mbrl_taskmet.methods.base import Info, Learner, Method, PyTree
from mbrl_taskmet.replay import Transitions


class IterVAML(Method):
    """Model step, critic step, target step."""

    def update(self, learner: Learner, batch: Transitions, step: jax.Array) -> tuple[Learner, Info]:
        learner = self.fit_model(learner, batch, lambda dynamics: self.loss(dynamics, learner.target_params, batch))
        return self.fit_critic(learner, batch), Info(residual=jnp.array(jnp.nan))

    def loss(self, dynamics: PyTree, target_params: PyTree, batch: Transitions) -> jax.Array:
        """E (V_ω̄(ŝ') − V_ω̄(s'))², scalar."""
        imagined = self.model.next_observation(dynamics, batch.observation, batch.action)
        difference = self.critic.value(target_params, imagined) - self.critic.value(target_params, batch.next_observation)
        return jnp.mean(difference**2)
