"""What `runs.accelerator` measures in processes of its own: agreement with a CPU, and the speed of many runs in one program.

A measurement takes the number of a case and whether this is a rehearsal, and yields what it finds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mbrl_taskmet.rl.training import Trainer

COUNTS, DISTRACTORS = (64, 1, 16, 128, 1024), (8, 128)
UPDATES = 200
Found = dict[str, Any]


def agreement(case: int, rehearse: bool) -> Iterator[Found]:
    """The largest difference of what 200 updates leave, relative to the largest number of each array."""
    import jax
    import numpy as np

    from envs.make import make_environment
    from mbrl_taskmet import Config
    from mbrl_taskmet.rl.make import make_method
    from mbrl_taskmet.rl.training import Trainer, resolved

    name, method = places()[case]
    env, steps = make_environment(name, distractors=8), UPDATES + 64
    short: Found = {"steps": steps, "eval_every": steps, "random_steps": 64, "batch_size": 64, "eval_episodes": 1}
    at_once = {"metric_warmup": 0} if method == "taskmet" else {}
    settings = resolved(env, Config(method=method, seeds=2, x64=True, **short, **at_once))
    learned = []
    for devices, vmapped in ((jax.devices()[:1], True), (jax.devices("cpu")[:1], False)):
        trainer = Trainer(env, make_method(env, settings), settings, devices, vmapped=vmapped)
        carry, _ = trainer.chunk(trainer.init(), 0)
        learned.append(jax.tree.leaves(trainer.axis.to_host(carry.learner)))
    differences = (np.abs(a - b).max() / max(np.abs(b).max(), 1e-12) for a, b in zip(*learned, strict=True) if b.size)
    yield {"method": method, "environment": name, "largest difference": float(max(differences))}


def compiling(case: int, rehearse: bool) -> Iterator[Found]:
    """Compile a program of `throughput` for the cache, from which that takes it."""
    runs, distractors = sizes(rehearse)[case]
    seconds = _timed_trainer(runs, distractors).compile()
    yield {"runs": runs, "distractors": distractors, "compile seconds": seconds}


def throughput(case: int, rehearse: bool) -> Iterator[Found]:
    """Steps per second of TaskMet's default, its metric moving: the median of chunks of 400 steps after the first two."""
    import statistics

    import jax

    from mbrl_taskmet.runner.memory import required_bytes
    from runs.programs import STEPS

    for runs, distractors in sizes(rehearse):
        timed = _timed_trainer(runs, distractors)
        timed.compile()
        seconds, carry = [], timed.init()
        for chunk in range(5):
            begin = time.perf_counter()
            carry, _ = jax.block_until_ready(timed.chunk(carry, chunk * STEPS))
            seconds.append(time.perf_counter() - begin)
        speed = runs * STEPS / statistics.median(seconds[2:])
        peak = (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
        yield {
            "runs": runs, "distractors": distractors, "steps per second": speed,
            "minutes of 100k steps": 1e5 * runs / speed / 60, "predicted GB": required_bytes(timed) / 1e9,
            "peak GB so far": None if peak is None else peak / 1e9,
        }  # fmt: skip
        del carry


def places() -> list[tuple[str, str]]:
    """Environments and methods whose agreement is measured."""
    from mbrl_taskmet import METHODS

    return [("CartPole-v1", method) for method in METHODS] + [("Pendulum-v1", "taskmet")]


def sizes(rehearse: bool) -> list[tuple[int, int]]:
    """Runs and distractors of each program, the most telling first."""
    return [(1, 8), (16, 8)] if rehearse else [(count, noise) for noise in DISTRACTORS for count in COUNTS]


def cases(name: str, rehearse: bool) -> int:
    """How many cases a measurement has, each for a process of its own."""
    return {"agreement": 2 if rehearse else len(places()), "compiling": len(sizes(rehearse))}.get(name, 1)


def _timed_trainer(runs: int, distractors: int) -> Trainer:
    from runs.programs import trainer

    return trainer({}, seeds=runs, steps=100_000, distractors=distractors)


INSIDE: dict[str, Callable[[int, bool], Iterator[Found]]] = {
    "agreement": agreement, "compiling": compiling, "throughput": throughput,
}  # fmt: skip
"""What is measured by this file, in processes of its own."""
