"""One run of a cell, a data set and a seed: what it reads, how it starts, a chunk of it, its test. `training` compiles them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from decision_tasks.base import Data, Split, Task, decided_value, squared_error
from decision_tasks.evaluation import Score, baseline_scores, scale, test_score
from decision_tasks.objectives import Objective
from mbrl_taskmet.core.bilevel import State

PyTree = Any
VALIDATE_EVERY = 10
PATIENCE = 100


class DataSet(NamedTuple):
    """What all runs on a data set share, whatever they descend.

    Attributes:
        data: its instances.
        random: mean value on the test instances of decisions on U(0, 1) predictions.
        optimal: the same on the truth.
        apart: the two for each decision by its name, where the task takes several.
        baselines: scores of the predictors that learn nothing, by name.
    """

    data: Split
    random: jax.Array
    optimal: jax.Array
    apart: dict[str, tuple[jax.Array, jax.Array]]
    baselines: dict[str, Score]


class Fixed(NamedTuple):
    """What a run reads and never changes.

    Attributes:
        key: of all that is random in the run.
        data: its data set.
        prepared: by the objective, for each training instance.
        random: mean value on the test instances of decisions on U(0, 1) predictions.
        optimal: the same on the truth.
        apart: the two for each decision, where the task takes several.
    """

    key: jax.Array
    data: Split
    prepared: PyTree
    random: jax.Array
    optimal: jax.Array
    apart: dict[str, tuple[jax.Array, jax.Array]]


class CellCarry(NamedTuple):
    """What a run has between two chunks.

    Attributes:
        best_params: θ of the best validation.
        best_metric: and φ.
        stopped: whether patience is over, or the run has failed.
        failed: the iteration by whose end the state was not finite, or −1; the state before it is kept.
    """

    state: State
    best_params: PyTree
    best_metric: PyTree
    best_score: jax.Array
    best_iteration: jax.Array
    stopped: jax.Array
    failed: jax.Array


class CellReport(NamedTuple):
    """A run at the end of a chunk.

    Attributes:
        score: what validation maximises.
        validation_value: mean value of the hard decisions.
        task_loss: TaskMet's L_task, mean over the chunk.
        residual: of its linear solves, the same.
    """

    iteration: jax.Array
    score: jax.Array
    validation_mse: jax.Array
    validation_value: jax.Array
    task_loss: jax.Array
    residual: jax.Array
    best_iteration: jax.Array
    stopped: jax.Array
    failed: jax.Array


class OneRun:
    """The functions of one run.

    Args:
        task: what is decided.
        objective: what is descended.
        seed: numbers the random stream of all runs.
    """

    def __init__(self, task: Task, objective: Objective, seed: int):
        self.task, self.objective, self.seed = task, objective, seed

    def data_set(self, number: jax.Array) -> DataSet:
        """A data set by its number."""
        data_key, key = self._keys(number)
        data = self.task.data(data_key)
        random, optimal = scale(self.task, key, data.test)
        scores = baseline_scores(self.task, self.key(number, jnp.int32(0)), data.test, random, optimal)
        apart = {name: scale(one, key, data.test) for name, (_, one) in self._several.items()}
        return DataSet(data, random, optimal, apart, scores)

    def prepare(self, number: jax.Array, train: Data) -> PyTree:
        """What the objective needs of the training instances of a data set."""
        return self.objective.prepare(self.task, self._keys(number)[1], train)

    def key(self, number: jax.Array, seed: jax.Array) -> jax.Array:
        """The key of all that is random in the run of a data set and a seed, by their numbers."""
        return jax.random.fold_in(self._keys(number)[1], seed)

    def start(self, fixed: Fixed) -> CellCarry:
        """The start."""
        state = self.objective.init(self.task, jax.random.fold_in(fixed.key, 0), fixed.data.train, fixed.prepared)
        return CellCarry(
            state=state,
            best_params=jax.tree.map(jnp.copy, state.model.params),
            best_metric=jax.tree.map(jnp.copy, state.metric.params),
            best_score=jnp.asarray(-jnp.inf, jnp.result_type(float)),  # not the start's: what is returned has been trained
            best_iteration=jnp.int32(0),
            stopped=jnp.array(False),
            failed=jnp.int32(-1),
        )

    def chunk(self, carry: CellCarry, fixed: Fixed, first: jax.Array) -> tuple[CellCarry, CellReport]:
        """`VALIDATE_EVERY` iterations from `first` on and a validation, or nothing where the run has stopped."""

        def rest() -> tuple[CellCarry, CellReport]:
            unknown, end = jnp.array(jnp.nan), first + VALIDATE_EVERY
            return carry, CellReport(end, *5 * (unknown,), carry.best_iteration, carry.stopped, carry.failed)

        return jax.lax.cond(carry.stopped, rest, lambda: self._advance(carry, fixed, first))

    def _advance(self, carry: CellCarry, fixed: Fixed, first: jax.Array) -> tuple[CellCarry, CellReport]:
        def iterate(state: State, i: jax.Array) -> tuple[State, Any]:
            key = jax.random.fold_in(fixed.key, i + 1)  # 0 was the start's
            return self.objective.iterate(self.task, state, fixed.data.train, fixed.prepared, key)

        end = (first + VALIDATE_EVERY).astype(jnp.int32)
        state, infos = jax.lax.scan(iterate, carry.state, first + jnp.arange(VALIDATE_EVERY))
        prediction = self.task.predict(state.model.params, fixed.data.validation)
        score = self.objective.score(self.task, prediction, fixed.data.validation)
        finite = jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves((state, score))]))
        better = finite & (score > carry.best_score)
        keep = partial(jax.tree.map, lambda new, old: jnp.where(better, new, old))
        carry = CellCarry(
            state=jax.tree.map(lambda new, old: jnp.where(finite, new, old), state, carry.state),
            best_params=keep(state.model.params, carry.best_params),
            best_metric=keep(state.metric.params, carry.best_metric),
            best_score=keep(score, carry.best_score),
            best_iteration=keep(end, carry.best_iteration),
            stopped=~finite,
            failed=jnp.where(finite, carry.failed, end),
        )
        carry = carry._replace(stopped=carry.stopped | (end - carry.best_iteration >= PATIENCE))
        return carry, CellReport(
            iteration=first + VALIDATE_EVERY,
            score=score,
            validation_mse=squared_error(prediction, fixed.data.validation),
            validation_value=jnp.mean(decided_value(self.task, prediction, fixed.data.validation)),
            task_loss=jnp.mean(infos.task_loss),
            residual=jnp.mean(infos.residual),
            best_iteration=carry.best_iteration,
            stopped=carry.stopped,
            failed=carry.failed,
        )

    def test(self, params: PyTree, fixed: Fixed) -> Score:
        """The score of a predictor on the test instances."""
        test = fixed.data.test
        return test_score(self.task, self.task.predict(params, test), test, fixed.random, fixed.optimal)

    def test_apart(self, params: PyTree, fixed: Fixed) -> dict[str, Score]:
        """The same of each decision by its name, {} where the task takes one."""
        test, prediction = fixed.data.test, self.task.predict(params, fixed.data.test)
        return {name: test_score(one, prediction, test, *fixed.apart[name]) for name, (_, one) in self._several.items()}

    @property
    def _several(self) -> Mapping[str, tuple[float, Task]]:
        """The task's decisions, or none where they are one."""
        return self.task.decisions if len(self.task.decisions) > 1 else {}

    def _keys(self, number: jax.Array) -> jax.Array:
        """The key of a data set's instances, and that of all else that is random on it, (2,)."""
        return jax.random.split(jax.random.fold_in(jax.random.key(self.seed), number))
