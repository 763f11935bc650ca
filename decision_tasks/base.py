"""What a decision task is: data, the value of a decision, the best decision for a prediction, and its relaxation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from mbrl_taskmet.core.networks import UniformMLP, apply
from mbrl_taskmet.core.settings import ConfigError
from mbrl_taskmet.core.settings_tree import check_fields

PyTree = Any


class Data(NamedTuple):
    """Instances of a task, one decision each; every leaf has a leading axis of instances.

    Attributes:
        x: (instances, items, features), what is known of each item.
        y: (instances, items, targets), what has to be predicted.
        given: what a decision depends on besides y, handed to `value`, `decide` and `relax`; () for most tasks.
    """

    x: jax.Array
    y: jax.Array
    given: PyTree = ()


class Split(NamedTuple):
    """One data set."""

    train: Data
    validation: Data
    test: Data


@dataclass(frozen=True, eq=False)
class Task:
    """A decision task. Subclasses give `data`, `value`, `decide` and, for objectives that differentiate it, `relax`.

    A prediction or truth y is (items, targets); a decision z is whatever `decide` returns. All three functions take one
    instance and are batched outside. The class attributes are the predictor and the settings of TaskMet's Table 4. A task is
    a record: fields that are made by `setting` become flags once the task is in `settings.TASKS`.
    """

    name: ClassVar[str]
    hidden: ClassVar[tuple[int, ...]] = ()  # layers of the predictor
    learning_rate: ClassVar[float] = 1e-2  # Adam's, for the predictor
    outer_batch: ClassVar[int] = 50  # instances in TaskMet's outer loss
    lodl_std: ClassVar[float | None] = None  # spread of LODL's samples around y; that of y itself by default
    lodl_learning_rate: ClassVar[float] = 0.01  # Adam's, for LODL's fitted losses

    def __post_init__(self) -> None:
        check_fields(self)

    def data(self, key: jax.Array) -> Split:
        """One data set. `key` is consumed."""
        raise NotImplementedError(f"{type(self).__name__} does not say where its data comes from")

    def value(self, z: jax.Array, y: jax.Array, given: PyTree = ()) -> jax.Array:
        """g(z, y), what decision z is worth when the truth is y: scalar, to be maximised."""
        raise NotImplementedError(f"{type(self).__name__} does not say what a decision is worth")

    def decide(self, y: jax.Array, given: PyTree = ()) -> jax.Array:
        """argmax_z g(z, y), as it is taken at test time."""
        raise NotImplementedError(f"{type(self).__name__} does not say how it decides")

    def relax(self, y: jax.Array, given: PyTree = ()) -> jax.Array:
        """A decision that is differentiable in y, for training."""
        raise ConfigError(f"the task {self.name} has no relaxed decision to differentiate; use mse or lodl, or write its relax")

    def drawn(self, seed: int) -> Task:
        """The task with what is drawn at random once for all its data sets; itself where nothing is.

        Args:
            seed: numbers the random stream.
        """
        del seed
        return self

    @property
    def notes(self) -> tuple[str, ...]:
        """What is worth knowing of the data before it is used, in sentences."""
        return ()

    @property
    def inputs(self) -> dict[str, str]:
        """A fingerprint of each file that a setting names, by the setting's name: other contents are another task."""
        return {}

    @property
    def decisions(self) -> Mapping[str, tuple[float, Task]]:
        """What is decided on one prediction, by name: each its weight w_k, and the task that decides; by default itself alone.

        Of several, the value of a prediction is Σ_k w_k g_k(z_k, y).
        """
        return {self.name: (1.0, self)}

    @property
    def relaxed(self) -> bool:
        """Whether the task has a relaxation."""
        return type(self).relax is not Task.relax

    def activation(self, output: jax.Array) -> jax.Array:
        """What follows the predictor's last layer, elementwise."""
        return output

    def predict(self, params: PyTree, batch: Data) -> jax.Array:
        """ŷ (instances, items, targets) of the predictor, row by row."""
        return self.activation(apply(self._network(batch.y.shape[-1]), params, batch.x))

    def init(self, key: jax.Array, batch: Data) -> PyTree:
        """The predictor's parameters. `key` is consumed."""
        return self._network(batch.y.shape[-1]).init(key, batch.x[0, 0])

    def _network(self, targets: int) -> nn.Module:
        return UniformMLP(self.hidden, targets)


def value_of_decisions(task: Task, prediction: jax.Array, y: jax.Array, given: PyTree = ()) -> jax.Array:
    """Σ_k w_k g_k(decide_k(ŷ), y) over the decisions of one instance, scalar."""
    return _weighted(task, lambda one: one.value(one.decide(prediction, given), y, given))


def value_of_relaxations(task: Task, prediction: jax.Array, y: jax.Array, given: PyTree = ()) -> jax.Array:
    """Σ_k w_k g_k(relax_k(ŷ), y) over the decisions of one instance, scalar."""
    return _weighted(task, lambda one: one.value(one.relax(prediction, given), y, given))


def _weighted(task: Task, value: Callable[[Task], jax.Array]) -> jax.Array:
    return jnp.sum(jnp.stack([weight * value(one) for weight, one in task.decisions.values()]))


def decided_value(task: Task, prediction: jax.Array, batch: Data) -> jax.Array:
    """`value_of_decisions` of every instance, (instances,)."""
    return jax.vmap(partial(value_of_decisions, task))(prediction, batch.y, batch.given)


def relaxed_value(task: Task, prediction: jax.Array, batch: Data) -> jax.Array:
    """`value_of_relaxations` of every instance, (instances,)."""
    return jax.vmap(partial(value_of_relaxations, task))(prediction, batch.y, batch.given)


def squared_error(prediction: jax.Array, batch: Data) -> jax.Array:
    """The mean of (ŷ − y)² over instances, items and targets, scalar."""
    return jnp.mean((prediction - batch.y) ** 2)


def standardize(train: jax.Array, values: jax.Array, axis: int | tuple[int, ...]) -> jax.Array:
    """`values` less the mean of `train` over `axis`, in its standard deviations; what is constant there becomes 0."""
    mean, std = jnp.mean(train, axis, keepdims=True), jnp.std(train, axis, keepdims=True)
    constant = std <= 1e-6 * jnp.abs(mean)
    return jnp.where(constant, 0.0, (values - mean) / jnp.where(constant, 1.0, std))


def split(data: Data, train: int, validation: int) -> Split:
    """The first `train` instances, the next `validation`, and the rest."""
    parts = slice(train), slice(train, train + validation), slice(train + validation, None)
    return Split(*(jax.tree.map(lambda leaf, part=part: leaf[part], data) for part in parts))
