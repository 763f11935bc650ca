"""Algorithm 1 of TaskMet, for any predictor, metric and task.

    φ* = argmin_φ L_task(θ*(φ))   subject to   θ*(φ) = argmin_θ L_pred(θ, φ)

    repeat  { K optimiser steps on θ with L_pred(·, φ);   one on φ with ∂L_task/∂φ through the implicit function theorem }

Bansal, Chen, Mukadam, Amos (NeurIPS 2023), eqs. 4–7. θ and its optimiser's state are kept from one iteration to the next.
Data is any pytree whose leaves have a leading axis of instances; a batch is the same pytree at some of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from mbrl_taskmet.implicit import implicit_vjp
from mbrl_taskmet.linear_solve import NormalCG, Solution, Solver
from mbrl_taskmet.methods.base import Trained, step

PyTree = Any


class State(NamedTuple):
    """What Algorithm 1 learns: the predictor's θ and the metric's φ, each with its optimiser's state."""

    model: Trained
    metric: Trained


class Info(NamedTuple):
    """What one iteration reports, all scalar."""

    inner_steps: jax.Array  # predictor steps taken
    task_loss: jax.Array  # L_task at the new θ, on the outer batch
    residual: jax.Array  # ‖Hu − g‖/‖g‖ of the implicit solve


def take(data: PyTree, rows: jax.Array) -> PyTree:
    """The batch of the instances `rows`, ints of any shape."""
    return jax.tree.map(lambda leaf: leaf[rows], data)


def fit(
    loss: Callable[[PyTree, jax.Array], jax.Array],
    optimizer: optax.GradientTransformation,
    model: Trained,
    key: jax.Array,
    instances: int,
    batch_size: int,
    steps: int,
    tolerance: float = 0.0,
) -> tuple[Trained, jax.Array]:
    """Up to `steps` optimiser steps on `loss`(θ, rows), on fresh random rows each; (model, steps taken).

    It stops after a step whose gradient's norm, before any clipping, is under `tolerance`. `key` is consumed.
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


@dataclass(frozen=True, kw_only=True)
class Bilevel:
    """A bilevel problem and how Algorithm 1 solves it; the defaults are those of TaskMet's Table 4.

    predict: f, (θ, batch) → predictions ŷ.
    weigh: (φ, batch) → Λ_φ of the batch, with a leading axis of instances. Evaluated once per iteration: φ rests meanwhile.
    loss: (ŷ, Λ, batch) → L_pred, scalar.
    task_loss: (ŷ, batch) → L_task, scalar.
    optimizer, metric_optimizer: optax transformations; clipping belongs to them.
    solver: for H_pred u = g.
    inner_steps, warmup: K, and the predictor steps before the metric first moves.
    tolerance: the inner loop ends where its gradient's norm is under it.
    inner_batch, outer_batch, implicit_batch: instances in a predictor step, in L_task and in the implicit derivative.
    """

    predict: Callable[[PyTree, PyTree], PyTree]
    weigh: Callable[[PyTree, PyTree], PyTree]
    loss: Callable[[PyTree, PyTree, PyTree], jax.Array]
    task_loss: Callable[[PyTree, PyTree], jax.Array]
    optimizer: optax.GradientTransformation
    metric_optimizer: optax.GradientTransformation
    solver: Solver = field(default_factory=lambda: NormalCG(5))
    inner_steps: int = 100
    warmup: int = 500
    tolerance: float = 1e-3
    inner_batch: int = 10
    outer_batch: int = 50
    implicit_batch: int = 10

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
        task_loss, gradient, solved = self.metric_gradient(model.params, state.metric.params, outer, implicit)
        metric = step(self.metric_optimizer, state.metric, gradient)
        return State(model, metric), Info(count, task_loss, solved.residual)

    def metric_gradient(
        self, params: PyTree, metric_params: PyTree, outer: PyTree, implicit: PyTree
    ) -> tuple[jax.Array, PyTree, Solution]:
        """(L_task, ∂L_task/∂φ, the linear solve) at θ*(φ) = `params`, on an outer batch and one for the implicit derivative."""
        task_loss, cotangent = jax.value_and_grad(lambda theta: self.task_loss(self.predict(theta, outer), outer))(params)
        gradient, solved = implicit_vjp(
            predict=lambda theta: self.predict(theta, implicit),
            loss=lambda prediction, phi: self.loss(prediction, self.weigh(phi, implicit), implicit),
            solution=params,
            parameters=metric_params,
            cotangent=cotangent,
            solver=self.solver,
        )
        return task_loss, gradient, solved

    def _fit(self, state: State, data: PyTree, key: jax.Array, steps: int) -> tuple[Trained, jax.Array]:
        weights = self.weigh(state.metric.params, data)

        def loss(params: PyTree, rows: jax.Array) -> jax.Array:
            batch = take(data, rows)
            return self.loss(self.predict(params, batch), take(weights, rows), batch)

        return fit(loss, self.optimizer, state.model, key, _instances(data), self.inner_batch, steps, self.tolerance)


def _instances(data: PyTree) -> int:
    return int(jax.tree.leaves(data)[0].shape[0])
