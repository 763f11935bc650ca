"""L_task of predictions: one loss, or several by name with their weights, L_task = Σ_k w_k L_k."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax

from mbrl_taskmet.core.settings import ConfigError, shown

PyTree = Any
One = Callable[[PyTree, PyTree], jax.Array]
"""(ŷ, batch) → its value, scalar."""
TaskLoss = One | Mapping[str, tuple[float, One]]
"""A loss, or several: name → (w_k, L_k). Only the weights' ratios are a choice where Adam, blind to scale, moves the metric."""


def check_task_loss(given: Any, what: str) -> None:
    """Raise ConfigError, which calls it `what`, unless it is a loss or several by name with their weights."""
    if callable(given):
        return
    if not isinstance(given, Mapping) or not given:
        raise ConfigError(f"{what} is {shown(given)}; give a function, or several as {{name: (weight, function)}}")
    for name, pair in given.items():
        if not (isinstance(name, str) and isinstance(pair, tuple) and len(pair) == 2 and callable(pair[1])):
            raise ConfigError(f"{what} has {shown(pair)} for {shown(name)}; give a name with (weight, function)")
        if not (isinstance(pair[0], (int, float)) and 0 <= pair[0] < math.inf):
            raise ConfigError(f"{what} has the weight {shown(pair[0])} for {name!r}; give a finite number of 0 or more")
    if not any(weight for weight, _ in given.values()):
        raise ConfigError(f"{what} has no weight above 0, and nothing would be learned; give one")


def evaluate(task_loss: TaskLoss, prediction: PyTree, batch: PyTree) -> tuple[jax.Array, dict[str, jax.Array]]:
    """L_task, and each L_k by name without its weight where there are several; all scalar."""
    if callable(task_loss):
        return task_loss(prediction, batch), {}
    losses = {name: loss(prediction, batch) for name, (_, loss) in task_loss.items()}
    return jax.numpy.stack([weight * losses[name] for name, (weight, _) in task_loss.items()]).sum(), losses
