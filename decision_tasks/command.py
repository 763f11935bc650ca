"""`python -m decision_tasks`: train the cells that are asked for, with progress, records and checkpoints, or resume."""

from __future__ import annotations

import shlex
from functools import partial
from pathlib import Path
from typing import Any

from decision_tasks.saved import check_given, read_saved
from decision_tasks.settings import CellSettings, cells
from mbrl_taskmet.runner.command import Parser, command, start_jax
from mbrl_taskmet.runner.rundir import free_directory, resumed_directory, saved_settings

_MAX_CPU_DEVICES = 64


@command
def main(argv: list[str] | None = None) -> int:
    """Run the command.

    The exit code is 0, 2 for bad input, and 128 + the signal's number for a run that was stopped: 130 after Ctrl-C.
    """
    parser = Parser(
        prog="python -m decision_tasks",
        description="Train predictors for the decisions that are taken on them, and write Tables 2 and 3 of TaskMet.",
    )
    parser.add_settings(CellSettings)
    parser.add_directory(resume="continue the run in DIR: finished cells are kept, the others go on")
    given, rest = parser.read(argv)
    wanted, free = (_new if rest["resume"] is None else _resumed)(given, rest)
    # More devices than cores: runs stop at different times, and the operating system evens that out.
    start_jax(min(max(cell.runs for cell in wanted), _MAX_CPU_DEVICES))

    from decision_tasks.job import run
    from mbrl_taskmet.runner.claim import in_first_free

    def start(directory: Path) -> int:
        go_on = f"python -m decision_tasks --resume {shlex.quote(str(directory))}"
        print(run(wanted, directory, go_on=go_on, say=partial(print, flush=True)).text)
        return 0

    return in_first_free(free, rest["name"] is not None or rest["resume"] is not None, start)


def _new(given: dict[str, Any], rest: dict[str, Any]) -> tuple[tuple[CellSettings, ...], Path]:
    """The cells, and the run's directory, which is not made yet."""
    wanted = cells(given)
    first = wanted[0]
    parts = ["decision", given.get("task") or first.names["task"], given.get("method") or first.names["method"],
             f"{first.datasets}x{first.seeds}"]  # fmt: skip
    named = {name: value for name, value in given.items() if name not in ("task", "method", "datasets", "seeds")}
    return wanted, free_directory(rest["name"], rest["logdir"], parts, named)


def _resumed(given: dict[str, Any], rest: dict[str, Any]) -> tuple[tuple[CellSettings, ...], Path]:
    """The cells of the run in a directory."""
    directory = resumed_directory(rest["resume"], rest["name"], rest["logdir"])
    wanted = saved_settings(directory, read_saved)
    check_given(directory, given, wanted)
    return wanted, directory
