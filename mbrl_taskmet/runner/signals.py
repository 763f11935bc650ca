"""Signals that ask a run to end: at once before it trains, then after the chunk under way, with a checkpoint."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from mbrl_taskmet.runner.starting import COMMAND

_ASKING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


class Stopped(Exception):
    """A run was asked to end and has; its work is kept. The message says at which step, and how to go on.

    Attributes:
        signal: the number of the signal that asked.
    """

    def __init__(self, message: str, signal: int):
        super().__init__(message)
        self.signal = signal


class StopSignal:
    """True after Ctrl-C, or a signal by which batch systems end a process; a second one ends it as usual.

    Outside `patient`, the signal ends what is under way: a command's process at once, for whatever is written is whole and
    libraries lose exceptions while they are imported, and another by `Stopped`. Signals that are ignored, as under `nohup`,
    stay so.

    Args:
        message: printed then.

    Attributes:
        number: the signal's number, 0 if none came.
    """

    def __init__(self, message: str) -> None:
        self.number, self._patient = 0, False
        self._message = message
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignal:
        if threading.current_thread() is threading.main_thread():  # no other may set handlers
            heard = [number for number in _ASKING if signal.getsignal(number) is not signal.SIG_IGN]
            self._before = {number: signal.signal(number, self._catch) for number in heard}
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self.number and error is not None and not isinstance(error, Stopped):  # which libraries may have renamed
            raise Stopped(self._message, self.number) from None

    def __bool__(self) -> bool:
        return self.number != 0

    @contextmanager
    def patient(self) -> Iterator[None]:
        """Context in which the running code checks this object often, so that the first signal need not end the process."""
        self._patient = True
        try:
            yield
        finally:
            self._patient = False

    def _catch(self, number: int, frame: FrameType | None) -> None:
        self.number = number
        for other in self._before:
            signal.signal(other, _usual(self, other))
        if not self._patient and COMMAND:
            os.write(2, f"{self._message}\n".encode())
            os._exit(128 + number)
        if not self._patient:
            raise KeyboardInterrupt  # which libraries know, and let pass
        print("\nstopping at the next evaluation; once more to stop at once", file=sys.stderr)


def _usual(catching: StopSignal, number: int) -> Any:
    """The handler of a signal before any `StopSignal`."""
    handler = catching._before[number]
    outer = getattr(handler, "__self__", None)
    return _usual(outer, number) if isinstance(outer, StopSignal) else handler
