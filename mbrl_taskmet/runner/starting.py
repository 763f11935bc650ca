"""Ctrl-C while a command started by `python -m` is still importing: one word, not the frames of the imports.

Imported first by the packages of commands, and importing nothing itself. From `command` on, that says what is to be said.
"""

import sys
from types import TracebackType


def _show(kind: type[BaseException], error: BaseException, frames: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        print("interrupted", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, frames)


if sys.argv[:1] == ["-m"]:  # what stands there while the package of the module to be run is imported
    sys.excepthook = _show
