"""Ctrl-C while a command started by `python -m` is still importing: one word, not the frames of the imports.

Imported first by the packages of commands, and importing next to nothing itself. An exception would not do: extensions that are
being imported turn it into errors of their own, or lose it. Nothing has begun yet; `signals` says more once it is there.
"""

import os
import signal
import sys
from types import FrameType

COMMAND = sys.argv[:1] == ["-m"]
"""Whether this process is a command: that stands there while the package of the module to be run is imported, and only then."""


def _end(number: int, frame: FrameType | None) -> None:
    os.write(2, b"interrupted\n")
    os._exit(128 + number)


if COMMAND and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, _end)
