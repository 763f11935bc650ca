"""Signals that ask a run to end: it stops after the chunk under way, with a checkpoint."""

from __future__ import annotations

import signal
import sys
import threading
from types import FrameType
from typing import Any

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

    Attributes:
        number: the signal's number, 0 if none came.
    """

    def __init__(self) -> None:
        self.number = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignal:
        if threading.current_thread() is threading.main_thread():  # no other may set handlers
            self._before = {number: signal.signal(number, self._catch) for number in _ASKING}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def __bool__(self) -> bool:
        return self.number != 0

    def _catch(self, number: int, frame: FrameType | None) -> None:
        self.number = number
        self.__exit__()
        print("\nstopping at the next evaluation; once more to stop at once", file=sys.stderr)
