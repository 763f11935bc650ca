"""TaskMet: the model is fitted to its predictions' squared error under a metric, and the metric to the task.

    θ*(φ) = argmin_θ E‖f_θ(s,a) − s'‖²_Λφ,      φ ← φ − η ∂_φ [ L_task(ω*(θ*(φ))) + λ₁ E Σ_ij |Λ_ij| ]

      g = ∂_θ L_task(ω*(θ))                       through the critic, as in OMD
      H_pred u = g                                 H_pred = ∂²_θ L_pred, in the next-observation parameters alone
      ∂_φ L_task = − ∂_φ ⟨∂_θ L_pred(θ*, φ), u⟩

A shared metric (`--metric-shared`) is also what the critic sees observations through, Q_ω(Λ^½ s, a). With its targets held, φ
then moves L_task directly and through the critic's own problem, H_Q v = ∂_ω L_task, as well:

      + ∂_φ L_task(ω*, φ) − ∂_φ ⟨∂_ω L_Q(ω*, θ, φ), v⟩

A critic fitted exactly would undo any scale in its first layer, and the two terms would cancel. One of few steps does not: they
say which dimensions it had better see less of.

Several task losses (`--task-discounts`) are of critics at several discount factors, L_task = Σ_k w_k L_task,k(ω_k*(θ)), each of
which is trained on the one model; see `critics.discounts`.

Bansal, Chen, Mukadam, Amos (NeurIPS 2023), Algorithm 1 and eqs. 11–12. The reward network has no metric: its block of H_pred
does not enter, but in the authors' code, where it takes part in the iterations of the solver (`linear_system`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float
from typing_extensions import override

from mbrl_taskmet.core.implicit import implicit_vjp
from mbrl_taskmet.core.linear_solve import SOLVERS, Solution, Solver
from mbrl_taskmet.core.metric import METRICS, Diagonal, Metric, Unconditional
from mbrl_taskmet.core.optimizers import Trained, inverse_sqrt, step
from mbrl_taskmet.core.settings import ConfigError, choice, known_zero, setting
from mbrl_taskmet.rl.critics import Bootstrap, Critic
from mbrl_taskmet.rl.critics.discounts import Discounts
from mbrl_taskmet.rl.critics.seeing import Seeing
from mbrl_taskmet.rl.environment import Environment
from mbrl_taskmet.rl.methods.base import Learner, Method, PyTree
from mbrl_taskmet.rl.methods.omd import ThroughCritic, task_gradient
from mbrl_taskmet.rl.model import ModelParams
from mbrl_taskmet.rl.replay import Transitions


@dataclass(frozen=True, kw_only=True)
class TaskMetSettings(ThroughCritic):
    """The metric, its optimiser, and the solvers of the two linear systems. `metric_every` are the inner steps K."""

    metric: Metric = choice(METRICS, "diagonal", "parametrisation of the learned metric")
    metric_shared: bool = setting(False, "scale the critic's inputs by the square roots of the metric's weights, too")
    metric_lr: float = setting(3e-3, "initial Adam learning rate of the metric, per update", above=0)
    metric_lr_decay: int = setting(1000, "updates k₀ in the metric's schedule lr/√(1 + k/k₀); 0: constant", low=0, before=0)
    metric_warmup: int = setting(5000, "environment steps before the metric's first update", low=0, traced=True)
    metric_until: int | None = setting(None, "environment step after which the metric stays fixed; none by default", low=0)
    metric_every: int = setting(4, "environment steps between updates of the metric", low=1, traced=True)
    l1: float = setting(0.0, "coefficient of the metric's L1 penalty", low=0)
    l1_reduction: Literal["mean", "sum"] = setting("mean", "reduction of the L1 penalty over the batch")
    solver: Solver = choice(SOLVERS, "minres", "solver of the model's linear system")
    linear_system: Literal["dynamics", "model"] = setting(
        "dynamics",
        "Hessian of that system: of the dynamics network alone, or with the reward network, which gives the same solution",
    )

    task_discounts: tuple[float, ...] = setting(
        (), "more discount factors, each with a critic of its own, whose task losses are added to that of --discount",
        low=0, high=1,
    )  # fmt: skip
    task_weights: tuple[float, ...] = setting((), "weights of the task losses, of --discount's first; 1 each by default", low=0)

    def check(self) -> None:
        """Raise ConfigError if two settings contradict each other."""
        several = 1 + len(self.task_discounts)
        if self.task_weights and (several == 1 or len(self.task_weights) != several):
            raise ConfigError(
                f"--task-weights is {self.task_weights}; give --task-discounts, and one weight more than there are"
            )
        if self.task_weights and not any(self.task_weights):
            raise ConfigError(f"--task-weights is {self.task_weights}; give one above 0, or there is nothing to learn")
        if self.task_discounts and self.metric_shared:
            raise ConfigError("--metric-shared is for one critic; leave out --task-discounts")
        if self.task_discounts and self.model.horizon > 1:
            raise ConfigError(f"--horizon {self.model.horizon} is for one critic; leave out --task-discounts")
        if self.metric_shared and not (isinstance(self.metric, Diagonal) and type(self.metric.input) is Unconditional):
            raise ConfigError("--metric-shared takes one diagonal metric for all states; leave out --metric and --metric-input")
        if self.metric_until is not None and self.metric_until <= self.metric_warmup:
            raise ConfigError(f"--metric-until {self.metric_until} is not after --metric-warmup {self.metric_warmup}, so the "
                              "metric would never move; give more")  # fmt: skip

    @override
    def notice(self, steps: int) -> str | None:
        late = steps <= self.metric_warmup
        return f"the metric moves from step {self.metric_warmup} on (--metric-warmup), so not in this run" if late else None

    @property
    def metric_optimizer(self) -> optax.GradientTransformation:
        """What moves φ."""
        return optax.adam(inverse_sqrt(self.metric_lr, self.metric_lr_decay))

    @override
    def make(self, env: Environment, critic: Critic) -> TaskMet:
        if self.task_discounts:
            critic = Discounts(critic, self.task_discounts, self.task_weights or (1.0,) * (1 + len(self.task_discounts)))
        return TaskMet(self, self.model.make(env), critic)


class TaskMet(Method):
    """Model step under the metric, critic step, target step, then one metric step through both levels."""

    settings: TaskMetSettings

    @override
    def init(self, key: jax.Array) -> Learner:
        rest, metric_key = jax.random.split(key)
        params = self.settings.metric.init(metric_key, self.model.observation_size, self.critic.action_space.size)
        return super().init(rest)._replace(metric=Trained(params, self.settings.metric_optimizer.init(params)))

    @override
    def critic_of(self, learner: Learner) -> Critic:
        return self._critic_through(learner.metric.params) if self.settings.metric_shared else self.critic

    @override
    def update(self, learner: Learner, batch: Transitions, step: jax.Array, key: jax.Array) -> Learner:
        metric_key, critic_key = jax.random.split(key)
        learner = self.fit_model(learner, batch, lambda dynamics: self.loss(dynamics, learner.metric.params, batch))
        learner = self.fit_critic(learner, batch, critic_key)
        # The same for all seeds, so under `vmap` this stays a branch and a skipped solve costs nothing.
        due = self._moves(step) & (step % self.settings.metric_every == 0)
        metric = jax.lax.cond(due, lambda: self._step_metric(learner, batch, metric_key), lambda: learner.metric)
        return learner._replace(metric=metric)

    @override
    def residual(self, learner: Learner, batch: Transitions, step: jax.Array, key: jax.Array) -> Float[Array, ""]:
        _, solved = self.metric_gradient(learner, batch, key)
        return jnp.where(self._moves(step - 1), solved.residual, jnp.nan)

    def _moves(self, step: jax.Array) -> jax.Array:
        begun, until = step >= self.settings.metric_warmup, self.settings.metric_until
        return begun if until is None else begun & (step < until)

    def loss(self, dynamics: PyTree, metric_params: PyTree, batch: Transitions) -> jax.Array:
        """L_pred(θ, φ) of the next observation (eq. 3)."""
        error = self.prediction_error(dynamics, batch)
        return self.settings.metric.loss(metric_params, batch.observation, batch.action, error)

    def metric_gradient(self, learner: Learner, batch: Transitions, key: jax.Array) -> tuple[PyTree, Solution]:
        """∂L_task/∂φ through both levels, and the solve with H_pred. `key` is consumed."""
        bootstrap = self.critic_of(learner).bootstrap(learner.critic, key)
        cotangent, of_critic = task_gradient(self, learner, batch, bootstrap, self.settings.critic_solver)
        gradient, solved = self._through_model(learner, batch, cotangent)
        if self.settings.metric_shared:
            seen = self._through_critic(learner, batch, bootstrap, of_critic.value)
            gradient = jax.tree.map(jnp.add, gradient, seen)
        return gradient, solved

    def _through_model(self, learner: Learner, batch: Transitions, cotangent: ModelParams) -> tuple[PyTree, Solution]:
        """− ∂_φ ⟨∂_θ L_pred(θ*, φ), u⟩, and the solve for u."""
        model, inputs = learner.model.params, (batch.observation, batch.action)

        def loss(prediction: jax.Array, params: PyTree) -> jax.Array:
            return self.settings.metric.loss(params, *inputs, prediction - batch.next_observation)

        if self.settings.linear_system == "dynamics":
            return implicit_vjp(
                predict=lambda dynamics: self.model.next_observation(dynamics, *inputs),
                loss=loss,
                solution=model.dynamics,
                parameters=learner.metric.params,
                cotangent=cotangent.dynamics,
                solver=self.settings.solver,
            )
        model, cotangent = (params._replace(termination=()) for params in (model, cotangent))
        return implicit_vjp(
            predict=lambda params: self.imagine(params, batch),
            loss=lambda imagined, params: (
                loss(imagined.next_observation, params) + jnp.mean((imagined.reward - batch.reward) ** 2)
            ),
            solution=model,
            parameters=learner.metric.params,
            cotangent=cotangent,
            solver=self.settings.solver,
        )

    def _through_critic(self, learner: Learner, batch: Transitions, bootstrap: Bootstrap, direction: PyTree) -> PyTree:
        """∂_φ L_task(ω*, φ) − ∂_φ ⟨∂_ω L_Q(ω*, θ, φ), v⟩ for the `direction` v."""
        omega = learner.critic.params
        imagined = self.rollout(learner, learner.model.params, batch, bootstrap)

        def lagrangian(phi: PyTree) -> jax.Array:
            critic = self._critic_through(phi)
            _, inner = jax.jvp(lambda omega: critic.loss(omega, bootstrap, imagined), (omega,), (direction,))
            return critic.loss(omega, bootstrap, batch) - inner

        return jax.grad(lagrangian)(learner.metric.params)

    def _critic_through(self, phi: PyTree) -> Critic:
        """The critic that sees Λ_φ^½ s."""
        nothing = jnp.zeros(self.model.observation_size), jnp.zeros(self.critic.action_space.size)
        return Seeing(self.critic, jnp.sqrt(self.settings.metric(phi, *nothing)))

    @override
    def metric_diagonal(self, learner: Learner, batch: Transitions) -> jax.Array:
        return jnp.mean(self.settings.metric.diagonals(learner.metric.params, batch.observation, batch.action), axis=0)

    def _step_metric(self, learner: Learner, batch: Transitions, key: jax.Array) -> Trained:
        gradient, _ = self.metric_gradient(learner, batch, key)
        # A penalty over the batch's sum grows with the batch, as the authors' did.
        l1 = self.settings.l1 * (len(batch.reward) if self.settings.l1_reduction == "sum" else 1)
        if not known_zero(l1):
            penalty = jax.grad(self.settings.metric.l1)(learner.metric.params, batch.observation, batch.action)
            gradient = jax.tree.map(lambda g, p: g + l1 * p, gradient, penalty)
        return step(self.settings.metric_optimizer, learner.metric, gradient)
