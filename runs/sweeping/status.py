"""The progress of a sweep from its files alone, also while it runs or from another machine."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from statistics import mean
from typing import NamedTuple

from mbrl_taskmet.core.settings import ConfigError
from mbrl_taskmet.runner.claim import LOCK, is_held
from mbrl_taskmet.runner.records import read_json, read_rows, shortened, write_json

PLAN = "sweep.json"
"""The steps of each of its blocks, by "combination/seeds"."""
STATES = ("done", "running", "failed", "waiting")
_RECENT_SECONDS = 60


class State(NamedTuple):
    """Where a block is.

    Attributes:
        name: its directory in the sweep's.
        state: one of `STATES`.
        step: of its last evaluation.
        steps: in all.
        seconds: that it has trained.
        reason: why it failed, in one line.
    """

    name: str
    state: str
    step: int
    steps: int
    seconds: float
    reason: str = ""

    @property
    def pace(self) -> float | None:
        """Seconds of a step, or None where that is not known yet."""
        return self.seconds / self.step if self.step else None


def failure_of(directory: Path) -> Path:
    """The file that says why a block failed; beside its directory, which is its run's alone."""
    return directory.with_name(f"{directory.name}.failed")


def write_plan(directory: Path, steps: Mapping[str, int]) -> None:
    """Note which blocks a sweep in `directory` has, and the steps of each."""
    write_json(directory / PLAN, {"blocks": dict(steps)})


def status(directory: Path) -> str:
    """A text of what is done, running and failed, why, and the time left.

    Raises:
        ConfigError: the directory holds no sweep, or its plan is damaged.
    """
    states = [_state(directory / name, name, steps) for name, steps in _plan(directory).items()]
    count = Counter(state.state for state in states)
    told = ", ".join(f"{count[state]} {state}" for state in STATES)
    lines = [f"{len(states)} blocks: {told}; {_told_left(states)}"]
    for kind in STATES[1:]:
        for state in (state for state in states if state.state == kind):
            reason = f": {state.reason}" if state.reason else ""
            if state.step or state.state != "waiting":
                lines.append(f"{state.state:8} {state.name}, step {state.step} of {state.steps}{reason}")
    return "\n".join(lines)


def _plan(directory: Path) -> dict[str, int]:
    path = directory / PLAN
    if not path.exists():
        raise ConfigError(f"{directory} holds no sweep (no {PLAN} in it); give the directory of one to --status")
    try:
        blocks = read_json(path)["blocks"]
        if not all(type(steps) is int and steps > 0 for steps in blocks.values()):
            raise ValueError("steps are no whole number above 0")
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ConfigError(f"{path} is damaged ({shortened(error)}); give the command of the sweep again") from None
    return dict(blocks)


def _state(directory: Path, name: str, steps: int) -> State:
    """Where a block is; a record that is damaged is why it fails."""
    try:
        summary = read_json(directory / "summary.json")
        if summary["env_steps"] >= steps:  # else it is of a run that is to have more
            return State(name, "done", steps, steps, summary["wall_seconds"])
    except (OSError, ValueError, LookupError, TypeError):
        pass
    try:
        rows = read_rows(directory)
    except ConfigError as error:
        return State(name, "failed", 0, steps, 0.0, str(error))
    step, seconds = (rows[-1]["step"], rows[-1].get("wall_seconds") or 0.0) if rows else (0, 0.0)
    if is_held(directory) or _written_lately(directory):
        return State(name, "running", step, steps, seconds)
    failure = failure_of(directory)
    if failure.is_file():
        reason = failure.read_text(encoding="utf-8", errors="replace").split("\n")[0]
        return State(name, "failed", step, steps, seconds, reason)
    return State(name, "waiting", step, steps, seconds)


def _written_lately(directory: Path) -> bool:
    """Whether a block that has not ended grew just now, for file systems that do not show the locks of other machines."""
    try:
        return (directory / LOCK).exists() and time.time() - (directory / "metrics.jsonl").stat().st_mtime < _RECENT_SECONDS
    except OSError:
        return False


def _told_left(states: list[State]) -> str:
    """The time until all is done, if as many blocks run side by side as now."""
    left = [state for state in states if state.state in ("running", "waiting")]
    running = sum(state.state == "running" for state in left)
    if not left:
        return "nothing is left" if all(state.state == "done" for state in states) else "nothing runs"
    if not running:
        return "nothing runs; give the command of the sweep again"
    paces = [state.pace for state in states if state.pace is not None]
    if not paces:
        return "the time left is not known yet"
    seconds = sum((state.steps - state.step) * (state.pace or mean(paces)) for state in left) / running
    return f"about {_duration(seconds)} left"


def _duration(seconds: float) -> str:
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds > 1.5 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} seconds"
