"""OMD: the model is trained to make the critic that it induces good on real transitions.

    θ ← θ − η ∂_θ L_task(ω*(θ)),      ∂_θ L_task = − ∂_θ ⟨∂_ω L_Q(ω*, θ), H_Q⁻¹ ∂_ω L_task(ω*)⟩

Nikishin, Abachi, Agarwal, Bacon (AAAI 2022), section 3, with the inverse Hessian of the critic's loss approximated by the
identity unless another solver is given.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
from jaxtyping import Array, Float
from typing_extensions import override

from mbrl_taskmet.core.implicit import implicit_vjp
from mbrl_taskmet.core.linear_solve import SOLVERS, Solution, Solver
from mbrl_taskmet.core.settings import choice
from mbrl_taskmet.rl.critics import Bootstrap, Critic
from mbrl_taskmet.rl.environment import Environment
from mbrl_taskmet.rl.methods.base import Learner, Method, ModelBased
from mbrl_taskmet.rl.model import ModelParams
from mbrl_taskmet.rl.replay import Transitions


def task_gradient(
    method: Method, learner: Learner, batch: Transitions, bootstrap: Bootstrap, solver: Solver
) -> tuple[ModelParams, Solution]:
    """∂L_task/∂θ through the critic that the model induces, and the solve with H_Q. The first of TaskMet's two levels."""
    critic, omega, theta = method.critic_of(learner), learner.critic.params, learner.model.params
    cotangent = jax.grad(critic.task_loss)(omega, bootstrap, batch)
    imagined = method.rollout(learner, theta, batch, bootstrap)

    def loss(values: jax.Array, theta: ModelParams) -> jax.Array:
        return critic.error(values, critic.target(bootstrap, method.rollout(learner, theta, batch, bootstrap)))

    return implicit_vjp(
        predict=lambda params: critic.predict(params, imagined),
        loss=loss,
        solution=omega,
        parameters=theta,
        cotangent=cotangent,
        solver=solver,
    )


@dataclass(frozen=True, kw_only=True)
class ThroughCritic(ModelBased):
    """The settings of a method that differentiates through the critic: how the linear system of H_Q is solved."""

    critic_solver: Solver = choice(SOLVERS, "identity", "solver of the critic's linear system", prefix="critic_")


@dataclass(frozen=True, kw_only=True)
class OMDSettings(ThroughCritic):
    """OMD has no settings beside these."""

    @override
    def make(self, env: Environment, critic: Critic) -> OMD:
        return OMD(self, self.model.make(env), critic)


class OMD(Method):
    """Critic step, target step, then one model step along the implicit gradient at the new critic."""

    settings: OMDSettings

    @override
    def update(self, learner: Learner, batch: Transitions, step: jax.Array, key: jax.Array) -> Learner:
        bootstrap_key, critic_key = jax.random.split(key)
        learner = self.fit_critic(learner, batch, critic_key)
        bootstrap = self.critic.bootstrap(learner.critic, bootstrap_key)
        gradient, _ = task_gradient(self, learner, batch, bootstrap, self.settings.critic_solver)
        return self.step_model(learner, batch, gradient)

    @override
    def residual(self, learner: Learner, batch: Transitions, step: jax.Array, key: jax.Array) -> Float[Array, ""]:
        bootstrap = self.critic.bootstrap(learner.critic, key)
        return task_gradient(self, learner, batch, bootstrap, self.settings.critic_solver)[1].residual
