"""The training of one block of a sweep, and the process that runs it for engines without Ray."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
import traceback
from functools import partial
from pathlib import Path
from typing import Any

from mbrl_taskmet.core.settings import ConfigError
from mbrl_taskmet.runner.command import command, start_jax
from mbrl_taskmet.runner.records import shortened
from mbrl_taskmet.runner.signals import Stopped

_PATIENCE = 60.0
"""Seconds to wait for a directory that another process has: one whose node was lost ends a moment later than the node."""


def take_device(cpus: int, gpus: float) -> None:
    """Let JAX use so many CPU cores or, unless the environment says otherwise, so much of a GPU."""
    import jax

    if not gpus and "JAX_PLATFORMS" not in os.environ:
        jax.config.update("jax_platforms", "cpu")
    if 0 < gpus < 1:
        os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", f"{0.75 * gpus:.3f}")  # of JAX's usual three quarters
    start_jax(cpus)


def train_block(directory: str, given: dict[str, Any], cpus: int, gpus: float) -> str:
    """Train the block of a sweep, or go on with it.

    Args:
        directory: of the run; absolute, on a file system that all machines share.
        given: the run's settings by name.
        cpus: CPU cores that it may use.
        gpus: GPUs, or the part of one.

    Returns:
        Why it failed, in the first line, and below where that was; nothing if it has ended well.
    """
    try:
        take_device(cpus, gpus)
        from envs.make import environment_of
        from mbrl_taskmet.rl.settings import Config
        from mbrl_taskmet.runner.agent import run
        from mbrl_taskmet.runner.claim import Taken

        config = Config(**given)
        train = partial(run, environment_of(config.resolve().environment), config, Path(directory))
        last = time.monotonic() + _PATIENCE
        while True:
            try:
                train(go_on="give the command of the sweep again")
                return ""
            except Taken:
                if time.monotonic() > last:
                    raise
                time.sleep(1)
    except (ConfigError, Stopped) as error:
        return str(error)
    except Exception as error:  # whatever it is, the other blocks go on
        return f"{type(error).__name__}: {shortened(error)}\n\n{traceback.format_exc()}"


@command
def main(argv: list[str] | None = None) -> int:
    """Train the block that the arguments of `train_block`, as JSON, describe; the last line of the output is the reason."""
    (arguments,) = argv or sys.argv[1:]
    threading.Thread(target=_end_with_parent, daemon=True).start()
    reason = train_block(*json.loads(arguments))
    print(f"\n{json.dumps(reason)}")
    return 1 if reason else 0


def _end_with_parent() -> None:
    """Stop, with a checkpoint, when the sweep's process ends, which holds the other end of the standard input."""
    os.read(0, 1)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
