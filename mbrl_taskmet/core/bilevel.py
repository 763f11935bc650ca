"""Algorithm 1 of TaskMet, for any predictor, metric and task.

    φ* = argmin_φ L_task(θ*(φ))   subject to   θ*(φ) = argmin_θ L_pred(θ, φ)

    repeat  { K steps on θ with L_pred(·, φ);   one on φ with ∂L_task/∂φ through the implicit function theorem }

Bansal, Chen, Mukadam, Amos (NeurIPS 2023), eqs. 4–7. θ and its optimiser's state are kept from one iteration to the next.
The steps on θ are those of an inner solver: `fit`, steps of an optax optimiser on minibatches, or `Jaxopt`, any jaxopt solver
on the whole data. Data is any pytree whose leaves have a leading axis of instances; a batch is the same pytree at some of them.

One metric may serve several tasks, L_task = Σ_k w_k L_k, which the paper leaves to future work. The gradient is linear in
∂L_task/∂θ, so one linear solve is for all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from mbrl_taskmet.core.implicit import implicit_vjp
from mbrl_taskmet.core.linear_solve import NormalCG, Solution, Solver
from mbrl_taskmet.core.optimizers import Trained, step
from mbrl_taskmet.core.settings import ConfigError, nearest, setting, shown
from mbrl_taskmet.core.settings_tree import check_fields
from mbrl_taskmet.core.task_loss import TaskLoss, check_task_loss, evaluate

PyTree = Any
Loss = Callable[[PyTree, jax.Array], jax.Array]
"""L_pred(·, φ) as inner solvers see it: (θ, rows) → its value on the instances `rows`, scalar."""
Inner = Callable[[Loss, optax.GradientTransformation, Trained, jax.Array, int, int, int, float], tuple[Trained, jax.Array]]
"""An inner solver: it takes and returns what `fit` does."""

JAXOPT = ("ArmijoSGD", "BFGS", "GradientDescent", "LBFGS", "NonlinearCG", "OptaxSolver", "PolyakSGD")
"""The solvers of jaxopt that minimise a function without constraints, so that its gradient vanishes where they end."""


class State(NamedTuple):
    """What Algorithm 1 learns: the predictor's θ and the metric's φ, each with its optimiser's state."""

    model: Trained
    metric: Trained


class Info(NamedTuple):
    """What one iteration reports, all scalar."""

    inner_steps: jax.Array  # predictor steps taken
    task_loss: jax.Array  # L_task at the new θ, on the outer batch
    residual: jax.Array  # ‖Hu − g‖/‖g‖ of the implicit solve
    task_losses: dict[str, jax.Array]  # L_k by name, without their weights; {} where L_task is one


def take(data: PyTree, rows: jax.Array) -> PyTree:
    """The batch of the instances `rows`, ints of any shape."""
    return jax.tree.map(lambda leaf: leaf[rows], data)


def fit(
    loss: Loss,
    optimizer: optax.GradientTransformation,
    model: Trained,
    key: jax.Array,
    instances: int,
    batch_size: int,
    steps: int,
    tolerance: float = 0.0,
) -> tuple[Trained, jax.Array]:
    """Optimiser steps on `loss`, each on fresh random rows.

    Args:
        loss: what is minimised.
        optimizer: what moves θ; clipping belongs to it.
        model: θ and the optimiser's state to go on from.
        key: is consumed.
        instances: the number of instances there are.
        batch_size: the number of instances in a step.
        steps: the most steps.
        tolerance: the steps end after one whose gradient's norm, before any clipping, is under it.

    Returns:
        (model, steps taken).
    """
    rows = jax.random.randint(key, (steps, batch_size), 0, instances)

    def unfinished(carry: tuple[Trained, jax.Array, jax.Array]) -> jax.Array:
        _, count, norm = carry
        return (count < steps) & (norm >= tolerance)

    def advance(carry: tuple[Trained, jax.Array, jax.Array]) -> tuple[Trained, jax.Array, jax.Array]:
        model, count, _ = carry
        gradient = jax.grad(loss)(model.params, rows[count])
        return step(optimizer, model, gradient), count + 1, optax.tree.norm(gradient)

    model, count, _ = jax.lax.while_loop(unfinished, advance, (model, jnp.int32(0), jnp.array(jnp.inf)))
    return model, count


class Jaxopt:
    """A jaxopt solver as inner solver: it starts from θ and minimises on all instances at once.

    `Jaxopt("LBFGS")` takes at most the steps that `fit` would, to the same tolerance. Of the model only θ moves; the solver's
    own state starts afresh each time, for what it has learned of one φ's loss is wrong of the next.

    Args:
        solver: a name in `JAXOPT`, or a class that is made of a function and run from θ as these are.
        options: its other arguments. `maxiter` and `tol` hold for the warm-up as well.

    Raises:
        ConfigError: the name is unknown.
    """

    def __init__(self, solver: str | type, **options: Any) -> None:
        self.solver = solver if isinstance(solver, type) else _find(solver)
        self.options = options

    def __call__(
        self,
        loss: Loss,
        optimizer: optax.GradientTransformation,
        model: Trained,
        key: jax.Array,
        instances: int,
        batch_size: int,
        steps: int,
        tolerance: float = 0.0,
    ) -> tuple[Trained, jax.Array]:
        """Minimise `loss`; arguments and result are those of `fit`, of which nothing is random and no optimiser is needed."""
        del optimizer, key, batch_size
        rows = jnp.arange(instances)
        solver = self.solver(lambda params: loss(params, rows), **{"maxiter": steps, "tol": tolerance, **self.options})
        params, state = solver.run(model.params)
        return model._replace(params=params), jnp.int32(state.iter_num)


@dataclass(frozen=True, kw_only=True)
class Bilevel:
    """A bilevel problem and how Algorithm 1 solves it; the defaults are those of TaskMet's Table 4.

    Raises ConfigError where one of these is not what it should be.

    Attributes:
        predict: f, (θ, batch) → predictions ŷ.
        weigh: (φ, batch) → Λ_φ of the batch, with a leading axis of instances. Evaluated once per iteration: φ rests meanwhile.
        loss: (ŷ, Λ, batch) → L_pred, scalar.
        task_loss: (ŷ, batch) → L_task, scalar; or several by name with their weights, {name: (w_k, L_k)}, summed.
        optimizer: what moves θ in `fit`; clipping belongs to it.
        metric_optimizer: what moves φ; clipping belongs to it.
        inner: what minimises L_pred(·, φ): `fit`, or a `Jaxopt`, which needs neither `optimizer` nor `inner_batch`.
        solver: for H_pred u = g.
        inner_steps: K.
        warmup: predictor steps before the metric first moves.
        tolerance: the inner solver ends where its gradient's norm is under it.
        inner_batch: instances in a predictor step.
        outer_batch: instances in L_task.
        implicit_batch: instances in the implicit derivative.
    """

    predict: Callable[[PyTree, PyTree], PyTree]
    weigh: Callable[[PyTree, PyTree], PyTree]
    loss: Callable[[PyTree, PyTree, PyTree], jax.Array]
    task_loss: TaskLoss
    optimizer: optax.GradientTransformation
    metric_optimizer: optax.GradientTransformation
    inner: Inner = fit
    solver: Solver = field(default_factory=lambda: NormalCG(5))
    inner_steps: int = setting(100, "predictor steps of an iteration", low=1)
    warmup: int = setting(500, "predictor steps before the metric first moves", low=0)
    tolerance: float = setting(1e-3, "norm of the gradient at which the inner solver ends", low=0)
    inner_batch: int = setting(10, "instances in a predictor step", low=1)
    outer_batch: int = setting(50, "instances in L_task", low=1)
    implicit_batch: int = setting(10, "instances in the implicit derivative", low=1)

    def __post_init__(self) -> None:
        check_fields(self)
        for name in ("predict", "weigh", "loss", "inner"):
            if not callable(getattr(self, name)):
                raise ConfigError(f"Bilevel.{name} is {shown(getattr(self, name))}; give a function")
        check_task_loss(self.task_loss, "Bilevel.task_loss")
        for name in ("optimizer", "metric_optimizer"):
            if not isinstance(getattr(self, name), optax.GradientTransformation):
                raise ConfigError(f"Bilevel.{name} is {shown(getattr(self, name))}; give an optimiser of optax")
        if not isinstance(self.solver, Solver):
            raise ConfigError(f"Bilevel.solver is {shown(self.solver)}; give an instance of a Solver, such as NormalCG(5)")

    def init(self, params: PyTree, metric_params: PyTree) -> State:
        """The state at the start, from θ and φ."""
        return State(
            Trained(params, self.optimizer.init(params)), Trained(metric_params, self.metric_optimizer.init(metric_params))
        )

    def warm_up(self, state: State, data: PyTree, key: jax.Array) -> State:
        """The predictor's first steps, under the metric's start. `key` is consumed."""
        return state._replace(model=self._fit(state, data, key, self.warmup)[0])

    def iterate(self, state: State, data: PyTree, key: jax.Array) -> tuple[State, Info]:
        """One iteration of Algorithm 1: K predictor steps, then one of the metric. `key` is consumed."""
        inner_key, outer_key, implicit_key = jax.random.split(key, 3)
        model, count = self._fit(state, data, inner_key, self.inner_steps)
        outer = take(data, jax.random.randint(outer_key, (self.outer_batch,), 0, _instances(data)))
        implicit = take(data, jax.random.randint(implicit_key, (self.implicit_batch,), 0, _instances(data)))
        task_loss, task_losses, cotangent = self._outer(model.params, outer)
        gradient, solved = self._pulled_back(model.params, state.metric.params, cotangent, implicit)
        metric = step(self.metric_optimizer, state.metric, gradient)
        return State(model, metric), Info(count, task_loss, solved.residual, task_losses)

    def metric_gradient(
        self, params: PyTree, metric_params: PyTree, outer: PyTree, implicit: PyTree
    ) -> tuple[jax.Array, PyTree, Solution]:
        """The gradient of the outer problem, through the implicit function theorem.

        Args:
            params: θ*(φ).
            metric_params: φ.
            outer: the batch of L_task.
            implicit: the batch of the implicit derivative.

        Returns:
            (L_task, ∂L_task/∂φ, the linear solve).
        """
        task_loss, _, cotangent = self._outer(params, outer)
        return task_loss, *self._pulled_back(params, metric_params, cotangent, implicit)

    def _outer(self, params: PyTree, outer: PyTree) -> tuple[jax.Array, dict[str, jax.Array], PyTree]:
        """L_task, the losses that it is made of where they are several, and ∂L_task/∂θ."""

        def total(theta: PyTree) -> tuple[jax.Array, dict[str, jax.Array]]:
            return evaluate(self.task_loss, self.predict(theta, outer), outer)

        (task_loss, task_losses), cotangent = jax.value_and_grad(total, has_aux=True)(params)
        return task_loss, task_losses, cotangent

    def _pulled_back(
        self, params: PyTree, metric_params: PyTree, cotangent: PyTree, implicit: PyTree
    ) -> tuple[PyTree, Solution]:
        """∂L_task/∂φ for ∂L_task/∂θ, and the linear solve."""
        return implicit_vjp(
            predict=lambda theta: self.predict(theta, implicit),
            loss=lambda prediction, phi: self.loss(prediction, self.weigh(phi, implicit), implicit),
            solution=params,
            parameters=metric_params,
            cotangent=cotangent,
            solver=self.solver,
        )

    def _fit(self, state: State, data: PyTree, key: jax.Array, steps: int) -> tuple[Trained, jax.Array]:
        weights = self.weigh(state.metric.params, data)

        def loss(params: PyTree, rows: jax.Array) -> jax.Array:
            batch = take(data, rows)
            return self.loss(self.predict(params, batch), take(weights, rows), batch)

        return self.inner(loss, self.optimizer, state.model, key, _instances(data), self.inner_batch, steps, self.tolerance)


def _instances(data: PyTree) -> int:
    return int(jax.tree.leaves(data)[0].shape[0])


def _find(name: str) -> type:
    """The jaxopt solver of that name."""
    if not isinstance(name, str) or name not in JAXOPT:
        raise ConfigError(f"inner solver {shown(name)} is unknown; did you mean {nearest(shown(name), JAXOPT)!r}? "
                          f"There are {', '.join(JAXOPT)}")  # fmt: skip
    import jaxopt  # here, for it is slow to import and no longer maintained; it stays behind core/, where it serves

    return getattr(jaxopt, name)
