"""The training of a cell: chunks of iterations, each followed by a validation, for all data sets × seeds at once.

A run is one data set and one seed. Runs are spread over the devices. On an accelerator those of a device are batched into the
same operations; on a CPU they follow each other, which is no slower there, and one that has stopped early costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial, reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from decision_tasks.base import Task
from decision_tasks.evaluation import Score
from decision_tasks.objectives import OBJECTIVES, Objective
from decision_tasks.one_run import VALIDATE_EVERY, CellCarry, CellReport, DataSet, Fixed, OneRun
from decision_tasks.settings import CellSettings
from mbrl_taskmet.core.run_axis import RunAxis
from mbrl_taskmet.core.settings import ConfigError

PyTree = Any


class CellResult(NamedTuple):
    """A finished cell. D data sets, S seeds.

    Attributes:
        normalized_dq: (D, S), decision quality between 0, random predictions, and 1, the truth.
        test_mse: (D, S).
        scores: each (D, S).
        apart: the scores of each decision by its name, where the task takes several.
        carry: each leaf (D·S, …).
    """

    normalized_dq: np.ndarray
    test_mse: np.ndarray
    scores: Score
    apart: dict[str, Score]
    carry: CellCarry


def train(task: Task, objective: Objective | str = "taskmet", **sizes: Any) -> CellResult:
    """Train every data set × seed on a task and test it; nothing is written.

    Args:
        task: the task.
        objective: what is descended, or its name.
        sizes: other fields of `CellSettings`.

    Raises:
        ConfigError: the task has no relaxation and the objective needs one, the objective has no such name, or a size is out of
            range.
    """
    if isinstance(objective, str):
        if objective not in OBJECTIVES:
            raise ConfigError(f"the method {objective!r} is unknown; there are {', '.join(OBJECTIVES)}")
        objective = OBJECTIVES[objective]()
    trainer = CellTrainer(CellSettings(task=task, objective=objective, **sizes))
    start = trainer.init()
    carries = (carry for _, carry, _ in trainer.run(start))
    return trainer.finish(reduce(lambda _, carry: carry, carries, start))


class CellTrainer:
    """A cell, made into compiled functions over its runs, which are spread over JAX's devices.

    Args:
        cell: its settings.
        earlier: another cell's trainer; what both cells have in common is taken from it.
    """

    def __init__(self, cell: CellSettings, earlier: CellTrainer | None = None):
        self.cell, self.x64 = cell, cell.x64
        with self._precision():
            self.task = cell.task.drawn(cell.seed)
        self.axis = RunAxis(cell.runs)
        self._one = one = OneRun(self.task, cell.objective, cell.seed)
        self._init = self._compiled(one.start)
        self._chunk = self._compiled(one.chunk)
        self._test = self._compiled(lambda *args: (one.test(*args), one.test_apart(*args)))
        self._fixed: Fixed | None = None
        self._data_sets = earlier.data_sets if earlier is not None and cell.shares_data(earlier.cell) else None
        self._prepared = earlier.prepared if earlier is not None and cell.shares(earlier.cell) else None

    @property
    def iterations(self) -> int:
        """The most there will be, a multiple of the interval between validations."""
        chunk = VALIDATE_EVERY * self.cell.objective.inner_steps
        return -(-self.cell.steps // chunk) * VALIDATE_EVERY

    @property
    def data_sets(self) -> DataSet:
        """The data sets, each leaf (datasets, …).

        Raises:
            ConfigError: random and optimal decisions are worth the same, or not finite, so that no decision can be scored.
        """
        if self._data_sets is None:
            made = self._of_each(self._one.data_set)
            for random, optimal in ((made.random, made.optimal), *made.apart.values()):
                _check_scale(random, optimal)
            self._data_sets = made
        return self._data_sets

    @property
    def prepared(self) -> PyTree:
        """What the objective prepares of each data set, each leaf (datasets, …)."""
        if self._prepared is None:
            self._prepared = self._of_each(self._one.prepare, self.data_sets.data.train)
        return self._prepared

    @property
    def fixed(self) -> Fixed:
        """What the runs read, made when first asked for."""
        if self._fixed is None:
            datasets, seeds = np.divmod(np.arange(self.cell.runs), self.cell.seeds)
            of_run = partial(jax.tree.map, lambda leaf: leaf[datasets])
            data, random, optimal, apart, _ = self.data_sets
            with self._precision():
                keys = jax.jit(jax.vmap(self._one.key))(datasets, seeds)
                fixed = Fixed(keys, of_run(data), of_run(self.prepared), *of_run((random, optimal, apart)))
                self._fixed = self.axis.to_devices(fixed)
        return self._fixed

    def init(self) -> CellCarry:
        """The start of every run."""
        with self._precision():
            return self._init(self.fixed)

    def compile(self) -> None:
        """Compile the chunk ahead of its first use."""
        with self._precision():
            self._chunk = self._chunk.lower(self.blank(), self.fixed, self._first(0)).compile()

    def run(self, carry: CellCarry, start: int = 0) -> Iterator[tuple[int, CellCarry, CellReport]]:
        """Chunk by chunk until every run has stopped: (iterations done, carry, report)."""
        for first in range(start, self.iterations, VALIDATE_EVERY):
            if bool(jnp.all(carry.stopped)):
                return
            with self._precision():
                carry, report = self._chunk(carry, self.fixed, self._first(first))
            yield first + VALIDATE_EVERY, carry, self.axis.to_host(report)

    def finish(self, carry: CellCarry) -> CellResult:
        """The best predictor of every run on its test instances."""
        with self._precision():
            tested = self.axis.to_host(self._test(carry.best_params, self.fixed))
        scores, apart = jax.tree.map(lambda x: x.reshape(self.cell.datasets, self.cell.seeds), tested)
        return CellResult(scores.normalized_dq, scores.test_mse, scores, apart, self.axis.to_host(carry))

    def blank(self) -> CellCarry:
        """A carry whose numbers count for nothing: `init` trains, for the metric's warm-up."""
        with self._precision():
            shapes = jax.eval_shape(self._init, self.fixed)
            return jax.tree.map(lambda x: jax.device_put(np.zeros(x.shape, x.dtype), self.axis.sharding), shapes)

    def split(self, carry: CellCarry) -> tuple[CellCarry, dict[str, jax.Array]]:
        """The carry; nothing of it only grows."""
        return carry, {}

    def join(self, state: CellCarry, ring: dict[str, jax.Array], step: int) -> CellCarry:
        """The inverse of `split`."""
        del ring, step
        return state

    def upgrade(self, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The arrays of a checkpoint that an earlier version wrote: they were the same."""
        return arrays

    def _precision(self) -> Any:
        return jax.enable_x64(self.x64)

    def _first(self, iteration: int) -> jax.Array:
        """The number of a chunk's first iteration, for each run."""
        return jnp.full(self.axis.runs.shape, iteration)

    def _compiled(self, function: Any) -> Any:
        """`function` of one run, of all runs on their devices."""

        def several(*args: Any) -> Any:
            if not self.axis.on_cpu:
                return jax.vmap(function)(*args)
            return jax.lax.map(lambda one: function(*one), args)

        return jax.jit(self.axis.sharded(several), compiler_options=self.axis.compiler_options(1))

    def _of_each(self, function: Callable[..., PyTree], *args: PyTree) -> PyTree:
        """`function` of the number of each data set, and of `args` with a leading axis of data sets, on the host."""
        axis = RunAxis(self.cell.datasets)
        with self._precision():
            mapped = jax.jit(axis.sharded(lambda *args: jax.lax.map(lambda one: function(*one), args)))
            return axis.to_host(mapped(*axis.to_devices((np.arange(axis.count), *args))))


def _check_scale(random: np.ndarray, optimal: np.ndarray) -> None:
    """Raise ConfigError unless optimal decisions are worth more than random ones on every data set, both (datasets,)."""
    rounding = 8 * np.finfo(optimal.dtype).eps * np.maximum(np.abs(random), np.abs(optimal))
    bad = np.flatnonzero(~(optimal - random > rounding))  # NaN is bad
    if len(bad):
        raise ConfigError(
            f"on data set {bad[0]} optimal decisions are worth {optimal[bad[0]]:.6g} and random ones {random[bad[0]]:.6g}, so "
            "that none can be scored; give data on which decisions differ, or more test instances"
        )
