"""Timing of programs against each other."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

REPEATS = 7


def interleaved(programs: dict[str, Callable[[], None]]) -> dict[str, float]:
    """Median seconds of each program, run in turn so that a slow moment of the machine hits all alike."""
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    for repeat in range(REPEATS + 1):
        for name, program in programs.items():
            begin = time.perf_counter()
            program()
            if repeat:  # the first compiles
                seconds[name].append(time.perf_counter() - begin)
    return {name: statistics.median(values) for name, values in seconds.items()}
