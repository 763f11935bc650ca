"""The memory a run is said to need, against the arrays it really has."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import pytest

from envs.distractors import Distractors
from envs.probes import Walk
from mbrl_taskmet import Config, ConfigError
from mbrl_taskmet.rl.make import make_method
from mbrl_taskmet.rl.training import Trainer
from mbrl_taskmet.runner.memory import PROCESS_BYTES, check_memory, gigabytes, required_bytes

MEDIUM = {"steps": 200_000, "seeds": 3}


def trainer(distractors: int = 100, **settings: Any) -> Trainer:
    env, resolved = Distractors(Walk(), distractors), Config(**{**MEDIUM, **settings}, distractors=distractors).resolve()
    return Trainer(env, make_method(env, resolved), resolved)


def predicted(distractors: int = 100, **settings: Any) -> int:
    """Beyond the process itself."""
    return required_bytes(trainer(distractors, **settings)) - PROCESS_BYTES


def real(distractors: int = 100, **settings: Any) -> int:
    """Bytes of the carry of every seed; its shapes are known without making it."""
    made = trainer(distractors, **settings)
    with jax.enable_x64(made.settings.x64):
        carry = jax.eval_shape(made._init_seeds, jnp.arange(made.settings.seeds, dtype=jnp.int32))
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(carry))


REPLAY_DOMINATES: list[dict[str, Any]] = [
    {"method": "mle"},
    {"method": "omd", "x64": True},
    {"distractors": 512},
    {"preset": "paper-code", "distractors": 50},
]
LEARNER_COUNTS: list[dict[str, Any]] = [
    {"replay_capacity": 2000},
    {"distractors": 2000, "steps": 2000},
    {"preset": "paper-code", "distractors": 512, "steps": 2000},
    {"metric": "full", "metric_input": "state_action", "distractors": 16, "steps": 2000},
]


@pytest.mark.parametrize("settings", REPLAY_DOMINATES, ids=str)
def test_the_prediction_is_what_the_arrays_take_and_at_most_a_fifth_more(settings: dict[str, Any]) -> None:
    assert real(**settings) <= predicted(**settings) <= 1.2 * real(**settings)


@pytest.mark.parametrize("settings", LEARNER_COUNTS, ids=str)
def test_the_prediction_is_never_less_than_what_the_arrays_take(settings: dict[str, Any]) -> None:
    assert real(**settings) <= predicted(**settings)


@pytest.mark.parametrize(
    "more",
    [
        {"distractors": 101}, {"steps": 201_000}, {"seeds": 4}, {"model_hidden": 64}, {"q_hidden": 64}, {"batch_size": 512},
        {"x64": True}, {"metric_input": "state"}, {"solver": "dense"},
    ],
    ids=str,
)  # fmt: skip
def test_more_of_anything_needs_more_memory(more: dict[str, Any]) -> None:
    assert predicted(**more) > predicted()


def test_a_smaller_replay_needs_less_and_a_larger_one_than_the_run_no_more() -> None:
    assert predicted(replay_capacity=100_000) < predicted()
    assert predicted(replay_capacity=10**9) == predicted()


def test_what_does_not_fit_is_refused_with_its_size_and_what_there_is() -> None:
    with pytest.raises(
        ConfigError, match=r"100 distractors would need 1000000.0 GB and this machine has \d+\.\d GB; give fewer"
    ):
        check_memory(10**15, "Walk with 100 distractors")


def test_what_fits_is_let_through() -> None:
    check_memory(10**6, "Walk with 100 distractors")


def test_gigabytes_are_for_people() -> None:
    assert gigabytes(4_567_000_000) == "4.6 GB"
