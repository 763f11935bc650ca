"""The loop of a sweep: blocks are started, tried again where they fail, and asked to end when the sweep is."""

from __future__ import annotations

import time
from collections import deque
from pathlib import Path

from mbrl_taskmet.runner.records import write_text
from mbrl_taskmet.runner.signals import StopSignal
from runs.blocks import Block
from runs.sweeping.engines import Engine, Task
from runs.sweeping.status import failure_of

_POLL_SECONDS = 0.2


def train_all(blocks: list[Block], engine: Engine, cpus: int, gpus: float, retries: int, stop: StopSignal) -> dict[Path, str]:
    """Train blocks until each has ended well or failed, or `stop` is true and what runs has ended.

    Args:
        blocks: what is due.
        engine: starts them.
        cpus: CPU cores of each.
        gpus: GPUs of each.
        retries: how often a block that failed goes on from its last checkpoint.
        stop: true once the sweep is asked to end.

    Returns:
        Why blocks failed, in one line each, by their directories. It is also in a file beside them.
    """
    waiting = deque((block, 0) for block in blocks)
    running: dict[Task, tuple[Block, int]] = {}
    failed: dict[Path, str] = {}
    asked, done = False, 0
    while running or (waiting and not stop):
        if stop and not asked:
            asked = True
            for task in running:
                task.cancel()
        while waiting and not stop and (engine.most is None or len(running) < engine.most):
            block, tries = waiting.popleft()
            failure_of(block.directory).unlink(missing_ok=True)
            order = (str(block.directory.absolute()), dict(block.config.given), cpus, gpus)
            running[engine.start(order)] = block, tries
        for task in [task for task in running if task.done()]:
            block, tries = running.pop(task)
            reason = task.result()
            name, line = "/".join(block.directory.parts[-2:]), reason.split("\n")[0]
            if not reason:
                done += 1
                print(f"{name} is done, {done} of {len(blocks)}", flush=True)
            elif not stop and tries < retries:
                print(f"{name}: {line}; it goes on from its last checkpoint, try {tries + 2} of {retries + 1}", flush=True)
                waiting.append((block, tries + 1))
            elif not stop:
                failed[block.directory] = line
                block.directory.parent.mkdir(parents=True, exist_ok=True)
                write_text(failure_of(block.directory), f"{reason.rstrip()}\n")
                print(f"{name} failed: {line}", flush=True)
        time.sleep(_POLL_SECONDS)
    return failed
