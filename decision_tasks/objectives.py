"""Objectives, one class each: what a step on the predictor of a decision task descends.

mse       E(ŷ − y)²
dfl       − E g(relax(ŷ), y) + α·MSE                     decision-focused learning (Wilder et al. 2019)
lodl      E‖(ŷ − y)ᵀ tril(ψ)‖² + α·MSE, ψ of each instance fitted to the task (Shah et al. 2022); see `lodl`
taskmet   E‖ŷ − y‖²_Λ under a metric that Algorithm 1 learns (Bansal et al. 2023)
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import optax
from typing_extensions import override

from decision_tasks.base import Data, Task, decided_value, relaxed_value, squared_error
from decision_tasks.lodl import fit_losses, quadratic_loss
from mbrl_taskmet.core.bilevel import Bilevel, Info, State, fit, take
from mbrl_taskmet.core.linear_solve import NormalCG, Solver
from mbrl_taskmet.core.metric import FactorMetric, squared_norm
from mbrl_taskmet.core.optimizers import Trained
from mbrl_taskmet.core.settings import setting
from mbrl_taskmet.core.settings_tree import check_fields
from mbrl_taskmet.core.task_loss import One, TaskLoss

PyTree = Any
CLIP = 1.0  # norm at which the predictor's gradient is clipped


@dataclass(frozen=True)
class Objective:
    """A loss of predictions, and gradient steps on it. Subclasses give `loss`.

    An objective is a record: fields that are made by `setting` become flags once the objective is in `OBJECTIVES`.

    Attributes:
        differentiates: whether it needs the task's relaxation.
        decides: weight of the decisions' value in the validation score.
        alpha: α, the weight of the mean squared error beside the task.
        inner_steps: gradient steps of one iteration.
        batch: instances in each of them.
    """

    name: ClassVar[str]
    differentiates: ClassVar[bool] = False
    decides: ClassVar[float] = 1.0

    alpha: float = 0.0
    inner_steps: int = 10
    batch: int = 10

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def preparation(self) -> Any:
        """What `prepare` depends on: of objectives that share the function, equal ones share what it makes."""
        return () if type(self).prepare is Objective.prepare else object()

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
        return state._replace(model=model), Info(count, unknown, unknown, {})

    def score(self, task: Task, prediction: jax.Array, batch: Data) -> jax.Array:
        """What validation maximises, scalar: the mean value of the hard and relaxed decisions, less α·MSE."""
        values = decided_value(task, prediction, batch)
        if task.relaxed and self.decides:  # the hard value alone would not see progress between two decisions
            values = (values + relaxed_value(task, prediction, batch)) / 2
        return self.decides * jnp.mean(values) - self.alpha * squared_error(prediction, batch)

    def optimizer(self, task: Task) -> optax.GradientTransformation:
        """What moves the predictor."""
        return optax.chain(optax.clip_by_global_norm(CLIP), optax.adam(task.learning_rate))


def _alpha() -> Any:
    return setting(0.0, "α, the weight of the squared error beside the task (dfl, lodl)", low=0)


@dataclass(frozen=True)
class MSE(Objective):
    """The mean squared error, and nothing of the task."""

    name: ClassVar[str] = "mse"
    decides: ClassVar[float] = 0.0
    alpha: float = 1.0

    @override
    def loss(self, task: Task, prediction: jax.Array, batch: Data, prepared: PyTree) -> jax.Array:
        return squared_error(prediction, batch)


@dataclass(frozen=True)
class DFL(Objective):
    """The value of the relaxed decisions themselves."""

    name: ClassVar[str] = "dfl"
    differentiates: ClassVar[bool] = True

    alpha: float = _alpha()

    @override
    def loss(self, task: Task, prediction: jax.Array, batch: Data, prepared: PyTree) -> jax.Array:
        return self.alpha * squared_error(prediction, batch) - jnp.mean(relaxed_value(task, prediction, batch))


@dataclass(frozen=True)
class LODL(Objective):
    """A loss of each instance that is fitted to what deciding on sampled predictions loses."""

    name: ClassVar[str] = "lodl"

    alpha: float = _alpha()
    samples: int = setting(5000, "sampled predictions that an instance's loss is fitted to (lodl)", flag="lodl_samples", low=1)
    std: float | None = setting(
        None, "spread of the sampled predictions around the truth (lodl); the task's own by default", flag="lodl_std", above=0
    )

    @override
    @property
    def preparation(self) -> Any:
        return self.samples, self.std

    @override
    def prepare(self, task: Task, key: jax.Array, train: Data) -> jax.Array:
        return fit_losses(task, key, train, self.samples, self.std)

    @override
    def loss(self, task: Task, prediction: jax.Array, batch: Data, prepared: jax.Array) -> jax.Array:
        losses = jax.vmap(quadratic_loss)(prepared, (prediction - batch.y).reshape(len(prepared), -1))
        return jnp.mean(losses) + self.alpha * squared_error(prediction, batch)


@dataclass(frozen=True)
class MetricLearning(Objective):
    """TaskMet: Algorithm 1 through `core.bilevel`, with a metric of each row (section 4.2, Table 4).

    Attributes:
        inner_steps: K.
        hidden: layers of the metric's network.
        metric_lr: Adam's, for the metric.
        warmup: predictor steps before the metric moves.
        tolerance: the inner loop ends where its gradient's norm is under it.
        implicit_batch: instances in the implicit derivative.
        solver: of the implicit derivative's linear system.
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

    @override
    def init(self, task: Task, key: jax.Array, train: Data, prepared: PyTree) -> State:
        model_key, metric_key, fit_key = jax.random.split(key, 3)
        bilevel = self.bilevel(task, train)
        state = bilevel.init(task.init(model_key, train), self.metric(train).init(metric_key))
        return bilevel.warm_up(state, train, fit_key)

    @override
    def iterate(self, task: Task, state: State, train: Data, prepared: PyTree, key: jax.Array) -> tuple[State, Info]:
        return self.bilevel(task, train).iterate(state, train, key)

    def metric(self, data: Data) -> FactorMetric:
        """Λ_φ of one row's features."""
        return FactorMetric(data.y.shape[-1], data.x.shape[-1], self.hidden)

    def weigh(self, params: PyTree, batch: Data) -> jax.Array:
        """Λ_φ (instances, items, targets, targets) of every row of a batch."""
        return jax.vmap(jax.vmap(partial(self.metric(batch), params)))(batch.x)

    def bilevel(self, task: Task, data: Data) -> Bilevel:
        """The bilevel problem of a task on data of this shape. L_pred sums over an instance's rows and targets."""

        def loss(prediction: jax.Array, metric: jax.Array, batch: Data) -> jax.Array:
            return jnp.sum(jax.vmap(jax.vmap(squared_norm))(metric, prediction - batch.y)) / len(prediction)

        return Bilevel(
            predict=task.predict,
            weigh=self.weigh,
            loss=loss,
            task_loss=_task_loss(task),
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


def _task_loss(task: Task) -> TaskLoss:
    """Minus the mean value of the relaxed decisions; several decisions are as many losses."""

    def of(one: Task) -> One:
        return lambda prediction, batch: -jnp.mean(relaxed_value(one, prediction, batch))

    several = {name: (weight, of(one)) for name, (weight, one) in task.decisions.items()}
    return several if len(several) > 1 else of(task)


OBJECTIVES: dict[str, type[Objective]] = {"mse": MSE, "dfl": DFL, "lodl": LODL, "taskmet": MetricLearning}
"""Every objective by its name on the command line. May grow: an entry is all that another one needs."""
