"""A case, and what its answer is worth."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from mbrl_taskmet.core.settings import ConfigError

ANSWERS = ("accepted", "refused")
FINDINGS = {
    "traceback": "an exception that is no refusal",
    "hang": "no answer within the limit",
    "escaped": "a file created or changed outside the run's directory, or anywhere by what was refused",
    "silent": "a damaged file that is not named, and changes what comes out",
    "unclear": "an exit code that is neither 0 nor 2, or no single sentence",
}
INTERRUPTED = 130
Snapshot = dict[str, tuple[int, ...]]


class Cut(BaseException):
    """Training would begin here: everything before it was accepted."""


class Hang(BaseException):
    """The watchdog's."""


@dataclass(frozen=True)
class Case:
    """One call that is tried.

    Attributes:
        kind: what is mutated.
        told: what reproduces it.
        call: a command's call gives its exit code; a call of the library gives anything.
        is_command: whether it does.
        writes: where it may write.
        check: what is wrong with the result of a call that was accepted, or None.
        refusals: what the library may raise to refuse it.
    """

    kind: str
    told: str
    call: Callable[[], Any]
    is_command: bool = True
    writes: tuple[Path, ...] = ()
    check: Callable[[], str | None] = lambda: None
    refusals: tuple[type[Exception], ...] = (ConfigError,)


def judge(case: Case, root: Path, limit: float) -> tuple[str, str]:
    """The answer to a case or the kind of its finding, and what was printed.

    Args:
        case: is tried.
        root: of all files there are to write to.
        limit: seconds that it may take.
    """
    before = snapshot(root)
    answer, printed = _answer(case, limit)
    after = snapshot(root)
    changed = sorted(path for path in before.keys() | after.keys() if before.get(path) != after.get(path))
    mine = [str(place) for place in case.writes] if answer == "accepted" else []
    strange = [path for path in changed if not any(path == place or path.startswith(f"{place}{os.sep}") for place in mine)]
    if strange and answer in ANSWERS:
        return "escaped", f"{os.path.relpath(strange[0], root)}, {answer}: {printed}"
    if answer == "accepted" and (fault := case.check()):
        return "silent", fault
    return answer, printed


def snapshot(root: Path) -> Snapshot:
    """Every file and directory below one; of a file what changes when it is written."""
    found: Snapshot = {}
    for place, folders, files in os.walk(root):
        found |= {os.path.join(place, name): () for name in folders}
        for name in files:
            known = os.lstat(os.path.join(place, name))
            found[os.path.join(place, name)] = (known.st_ino, known.st_size, known.st_mtime_ns)
    return found


def _answer(case: Case, limit: float) -> tuple[str, str]:
    error = io.StringIO()
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(error), _watchdog(limit):
            code = case.call()
    except Cut:
        code = 0
    except SystemExit as end:  # of --help
        code = end.code or 0
    except Hang as hang:
        return "hang", str(hang)
    except Exception as failure:
        return _of_library(case, failure)
    if not case.is_command:
        return "accepted", ""
    if code == INTERRUPTED:
        raise KeyboardInterrupt
    return _of_command(code, error.getvalue())


def _of_library(case: Case, failure: Exception) -> tuple[str, str]:
    """What an exception is worth, which no command may let pass."""
    if case.is_command or not isinstance(failure, case.refusals):
        return "traceback", _brief(failure)
    if isinstance(failure, ConfigError) and ("\n" in str(failure) or not str(failure)):
        return "unclear", _brief(failure)
    return "refused", str(failure)


def _of_command(code: Any, error: str) -> tuple[str, str]:
    """What an exit code and the standard error are worth: warnings come before, each a line."""
    lines = [line for line in error.splitlines() if not line.startswith("warning: ")]
    if "Traceback" in error:
        return "traceback", error[-500:]
    if "could not be drawn" in error:
        return "silent", error[-500:]
    if code == 0:
        return "accepted", error.strip()
    if code == 2 and len(lines) == 1 and lines[0].startswith("error: "):
        return "refused", lines[0].removeprefix("error: ")
    return "unclear", f"exit code {code}: {error.strip()[-500:]}"


@contextlib.contextmanager
def _watchdog(limit: float) -> Iterator[None]:
    """Raise `Hang` where the main thread is, once the limit is over."""

    def bark(number: int, frame: FrameType | None) -> None:
        where = traceback.extract_stack(frame)[-1]
        raise Hang(f"{limit:g} s are over in {where.name} ({Path(where.filename).name}, line {where.lineno})")

    before = signal.signal(signal.SIGALRM, bark)
    signal.setitimer(signal.ITIMER_REAL, limit)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _brief(error: BaseException) -> str:
    """An exception, and the last place of this library's in its traceback."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "site-packages" not in frame.filename]
    where = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}{where}"
