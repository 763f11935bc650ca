"""Calls of the library: settings, sizes, environments and arrays of any type in the place of the right ones.

What a value may be is the library's to say, in a `ConfigError`. Whether arrays fit together is JAX's, whose TypeError or
ValueError names the shapes: where only arrays are wrong, these count as refusals too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import optax
from hypothesis import strategies as st

import mbrl_taskmet as library
from decision_tasks import OBJECTIVES, TASKS, Budget, CellSettings, Portfolio
from decision_tasks import run as run_cells
from decision_tasks import train as train_task
from decision_tasks.settings import cells as make_cells
from decision_tasks.training import CellTrainer
from envs.make import DISTURBANCES, make_environment
from envs.probes import Walk
from mbrl_taskmet import Config, ConfigError, Environment
from mbrl_taskmet.core.bilevel import Bilevel, Jaxopt
from mbrl_taskmet.core.settings import Option, options
from mbrl_taskmet.rl.settings import Settings
from mbrl_taskmet.rl.training import Trainer
from runs.fuzzing.judging import Case, Cut
from runs.fuzzing.sandbox import Sandbox
from runs.fuzzing.values import ANYTHING, TEXTS, drawn, likely, setting

STRICT = (ConfigError,)
OF_ARRAYS = (ConfigError, TypeError, ValueError)
SMALL = {"method": "mle", "steps": 100, "eval_every": 50, "random_steps": 20, "batch_size": 8, "model_hidden": 4}


@dataclass(frozen=True)
class Call:
    """What is called.

    Attributes:
        told: what reproduces it.
        make: of the sandbox, for those that write there.
        refusals: exceptions that are answers.
    """

    told: str
    make: Callable[[Sandbox], Any]
    refusals: tuple[type[Exception], ...] = STRICT


def cases(count: int, seed: int, sandbox: Sandbox) -> Iterator[Case]:
    """Calls of every part of the library."""
    parts = (_configurations(), _training(), _environments(), _spaces(), _solvers(), _metrics(), _bilevels(), _tasks())
    for call in drawn(st.one_of(*parts), count, seed):
        told = call.told if len(call.told) < 500 else f"{call.told[:500]}…"
        yield Case("call", told, partial(_cut, call, sandbox), False, (sandbox.case,), refusals=call.refusals)


def _cut(call: Call, sandbox: Sandbox) -> Any:
    def cut(*_: Any, **__: Any) -> Any:
        raise Cut

    with mock.patch.object(Trainer, "init", cut), mock.patch.object(CellTrainer, "init", cut):
        return call.make(sandbox)


def _given(record: type) -> st.SearchStrategy[dict[str, Any]]:
    """Settings of a tree of records, now and then one that it has not."""
    strange = st.tuples(TEXTS, ANYTHING)
    return st.lists(st.one_of(*map(setting, options(record)), strange), max_size=4).map(dict)


def _fields(record: type, most: int = 2) -> st.SearchStrategy[dict[str, Any]]:
    """Fields of one record that are settings."""

    def field(option: Option) -> st.SearchStrategy[tuple[str, Any]]:
        return st.tuples(st.just(option.field.name), likely(option) | ANYTHING)

    own = [option for option in options(record) if not option.where]
    return st.lists(st.one_of(*map(field, own)), max_size=most).map(dict) if own else st.just({})


def _configurations() -> st.SearchStrategy[Call]:
    spaces = st.sampled_from([None, library.Discrete(2), library.Box((-1.0,), (1.0,))]) | ANYTHING
    resolved = st.builds(
        lambda given, space: Call(f"Config(**{given}).resolve({space})", lambda _: Config(**given).resolve(space)),
        _given(Settings), st.just(None) | spaces,
    )  # fmt: skip
    cells = _given(CellSettings).map(lambda given: Call(f"cells({given})", lambda _: make_cells(given)))
    return resolved | cells


def _training() -> st.SearchStrategy[Call]:
    def train(what: str, value: Any) -> Call:
        arguments: dict[str, Any] = {"env": Walk(), "config": Config(**SMALL), "method": None, what: value}
        return Call(f"train(env, config, method) with {what} = {value!r}", lambda _: library.train(**arguments))

    def run(what: str, value: Any) -> Call:
        def call(sandbox: Sandbox) -> Any:
            place = sandbox.case / "run"
            arguments: dict[str, Any] = {"env": Walk(), "config": Config(**SMALL), "directory": place, what: value}
            return library.run(**_inside(arguments, sandbox))

        return Call(f"run(env, config, directory) with {what} = {value!r}", call)

    def cell(what: str, value: Any) -> Call:
        arguments: dict[str, Any] = {"task": TASKS["cubic"](), "objective": "mse", what: value}
        return Call(f"train({arguments})", lambda _: train_task(**arguments))

    def cells(what: str, value: Any) -> Call:
        def call(sandbox: Sandbox) -> Any:
            arguments = {"cells": make_cells({"method": "mse"}), "directory": sandbox.case / "run"} | {what: value}
            return run_cells(**_inside(arguments, sandbox))

        return Call(f"decision_tasks.run with {what} = {value!r}", call)

    names = st.sampled_from(["env", "config", "method"])
    others = st.sampled_from(["env", "config", "directory", "checkpoint_share", "go_on"])
    wrong = ANYTHING | st.sampled_from([Walk, Config, SMALL, Walk(), TASKS["cubic"]()])
    environment = st.builds(
        lambda name, count, kind: Call(f"make_environment({name!r}, {count!r}, disturbance={kind!r})",
                                       lambda _: make_environment(name, count, disturbance=kind)),
        st.sampled_from(["Walk", "Acrobot-v1"]) | ANYTHING, st.integers(0, 3) | ANYTHING,
        st.sampled_from(list(DISTURBANCES)) | ANYTHING,
    )  # fmt: skip
    return (
        st.builds(train, names, wrong) | st.builds(run, others, wrong) | st.builds(run, st.just("say"), ANYTHING) | environment
        | st.builds(cell, st.sampled_from(["task", "objective", "seeds", "datasets", "steps", "x64"]), wrong)
        | st.builds(cells, st.sampled_from(["cells", "directory", "checkpoint_share"]), wrong)
    )  # fmt: skip


def _inside(arguments: dict[str, Any], sandbox: Sandbox) -> dict[str, Any]:
    """Arguments whose directory, where it is a text, is one where the case may write."""
    name = arguments["directory"]
    return arguments | ({"directory": f"{sandbox.case}/{name.replace('/', '-')}"} if isinstance(name, str) and name else {})


def _arrays() -> st.SearchStrategy[Any]:
    """Arrays of small shapes and all kinds of types, and what is none."""
    shapes = st.lists(st.integers(0, 4), max_size=3).map(tuple)
    values = st.sampled_from([0.0, 1.0, -1.0, float("nan"), float("inf"), 1e30])
    types = st.sampled_from(["float32", "float16", "int32", "uint8", "bool", "complex64", "float64"])

    def made(shape: tuple[int, ...], value: float, kind: str) -> np.ndarray:
        with np.errstate(all="ignore"):
            return np.full(shape, value).astype(kind)

    return st.builds(made, shapes, values, types)


def _environments() -> st.SearchStrategy[Call]:
    right = {"name": "own", "state_names": ("x", "y"), "action_space": library.Discrete(2), "max_episode_steps": 5}
    returned = [jnp.zeros(()), jnp.zeros(2), 0.0, jnp.array(False), jnp.array(False)]

    def call(attributes: Mapping[str, Any], reset: Any, place: int, value: Any) -> Call:
        given = tuple([*returned[:place], value, *returned[place + 1 :]])
        functions = {
            "reset": lambda self, key: (jnp.zeros(()), jnp.zeros(2)) if reset is ... else reset,
            "transition": lambda self, key, state, action: given,
        }
        made = type("Own", (Environment,), {**right, **attributes, **functions})
        told = f"check_environment of {attributes}, reset {reset!r}, transition's {place} = {value!r}"
        return Call(told, lambda _: library.check_environment(made()))

    names = st.sampled_from([*right, "observation_size", "noise_dtype", "mixing", "costly_reset"])
    return st.builds(call, st.just({}) | st.dictionaries(names, ANYTHING, max_size=1), st.just(...) | ANYTHING | _arrays(),
                     st.integers(0, 5), ANYTHING | _arrays())  # fmt: skip


def _spaces() -> st.SearchStrategy[Call]:
    discrete = (ANYTHING | _arrays()).map(lambda n: Call(f"Discrete({n!r})", lambda _: library.Discrete(n)))
    bound = st.lists(st.floats(), max_size=3) | ANYTHING | _arrays()
    box = st.builds(lambda low, high: Call(f"Box({low!r}, {high!r})", lambda _: library.Box(low, high)), bound, bound)
    box_like = st.builds(
        lambda x: Call(f"Box.encode({x!r})", lambda _: library.Box((0.0,), (1.0,)).encode(jnp.asarray(x)), OF_ARRAYS), _arrays()
    )
    return discrete | box | box_like


def _solvers() -> st.SearchStrategy[Call]:
    matrix = jnp.array([[2.0, 1.0], [1.0, -1.0]])

    def settings(name: str) -> st.SearchStrategy[Call]:
        kind = library.SOLVERS[name]

        def call(given: dict[str, Any]) -> Call:
            return Call(f"{kind.__name__}(**{given}) solves",
                        lambda _: jax.eval_shape(lambda g: kind(**given)(lambda v: matrix @ v, g), jnp.ones(2)))  # fmt: skip

        return _fields(kind).map(call)

    def arrays(name: str, g: Any) -> Call:
        return Call(f"SOLVERS[{name!r}]()(product, {g!r})",
                    lambda _: library.SOLVERS[name]()(lambda v: matrix @ v, g), OF_ARRAYS)  # fmt: skip

    names = st.sampled_from(sorted(library.SOLVERS))
    return names.flatmap(settings) | st.builds(arrays, names, _arrays())


def _metrics() -> st.SearchStrategy[Call]:
    def settings(name: str) -> st.SearchStrategy[Call]:
        kind = library.METRICS[name]

        def call(given: dict[str, Any]) -> Call:
            def loss(_: Sandbox) -> Any:
                metric = kind(**given)
                params = metric.init(jax.random.key(0), 2, 1)
                return jax.eval_shape(metric.loss, params, jnp.ones((3, 2)), jnp.ones((3, 1)), jnp.ones((3, 2)))

            return Call(f"{kind.__name__}(**{given}).loss", loss)

        return _fields(kind).map(call)

    def arrays(name: str, observation: Any, action: Any, error: Any) -> Call:
        def loss(_: Sandbox) -> Any:
            metric = library.METRICS[name]()
            return jax.eval_shape(metric.loss, metric.init(jax.random.key(0), 2, 1), observation, action, error)

        return Call(f"METRICS[{name!r}]().loss(φ, {observation!r}, {action!r}, {error!r})", loss, OF_ARRAYS)

    names = st.sampled_from(sorted(library.METRICS))
    return names.flatmap(settings) | st.builds(arrays, names, _arrays(), _arrays(), _arrays())


def _bilevels() -> st.SearchStrategy[Call]:
    right: dict[str, Any] = {
        "predict": lambda theta, batch: batch @ theta, "weigh": lambda phi, batch: jnp.broadcast_to(phi, (len(batch),)),
        "loss": lambda prediction, weights, batch: jnp.mean(weights * prediction**2),
        "task_loss": lambda prediction, batch: jnp.mean(prediction), "optimizer": optax.sgd(0.1),
        "metric_optimizer": optax.sgd(0.1),
    }  # fmt: skip
    others = ("inner", "solver", "inner_steps", "warmup", "tolerance", "inner_batch", "outer_batch", "implicit_batch")

    def call(what: str, value: Any, data: Any) -> Call:
        def iterate(_: Sandbox) -> Any:
            bilevel = Bilevel(**{**right, what: value})
            state = bilevel.init(jnp.ones(2), jnp.ones(()))
            return jax.eval_shape(bilevel.iterate, state, data, jax.random.key(0))

        return Call(f"Bilevel with {what} = {value!r}", iterate)

    sizes = st.integers(0, 20) | ANYTHING | st.sampled_from(sorted(library.SOLVERS)).map(lambda name: library.SOLVERS[name]())
    jaxopt = (st.sampled_from(["LBFGS", "lbfgs"]) | ANYTHING).map(
        lambda name: Call(f"Jaxopt({name!r})", lambda _: Jaxopt(name))
    )
    data = st.just(jnp.ones((5, 2)))
    functions = st.builds(call, st.sampled_from(sorted(right)), ANYTHING, data)
    return functions | st.builds(call, st.sampled_from(others), sizes, data) | jaxopt


def _tasks() -> st.SearchStrategy[Call]:
    """Tasks and objectives made in Python, and trained up to their first step."""

    def task(name: str) -> st.SearchStrategy[Call]:
        def call(given: dict[str, Any]) -> Call:
            sizes = {"datasets": 1, "seeds": 1}
            return Call(f"train({TASKS[name].__name__}(**{given}), 'mse')",
                        lambda _: train_task(TASKS[name](**given), "mse", **sizes))  # fmt: skip

        return _fields(TASKS[name], 3).map(call)

    def objective(name: str) -> st.SearchStrategy[Call]:
        def call(given: dict[str, Any]) -> Call:
            return Call(f"train(Cubic(), {OBJECTIVES[name].__name__}(**{given}))",
                        lambda _: train_task(TASKS["cubic"](), OBJECTIVES[name](**given)))  # fmt: skip

        return _fields(OBJECTIVES[name], 3).map(call)

    def with_array(kind: type, name: str, value: Any) -> Call:
        return Call(f"{kind.__name__}({name}={value!r})", lambda _: kind(**{name: value}))

    array = _arrays() | ANYTHING
    return (
        st.sampled_from(sorted(TASKS)).flatmap(task) | st.sampled_from(sorted(OBJECTIVES)).flatmap(objective)
        | st.builds(partial(with_array, Budget, "rates"), array) | st.builds(partial(with_array, Portfolio, "prices"), array)
    )  # fmt: skip
