"""OMD: the model is trained to make the critic that it induces good on real transitions.

    θ ← θ − η ∂_θ L_task(ω*(θ)),      ∂_θ L_task = − ∂_θ ⟨∂_ω L_Q(ω*, θ), H_Q⁻¹ ∂_ω L_task(ω*)⟩

Nikishin, Abachi, Agarwal, Bacon (AAAI 2022), section 3, with the inverse Hessian of the critic's loss approximated by the
identity unless another solver is given.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import jax

from mbrl_taskmet.implicit import implicit_vjp
from mbrl_taskmet.linear_solve import Identity, Solution, Solver
from mbrl_taskmet.methods import base
from mbrl_taskmet.methods.base import Info, Learner, Method
from mbrl_taskmet.networks import ModelParams
from mbrl_taskmet.replay import Transitions


def task_gradient(method: Method, learner: Learner, batch: Transitions, solver: Solver) -> tuple[ModelParams, Solution]:
    """∂L_task/∂θ through the critic that the model induces, and the solve with H_Q. The first of TaskMet's two levels."""
    critic, omega, target_params = method.critic, learner.critic.params, learner.target_params
    cotangent = jax.grad(critic.loss)(omega, target_params, batch)
    return implicit_vjp(
        predict=lambda params: critic.predict(params, batch),
        loss=lambda values, theta: critic.error(values, critic.target(target_params, method.imagine(theta, batch))),
        solution=omega,
        parameters=learner.model.params,
        cotangent=cotangent,
        solver=solver,
    )


@dataclass(frozen=True)
class OMD(Method):
    """Critic step, target step, then one model step along the implicit gradient at the new critic."""

    critic_solver: Solver = field(default_factory=Identity)

    def update(self, learner: Learner, batch: Transitions, step: jax.Array) -> tuple[Learner, Info]:
        learner = self.fit_critic(learner, batch)
        gradient, solved = task_gradient(self, learner, batch, self.critic_solver)
        learner = learner._replace(model=base.step(self.model_optimizer, learner.model, gradient))
        return learner, Info(residual=solved.residual)
