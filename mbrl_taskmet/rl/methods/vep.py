"""VEP: the model is to be value-equivalent, for values drawn at random and frozen.

    θ ← θ − η ∂_θ [ Σ_i E (V_i(f_θ(s,a)) − V_i(s'))² + E (r_θ(s,a) − r)² ],      V_1 … V_5 random networks

The value equivalence principle of Grimm, Barreto, Singh, Silver (NeurIPS 2020), as the second baseline of Nikishin et al.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from typing_extensions import override

from mbrl_taskmet.core.networks import MLP, apply
from mbrl_taskmet.core.optimizers import Trained
from mbrl_taskmet.rl.critics import Critic
from mbrl_taskmet.rl.environment import Environment
from mbrl_taskmet.rl.methods.base import Learner, Method, ModelBased, PyTree
from mbrl_taskmet.rl.replay import Transitions

VALUES = 5
_NETWORK = MLP((32, 32), outputs=1, last_scale=1.0)  # not the papers' 0.01: these values are to be told apart, not learned


@dataclass(frozen=True, kw_only=True)
class VEPSettings(ModelBased):
    """VEP has no settings of its own."""

    @override
    def make(self, env: Environment, critic: Critic) -> VEP:
        return VEP(self, self.model.make(env), critic)


class VEP(Method):
    """Model step, critic step, target step. The learner's `metric` holds the frozen values, each seed's own."""

    @override
    def init(self, key: jax.Array) -> Learner:
        rest, values_key = jax.random.split(key)
        learner = super().init(rest)
        inputs = jnp.zeros(self.model.observation_size)
        # one after the other: see `SoftQ.init`
        values = jax.lax.map(lambda k: _NETWORK.init(k, inputs), jax.random.split(values_key, VALUES))
        return learner._replace(metric=Trained(values, ()))

    @override
    def update(self, learner: Learner, batch: Transitions, step: jax.Array, key: jax.Array) -> Learner:
        learner = self.fit_model(learner, batch, lambda dynamics: self.loss(dynamics, learner.metric.params, batch))
        return self.fit_critic(learner, batch, key)

    def loss(self, dynamics: PyTree, values: PyTree, batch: Transitions) -> jax.Array:
        """Σ_i E (V_i(ŝ') − V_i(s'))², scalar."""

        def value(observation: jax.Array) -> jax.Array:
            return jax.vmap(lambda params: apply(_NETWORK, params, observation)[..., 0])(values)

        imagined = self.model.next_observation(dynamics, batch.observation, batch.action)
        return jnp.sum(jnp.mean((value(imagined) - value(batch.next_observation)) ** 2, axis=-1))
