"""The loop of a task and a method: chunks of iterations, each followed by a validation, for all data sets × seeds at once.

A run is one data set and one seed. Runs are spread over the devices. On an accelerator those of a device are batched into the
same operations; on a CPU they follow each other, which is no slower there, and one that has stopped early costs nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial, reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from decision_tasks.base import Split, Task, decided_value
from decision_tasks.evaluation import BASELINES, Score, scale, test_score
from decision_tasks.methods import METHODS, Method, squared_error
from mbrl_taskmet.core.bilevel import State
from mbrl_taskmet.core.settings import ConfigError
from mbrl_taskmet.core.run_axis import RunAxis

PyTree = Any
VALIDATE_EVERY = 10
PATIENCE = 100


class Sizes(NamedTuple):
    """datasets × seeds runs of at most `steps` predictor steps, TaskMet's warm-up not counted; `seed` numbers their keys."""

    datasets: int = 10
    seeds: int = 5
    seed: int = 0
    steps: int = 100_000

    @property
    def runs(self) -> int:
        return self.datasets * self.seeds


class Fixed(NamedTuple):
    """What a run reads and never changes."""

    key: jax.Array
    data: Split
    prepared: PyTree  # by the method, for each training instance
    random: jax.Array  # mean value on the test instances of decisions on U(0, 1) predictions
    optimal: jax.Array  # and on the truth


class Carry(NamedTuple):
    """What a run has between two chunks."""

    state: State
    best_params: PyTree  # θ of the best validation
    best_metric: PyTree  # and φ
    best_score: jax.Array
    best_iteration: jax.Array
    stopped: jax.Array  # bool: patience is over, or `failed`
    failed: jax.Array  # the iteration by whose end the state was not finite, or −1; the state before it is kept


class Report(NamedTuple):
    """A run at the end of a chunk."""

    iteration: jax.Array
    score: jax.Array  # what validation maximises
    validation_mse: jax.Array
    validation_value: jax.Array  # mean value of the hard decisions
    task_loss: jax.Array  # TaskMet's L_task, mean over the chunk, and its linear solve's residual
    residual: jax.Array
    best_iteration: jax.Array
    stopped: jax.Array
    failed: jax.Array


class Result(NamedTuple):
    """A finished block. D data sets, S seeds."""

    normalized_dq: np.ndarray  # (D, S)
    test_mse: np.ndarray  # (D, S)
    scores: Score  # each (D, S)
    carry: Carry  # each leaf (D·S, …)


def train(task: Task, method: Method | str = "taskmet", **sizes: int) -> Result:
    """Train every data set × seed of `Sizes` on a task and test it; nothing is written.

    Raises:
        ConfigError: the task has no relaxation and the method needs one, or the method has no such name.
    """
    if isinstance(method, str) and method not in METHODS:
        raise ConfigError(f"the method {method!r} is unknown; there are {', '.join(METHODS)}")
    trainer = Trainer(task, METHODS[method]() if isinstance(method, str) else method, Sizes(**sizes))
    start = trainer.init()
    carries = (carry for _, carry, _ in trainer.run(start))
    return trainer.finish(reduce(lambda _, carry: carry, carries, start))


class Trainer:
    """A task, a method and the sizes, made into compiled functions over the runs, which are spread over JAX's devices.

    common: another trainer's `common`, of the same task, sizes and `Method.prepare`.
    """

    def __init__(self, task: Task, method: Method, sizes: Sizes, common: PyTree = None):
        if method.differentiates and not task.relaxed:
            raise ConfigError(f"the task {task.name} has no relaxed decision and {method.name} differentiates it; "
                              "use mse or lodl, or write its relax")  # fmt: skip
        self.task, self.method, self.sizes = task, method, sizes
        self.spread = Spread(sizes.runs)
        self._fix = self._compiled(self._fix_run)
        self._init = self._compiled(self._init_run)
        self._chunk = self._compiled(self._chunk_run)
        self._test = self._compiled(self._test_run)
        self._fixed: Fixed | None = None
        self._common = common

    @property
    def iterations(self) -> int:
        """The most there will be, a multiple of the interval between validations."""
        chunk = VALIDATE_EVERY * self.method.inner_steps
        return -(-self.sizes.steps // chunk) * VALIDATE_EVERY

    @property
    def common(self) -> PyTree:
        """Of each data set (datasets, …): what the method prepares, and the values of random and of optimal decisions."""
        if self._common is None:
            self._common = self._prepare()
        return self._common

    @property
    def fixed(self) -> Fixed:
        """The runs' data, made when first asked for."""
        if self._fixed is None:
            datasets, seeds = np.divmod(np.arange(self.sizes.runs), self.sizes.seeds)
            common = jax.tree.map(lambda leaf: leaf[datasets], self.common)
            self._fixed = self._fix(*self.spread.to_devices((datasets, seeds, common)))
        return self._fixed

    def init(self) -> Carry:
        """The start of every run."""
        return self._init(self.fixed)

    def run(self, carry: Carry, start: int = 0) -> Iterator[tuple[int, Carry, Report]]:
        """Chunk by chunk until every run has stopped: (iterations done, carry, report)."""
        for first in range(start, self.iterations, VALIDATE_EVERY):
            if bool(jnp.all(carry.stopped)):
                return
            carry, report = self._chunk(carry, self.fixed, jnp.full(self.spread.runs.shape, first))
            yield first + VALIDATE_EVERY, carry, self.spread.to_host(report)

    def finish(self, carry: Carry) -> Result:
        """The best predictor of every run on its test instances."""
        grid = (self.sizes.datasets, self.sizes.seeds)
        scores = jax.tree.map(lambda x: x.reshape(grid), self.spread.to_host(self._test(carry.best_params, self.fixed)))
        return Result(scores.normalized_dq, scores.test_mse, scores, self.spread.to_host(carry))

    def baselines(self) -> dict[str, Score]:
        """The rows `zero`, `random` and `optimal` of a table, each leaf (datasets,)."""

        def scores(fixed: Fixed) -> dict[str, Score]:
            test = fixed.data.test
            predictions = {name: predict(fixed.key, test.y) for name, predict in BASELINES.items()}
            return {n: test_score(self.task, p, test, fixed.random, fixed.optimal) for n, p in predictions.items()}

        first_seeds = self.spread.to_host(self._compiled(scores)(self.fixed))
        return jax.tree.map(lambda leaf: leaf[:: self.sizes.seeds], first_seeds)

    def shapes(self) -> Carry:
        """A carry on the host, in shapes alone."""
        carry = jax.eval_shape(self._init, self.fixed)
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((self.sizes.runs, *leaf.shape[1:]), leaf.dtype), carry)

    def _compiled(self, function: Any) -> Any:
        """`function` of one run, of all runs on their devices."""

        def several(*args: Any) -> Any:
            if not self.spread.on_cpu:
                return jax.vmap(function)(*args)
            return jax.lax.map(lambda one: function(*one), args)

        return jax.jit(self.spread.sharded(several), compiler_options=self.spread.compiler_options(1))

    def _prepare(self) -> PyTree:
        spread = Spread(self.sizes.datasets)

        def prepare(dataset: jax.Array) -> PyTree:
            data, key = self._data(dataset)
            return self.method.prepare(self.task, key, data.train), *scale(self.task, key, data.test)

        mapped = jax.jit(spread.sharded(partial(jax.lax.map, prepare)))
        return spread.to_host(mapped(spread.to_devices(np.arange(spread.count))))

    def _fix_run(self, dataset: jax.Array, seed: jax.Array, common: tuple[PyTree, jax.Array, jax.Array]) -> Fixed:
        data, key = self._data(dataset)
        return Fixed(jax.random.fold_in(key, seed), data, *common)

    def _data(self, dataset: jax.Array) -> tuple[Split, jax.Array]:
        """A data set by its number, and the key of all else that is random on it."""
        data_key, key = jax.random.split(jax.random.fold_in(jax.random.key(self.sizes.seed), dataset))
        return self.task.data(data_key), key

    def _init_run(self, fixed: Fixed) -> Carry:
        state = self.method.init(self.task, jax.random.fold_in(fixed.key, 0), fixed.data.train, fixed.prepared)
        return Carry(
            state=state,
            best_params=jax.tree.map(jnp.copy, state.model.params),
            best_metric=jax.tree.map(jnp.copy, state.metric.params),
            best_score=jnp.asarray(-jnp.inf, jnp.result_type(float)),  # not the start's: what a method returns, it has trained
            best_iteration=jnp.int32(0),
            stopped=jnp.array(False),
            failed=jnp.int32(-1),
        )

    def _chunk_run(self, carry: Carry, fixed: Fixed, first: jax.Array) -> tuple[Carry, Report]:
        unknown = jnp.array(jnp.nan)
        return jax.lax.cond(
            carry.stopped,
            lambda: (carry, Report(first + VALIDATE_EVERY, *5 * (unknown,), carry.best_iteration, carry.stopped, carry.failed)),
            lambda: self._advance(carry, fixed, first),
        )

    def _advance(self, carry: Carry, fixed: Fixed, first: jax.Array) -> tuple[Carry, Report]:
        def iterate(state: State, i: jax.Array) -> tuple[State, Any]:
            key = jax.random.fold_in(fixed.key, i + 1)  # 0 was the start's
            return self.method.iterate(self.task, state, fixed.data.train, fixed.prepared, key)

        end = (first + VALIDATE_EVERY).astype(jnp.int32)
        state, infos = jax.lax.scan(iterate, carry.state, first + jnp.arange(VALIDATE_EVERY))
        prediction = self.task.predict(state.model.params, fixed.data.validation)
        score = self.method.score(self.task, prediction, fixed.data.validation)
        finite = jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves((state, score))]))
        better = finite & (score > carry.best_score)
        keep = partial(jax.tree.map, lambda new, old: jnp.where(better, new, old))
        carry = Carry(
            state=jax.tree.map(lambda new, old: jnp.where(finite, new, old), state, carry.state),
            best_params=keep(state.model.params, carry.best_params),
            best_metric=keep(state.metric.params, carry.best_metric),
            best_score=keep(score, carry.best_score),
            best_iteration=keep(end, carry.best_iteration),
            stopped=~finite,
            failed=jnp.where(finite, carry.failed, end),
        )
        carry = carry._replace(stopped=carry.stopped | (end - carry.best_iteration >= PATIENCE))
        return carry, Report(
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

    def _test_run(self, params: PyTree, fixed: Fixed) -> Score:
        test = fixed.data.test
        return test_score(self.task, self.task.predict(params, test), test, fixed.random, fixed.optimal)
