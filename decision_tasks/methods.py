"""Ways of training the predictor of a decision task, one class each: what a step of it descends.

mse       E(ŷ − y)²
dfl       − E g(relax(ŷ), y) + α·MSE                     decision-focused learning (Wilder et al. 2019)
lodl      E‖(ŷ − y)ᵀ tril(ψ)‖² + α·MSE, ψ of each instance fitted to the task (Shah et al. 2022); see `lodl`
taskmet   E‖ŷ − y‖²_Λ under a metric that Algorithm 1 learns (Bansal et al. 2023)
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import optax

from decision_tasks.base import Data, Task, decided_value, relaxed_value
from decision_tasks.lodl import fit_losses, quadratic_loss
from mbrl_taskmet.core.bilevel import Bilevel, Info, State, fit, take
from mbrl_taskmet.core.linear_solve import NormalCG, Solver
from mbrl_taskmet.rl.methods.base import Trained
from mbrl_taskmet.core.metric import FactorMetric, squared_norm

PyTree = Any
CLIP = 1.0  # norm at which the predictor's gradient is clipped


@dataclass(frozen=True)
class Method:
    """A loss of predictions, and gradient steps on it. Subclasses give `loss`.

    alpha: α, the weight of the mean squared error beside the task.
    inner_steps, batch: gradient steps of one iteration, and the instances in each.
    """

    name: ClassVar[str]
    differentiates: ClassVar[bool] = False  # needs the task's relaxation
    decides: ClassVar[float] = 1.0  # weight of the decisions' value in the validation score

    alpha: float = 0.0
    inner_steps: int = 10
    batch: int = 10

    def prepare(self, task: Task, key: jax.Array, train: Data) -> PyTree:
        """Whatever `loss` needs of each training instance, computed once per data set. `key` is consumed."""
        del task, key, train
        return ()

    def loss(self, task: Task, prediction: jax.Array, batch: Data, prepared: PyTree) -> jax.Array:
        """What the predictor descends, scalar, for predictions (instances, items, targets) of a batch."""
        raise NotImplementedError(f"{type(self).__name__} does not say what it descends")

    def init(self, task: Task, key: jax.Array, train: Data, prepared: PyTree) -> State:
        """The state before the first iteration. `key` is consumed."""
        del prepared
        params = task.init(key, train)
        return State(Trained(params, self.optimizer(task).init(params)), Trained((), ()))

    def iterate(self, task: Task, state: State, train: Data, prepared: PyTree, key: jax.Array) -> tuple[State, Info]:
        """One iteration: `inner_steps` gradient steps. `key` is consumed."""

        def loss(params: PyTree, rows: jax.Array) -> jax.Array:
            batch = take(train, rows)
            return self.loss(task, task.predict(params, batch), batch, take(prepared, rows))

        instances = train.x.shape[0]
        model, count = fit(loss, self.optimizer(task), state.model, key, instances, self.batch, self.inner_steps)
        unknown = jnp.array(jnp.nan)
        return state._replace(model=model), Info(count, unknown, unknown)

    def score(self, task: Task, prediction: jax.Array, batch: Data) -> jax.Array:
        """What validation maximises, scalar: the mean value of the hard and relaxed decisions, less α·MSE."""
        values = decided_value(task, prediction, batch)
        if task.relaxed and self.decides:  # the hard value alone would not see progress between two decisions
            values = (values + relaxed_value(task, prediction, batch)) / 2
        return self.decides * jnp.mean(values) - self.alpha * squared_error(prediction, batch)

    def optimizer(self, task: Task) -> optax.GradientTransformation:
        """What moves the predictor."""
        return optax.chain(optax.clip_by_global_norm(CLIP), optax.adam(task.learning_rate))


def squared_error(prediction: jax.Array, batch: Data) -> jax.Array:
    """The mean of (ŷ − y)² over instances, items and targets, scalar."""
    return jnp.mean((prediction - batch.y) ** 2)


@dataclass(frozen=True)
class MSE(Method):
    name: ClassVar[str] = "mse"
    decides: ClassVar[float] = 0.0
    alpha: float = 1.0

    def loss(self, task: Task, prediction: jax.Array, batch: Data, prepared: PyTree) -> jax.Array:
        return squared_error(prediction, batch)


@dataclass(frozen=True)
class DFL(Method):
    name: ClassVar[str] = "dfl"
    differentiates: ClassVar[bool] = True

    def loss(self, task: Task, prediction: jax.Array, batch: Data, prepared: PyTree) -> jax.Array:
        return self.alpha * squared_error(prediction, batch) - jnp.mean(relaxed_value(task, prediction, batch))


@dataclass(frozen=True)
class LODL(Method):
    """samples: sampled predictions to which the loss of an instance is fitted. std: their spread, by default the task's."""

    name: ClassVar[str] = "lodl"
    samples: int = 5000
    std: float | None = None

    def prepare(self, task: Task, key: jax.Array, train: Data) -> jax.Array:
        return fit_losses(task, key, train, self.samples, self.std)

    def loss(self, task: Task, prediction: jax.Array, batch: Data, prepared: jax.Array) -> jax.Array:
        losses = jax.vmap(quadratic_loss)(prepared, (prediction - batch.y).reshape(len(prepared), -1))
        return jnp.mean(losses) + self.alpha * squared_error(prediction, batch)


@dataclass(frozen=True)
class TaskMet(Method):
    """Algorithm 1 through `mbrl_taskmet.core.bilevel`, with a metric of each row (section 4.2, Table 4).

    inner_steps: K.
    hidden, metric_lr: of the metric's network.
    warmup: predictor steps before the metric moves.
    tolerance: the inner loop ends where its gradient's norm is under it.
    implicit_batch, solver: instances in the implicit derivative, and how its linear system is solved.
    """

    name: ClassVar[str] = "taskmet"
    differentiates: ClassVar[bool] = True

    inner_steps: int = 100
    hidden: tuple[int, ...] = (200,)
    metric_lr: float = 1e-3
    warmup: int = 500
    tolerance: float = 1e-3
    implicit_batch: int = 10
    solver: Solver = field(default_factory=lambda: NormalCG(5))

    def init(self, task: Task, key: jax.Array, train: Data, prepared: PyTree) -> State:
        model_key, metric_key, fit_key = jax.random.split(key, 3)
        bilevel = self.bilevel(task, train)
        state = bilevel.init(task.init(model_key, train), self.metric(train).init(metric_key))
        return bilevel.warm_up(state, train, fit_key)

    def iterate(self, task: Task, state: State, train: Data, prepared: PyTree, key: jax.Array) -> tuple[State, Info]:
        return self.bilevel(task, train).iterate(state, train, key)

    def metric(self, data: Data) -> FactorMetric:
        """Λ_φ of one row's features."""
        return FactorMetric(data.y.shape[-1], data.x.shape[-1], self.hidden)

    def weigh(self, params: PyTree, batch: Data) -> jax.Array:
        """Λ_φ (instances, items, targets, targets) of every row of a batch."""
        metric, none = self.metric(batch), jnp.zeros((batch.x.shape[1], 0))
        return jax.vmap(lambda x: metric.batch(params, x, none))(batch.x)

    def bilevel(self, task: Task, data: Data) -> Bilevel:
        """The bilevel problem of a task on data of this shape. L_pred sums over an instance's rows and targets."""

        def loss(prediction: jax.Array, metric: jax.Array, batch: Data) -> jax.Array:
            return jnp.sum(jax.vmap(jax.vmap(squared_norm))(metric, prediction - batch.y)) / len(prediction)

        return Bilevel(
            predict=task.predict,
            weigh=self.weigh,
            loss=loss,
            task_loss=lambda prediction, batch: -jnp.mean(relaxed_value(task, prediction, batch)),
            optimizer=self.optimizer(task),
            metric_optimizer=optax.adam(self.metric_lr),
            solver=self.solver,
            inner_steps=self.inner_steps,
            warmup=self.warmup,
            tolerance=self.tolerance,
            inner_batch=self.batch,
            outer_batch=task.outer_batch,
            implicit_batch=self.implicit_batch,
        )


METHODS: dict[str, type[Method]] = {method.name: method for method in (MSE, DFL, LODL, TaskMet)}
"""Every method by its name on the command line."""
