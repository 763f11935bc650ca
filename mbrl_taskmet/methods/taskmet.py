"""TaskMet: the model is fitted to its predictions' squared error under a metric, and the metric to the task.

    θ*(φ) = argmin_θ E‖f_θ(s,a) − s'‖²_Λφ,      φ ← φ − η ∂_φ [ L_task(ω*(θ*(φ))) + λ₁ E Σ_ij |Λ_ij| ]

      g = ∂_θ L_task(ω*(θ))                       through the critic, as in OMD
      H_pred u = g                                 H_pred = ∂²_θ L_pred, in the next-observation parameters alone
      ∂_φ L_task = − ∂_φ ⟨∂_θ L_pred(θ*, φ), u⟩

Bansal, Chen, Mukadam, Amos (NeurIPS 2023), Algorithm 1 and eqs. 11–12. The reward network has no metric: its block of H_pred
does not enter.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import optax

from mbrl_taskmet.implicit import implicit_vjp
from mbrl_taskmet.linear_solve import Identity, Minres, Solution, Solver
from mbrl_taskmet.methods import base
from mbrl_taskmet.methods.base import Info, Learner, Method, PyTree, Trained
from mbrl_taskmet.methods.omd import task_gradient
from mbrl_taskmet.metric import Metric
from mbrl_taskmet.replay import Transitions


@dataclass(frozen=True, kw_only=True)
class TaskMet(Method):
    """Model step under the metric, critic step, target step, then one metric step through both levels.

    metric, metric_optimizer: Λ_φ and what moves φ.
    solver, critic_solver: for H_pred and for H_Q.
    l1: coefficient λ₁ of the metric's L1 penalty.
    warmup: environment steps before the metric moves.
    every: the metric moves at every so many environment steps (the inner steps K of Algorithm 1).
    """

    metric: Metric
    metric_optimizer: optax.GradientTransformation
    solver: Solver = field(default_factory=Minres)
    critic_solver: Solver = field(default_factory=Identity)
    l1: float = 0.0
    warmup: int = 5000
    every: int = 1

    def init(self, key: jax.Array) -> Learner:
        rest, metric_key = jax.random.split(key)
        params = self.metric.init(metric_key)
        return super().init(rest)._replace(metric=Trained(params, self.metric_optimizer.init(params)))

    def update(self, learner: Learner, batch: Transitions, step: jax.Array) -> tuple[Learner, Info]:
        learner = self.fit_model(learner, batch, lambda dynamics: self.loss(dynamics, learner.metric.params, batch))
        learner = self.fit_critic(learner, batch)
        # The same for all seeds, so under `vmap` this stays a branch and a skipped solve costs nothing.
        due = (step >= self.warmup) & (step % self.every == 0)
        metric, residual = jax.lax.cond(
            due,
            lambda: self._metric_step(learner, batch),
            lambda: (learner.metric, jnp.array(jnp.nan)),
        )
        return learner._replace(metric=metric), Info(residual=residual)

    def loss(self, dynamics: PyTree, metric_params: PyTree, batch: Transitions) -> jax.Array:
        """L_pred(θ, φ) of the next observation (eq. 3)."""
        error = self.prediction_error(dynamics, batch)
        return self.metric.loss(metric_params, batch.observation, batch.action, error)

    def metric_gradient(self, learner: Learner, batch: Transitions) -> tuple[PyTree, Solution]:
        """∂L_task/∂φ through both levels, and the solve with H_pred."""
        cotangent, _ = task_gradient(self, learner, batch, self.critic_solver)

        def loss(prediction: jax.Array, params: PyTree) -> jax.Array:
            return self.metric.loss(params, batch.observation, batch.action, prediction - batch.next_observation)

        return implicit_vjp(
            predict=lambda dynamics: self.model.next_observation(dynamics, batch.observation, batch.action),
            loss=loss,
            solution=learner.model.params.dynamics,
            parameters=learner.metric.params,
            cotangent=cotangent.dynamics,
            solver=self.solver,
        )

    def metric_diagonal(self, learner: Learner, batch: Transitions) -> jax.Array:
        matrices = self.metric.batch(learner.metric.params, batch.observation, batch.action)
        return jnp.mean(jax.vmap(self.metric.diagonal)(matrices), axis=0)

    def _metric_step(self, learner: Learner, batch: Transitions) -> tuple[Trained, jax.Array]:
        gradient, solved = self.metric_gradient(learner, batch)
        if self.l1:
            penalty = jax.grad(self.metric.l1)(learner.metric.params, batch.observation, batch.action)
            gradient = jax.tree.map(lambda g, p: g + self.l1 * p, gradient, penalty)
        return base.step(self.metric_optimizer, learner.metric, gradient), solved.residual
