"""How good predictions are: the value of the decisions on them, between random and optimal ones, and their squared error."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from decision_tasks.base import Data, Task, decided_value, squared_error

_RANDOM_DRAWS = 10  # random predictions of each test instance


class Score(NamedTuple):
    """A predictor on a data set's test instances."""

    normalized_dq: jax.Array  # (DQ − random)/(optimal − random)
    test_mse: jax.Array
    value: jax.Array  # DQ: mean value of the hard decisions
    random: jax.Array  # of decisions on U(0, 1) predictions
    optimal: jax.Array  # of decisions on the truth


def scale(task: Task, key: jax.Array, test: Data) -> tuple[jax.Array, jax.Array]:
    """The mean value of decisions on U(0, 1) predictions and on the truth, two scalars. `key` is consumed."""
    draws = [BASELINES["random"](jax.random.fold_in(key, draw), test.y) for draw in range(_RANDOM_DRAWS)]
    random = jnp.mean(jnp.stack([jnp.mean(decided_value(task, draw, test)) for draw in draws]))
    return random, jnp.mean(decided_value(task, test.y, test))


def test_score(task: Task, prediction: jax.Array, test: Data, random: jax.Array, optimal: jax.Array) -> Score:
    """The score of predictions on a data set whose `scale` is (random, optimal)."""
    value = jnp.mean(decided_value(task, prediction, test))
    return Score((value - random) / (optimal - random), squared_error(prediction, test), value, random, optimal)


BASELINES: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
    "zero": lambda key, y: jnp.zeros_like(y),
    "random": lambda key, y: jax.random.uniform(key, y.shape, y.dtype),
    "optimal": lambda key, y: y,
}
"""Predictors that learn nothing, from a key and the truth."""


def baseline_scores(task: Task, key: jax.Array, test: Data, random: jax.Array, optimal: jax.Array) -> dict[str, Score]:
    """The scores of `BASELINES` on a data set whose `scale` is (random, optimal), by their names."""
    predictions = {name: predict(key, test.y) for name, predict in BASELINES.items()}
    return {name: test_score(task, prediction, test, random, optimal) for name, prediction in predictions.items()}
