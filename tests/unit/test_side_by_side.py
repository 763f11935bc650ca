"""The program of runs side by side, which an accelerator runs: what must not be in it. It is traced, not compiled."""

from __future__ import annotations

from collections import Counter
from typing import Any

import jax
import pytest

from envs.probes import Walk, WalkBox
from mbrl_taskmet import Config
from mbrl_taskmet.rl.environment import Environment
from mbrl_taskmet.rl.make import make_method
from mbrl_taskmet.rl.methods import METHODS
from mbrl_taskmet.rl.training import Trainer, resolved
from mbrl_taskmet.runner.memory import _equations

ENVIRONMENTS: dict[str, type[Environment]] = {"soft_q": Walk, "sac": WalkBox}
SIZES: dict[str, Any] = {"steps": 32, "eval_every": 32, "random_steps": 8, "batch_size": 8, "eval_episodes": 1, "seeds": 3}
HOST = ("callback", "infeed", "outfeed", "debug_print")
FACTORS = ("cholesky", "qr", "lu", "geqrf", "householder_product")
"""Batched, these deadlock on several CPU devices, and are slow on an accelerator."""
QUICK = ("omd", "taskmet")


def equations(method: str, critic: str, vmapped: bool) -> list[Any]:
    env = ENVIRONMENTS[critic]()
    settings = resolved(env, Config(method=method, **SIZES))
    trainer = Trainer(env, make_method(env, settings), settings, jax.devices()[:1], vmapped=vmapped)
    return list(_equations(trainer.traced.jaxpr.jaxpr))


@pytest.mark.parametrize("critic", ENVIRONMENTS)
@pytest.mark.parametrize("method", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in METHODS])
def test_nothing_calls_the_host_or_factors_batches(method: str, critic: str) -> None:
    names = Counter(equation.primitive.name for equation in equations(method, critic, vmapped=True))
    assert not [name for name in names if any(part in name for part in HOST)]
    assert not names.keys() & set(FACTORS)


def test_the_branch_of_the_metric_stays_a_branch() -> None:
    """A step is the same for all runs, so that steps without one of the metric's cost nothing of it."""
    side_by_side, in_turn = (
        Counter(equation.primitive.name for equation in equations("taskmet", "soft_q", vmapped))["cond"]
        for vmapped in (True, False)
    )
    assert side_by_side == in_turn > 0
