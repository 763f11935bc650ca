"""IterVAML: the model's next state is to have the value of the real one, under the critic of the moment.

    θ ← θ − η ∂_θ [ E (V_ω̄(f_θ(s,a)) − V_ω̄(s'))² + E (r_θ(s,a) − r)² ]

Farahmand, *Iterative Value-Aware Model Learning* (NeurIPS 2018), with the value V_ω̄ that the critic's own targets take.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from typing_extensions import override

from mbrl_taskmet.rl.critics import Bootstrap, Critic
from mbrl_taskmet.rl.environment import Environment
from mbrl_taskmet.rl.methods.base import Learner, Method, ModelBased, PyTree
from mbrl_taskmet.rl.replay import Transitions


@dataclass(frozen=True, kw_only=True)
class IterVAMLSettings(ModelBased):
    """IterVAML has no settings of its own."""

    @override
    def make(self, env: Environment, critic: Critic) -> IterVAML:
        return IterVAML(self, self.model.make(env), critic)


class IterVAML(Method):
    """Model step, critic step, target step."""

    @override
    def update(self, learner: Learner, batch: Transitions, step: jax.Array, key: jax.Array) -> Learner:
        bootstrap_key, critic_key = jax.random.split(key)
        bootstrap = self.critic.bootstrap(learner.critic, bootstrap_key)
        learner = self.fit_model(learner, batch, lambda dynamics: self.loss(dynamics, bootstrap, batch))
        return self.fit_critic(learner, batch, critic_key)

    def loss(self, dynamics: PyTree, bootstrap: Bootstrap, batch: Transitions) -> jax.Array:
        """E (V_ω̄(ŝ') − V_ω̄(s'))², scalar."""
        imagined = self.model.next_observation(dynamics, batch.observation, batch.action)
        difference = self.critic.value(bootstrap, imagined) - self.critic.value(bootstrap, batch.next_observation)
        return jnp.mean(difference**2)
