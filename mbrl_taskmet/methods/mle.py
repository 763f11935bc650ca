"""MLE: the model is fitted by least squares, whatever it is used for.

    θ ← θ − η ∂_θ E[ ‖f_θ(s,a) − s'‖² + (r_θ(s,a) − r)² ]

The baseline of both papers: Nikishin et al. (2022), section 4; TaskMet, section 4.3.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from mbrl_taskmet.methods.base import Info, Learner, Method
from mbrl_taskmet.replay import Transitions


class MLE(Method):
    """Model step, critic step, target step."""

    def update(self, learner: Learner, batch: Transitions, step: jax.Array) -> tuple[Learner, Info]:
        def squared_error(dynamics: object) -> jax.Array:
            return jnp.mean(jnp.sum(self.prediction_error(dynamics, batch) ** 2, axis=-1))

        learner = self.fit_model(learner, batch, squared_error)
        return self.fit_critic(learner, batch), Info(residual=jnp.array(jnp.nan))
