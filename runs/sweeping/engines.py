"""Engines, which start `train_block` for the blocks of a sweep and return its outcome."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from mbrl_taskmet.core.settings import ConfigError
from mbrl_taskmet.runner.command import cores
from mbrl_taskmet.runner.records import shortened
from runs.sweeping.worker import train_block

Order = tuple[str, dict[str, Any], int, float]
"""The arguments of `train_block`."""


class Task(Protocol):
    """A block that is trained, or waits for a machine."""

    def done(self) -> bool:
        """Whether it has ended, well or not."""

    def result(self) -> str:
        """What `train_block` returned, or, where its process was lost, a sentence that says so."""

    def cancel(self) -> Any:
        """Ask it to end, with a checkpoint."""


class Engine(NamedTuple):
    """What starts blocks.

    Attributes:
        start: takes the arguments of `train_block`.
        most: how many may be started and not done; None if the engine lets them wait itself.
    """

    start: Callable[[Order], Task]
    most: int | None


class Ask(NamedTuple):
    """What a user asks of an engine.

    Attributes:
        directory: of the sweep.
        workers: blocks at a time; None for as many as there is room for.
        cpus: CPU cores of a block.
        gpus: GPUs of a block; may be a part of one.
        address: of a Ray cluster that exists.
    """

    directory: Path
    workers: int | None = None
    cpus: int = 1
    gpus: float = 0
    address: str | None = None


@contextmanager
def processes(ask: Ask) -> Iterator[Engine]:
    """Processes of this machine, as many as it has cores for."""
    yield Engine(_Process, ask.workers or max(1, cores() // ask.cpus))


class _Process:
    """A block in a process, and a session, of its own: what ends one leaves the others alone."""

    def __init__(self, order: Order):
        self._said, self._errors = tempfile.TemporaryFile(), tempfile.TemporaryFile()  # noqa: SIM115  # as long as it is
        self._process = subprocess.Popen(
            [sys.executable, "-m", "runs.sweeping.worker", json.dumps(order)],
            stdin=subprocess.PIPE, stdout=self._said, stderr=self._errors, start_new_session=True,
        )  # fmt: skip

    def done(self) -> bool:
        return self._process.poll() is not None

    def result(self) -> str:
        code, said, errors = self._process.returncode, _text(self._said), _text(self._errors)
        if code == 0:
            return ""
        if code == 1 and said:
            return str(json.loads(said.splitlines()[-1]))
        end = f"exit code {code}" if code > 0 else signal.Signals(-code).name
        return f"its process ended with {end}\n\n{errors}"

    def cancel(self) -> None:
        self._process.terminate()


def _text(file: Any) -> str:
    file.seek(0)
    return str(file.read().decode(errors="replace")).strip()


def _check_answers(address: str) -> None:
    """Raise ConfigError unless something listens at an address: Ray itself tries for minutes, `auto` without end."""
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ConfigError(f"--address is {address}; give HOST:PORT, as ray start prints it")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except OSError as error:
        raise ConfigError(
            f"--address {address} does not answer ({error.strerror or error}); start a cluster with ray start"
        ) from None


def _line(error: Exception) -> str:
    """What an error says, in one line: the first sentence or, of a traceback, the last line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [""]
    return lines[-1][:200] if "Traceback" in str(error) else lines[0].split(". ")[0][:200]


@contextmanager
def ray(ask: Ask) -> Iterator[Engine]:
    """Tasks of Ray, on a cluster that exists or on this machine.

    Raises:
        ConfigError: Ray is missing, or there is no cluster at the address.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray as library
    except ModuleNotFoundError:
        raise ConfigError("--engine ray needs Ray; install the extra: pip install '.[ray]'") from None
    if ask.address:
        _check_answers(ask.address)
    here = {} if ask.address else {"num_cpus": (ask.workers or cores() // ask.cpus or 1) * ask.cpus, "include_dashboard": False}
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "os.fork")  # what Ray forks runs another program at once
            library.init(address=ask.address or "local", log_to_driver=False, logging_level="ERROR", **here)
    except (ConnectionError, ValueError, RuntimeError) as error:
        if not ask.address:
            raise ConfigError(f"Ray does not start here ({shortened(error)}); use --engine processes") from None
        raise ConfigError(f"--address {ask.address} is no cluster that accepts this client ({shortened(error)}); "
                          "start one with ray start, and set RAY_AUTH_MODE=token if it wants one") from None  # fmt: skip
    wanted = {"CPU": ask.cpus, "GPU": ask.gpus}
    nodes = [node["Resources"] for node in library.nodes() if node["Alive"]]
    if not any(all(node.get(kind, 0) >= number for kind, number in wanted.items()) for node in nodes):
        print(f"no node has {ask.cpus} CPUs and {ask.gpus:g} GPUs; the blocks wait for one", file=sys.stderr, flush=True)
    train = library.remote(num_cpus=ask.cpus, num_gpus=ask.gpus, max_retries=0)(train_block)  # the sweep tries again itself

    class Remote:
        def __init__(self, order: Order):
            self._reference = train.remote(*order)

        def done(self) -> bool:
            return bool(library.wait([self._reference], timeout=0)[0])

        def result(self) -> str:
            try:
                return str(library.get(self._reference))
            except library.exceptions.RayError as error:
                return f"its process was lost ({type(error).__name__}: {_line(error)})\n\n{error}"

        def cancel(self) -> None:
            library.cancel(self._reference)

    try:
        yield Engine(Remote, ask.workers)
    finally:
        library.shutdown()


@contextmanager
def slurm(ask: Ask) -> Iterator[Engine]:
    """Jobs of Slurm, through submitit; processes of this machine where there is no Slurm.

    Raises:
        ConfigError: submitit is missing.
    """
    try:
        import submitit
    except ModuleNotFoundError:
        raise ConfigError("--engine slurm needs submitit; install the extra: pip install '.[slurm]'") from None
    executor = submitit.AutoExecutor(folder=ask.directory / "submitit")
    executor.update_parameters(name="sweep", cpus_per_task=ask.cpus, gpus_per_node=int(ask.gpus), timeout_min=24 * 60)
    here = max(1, cores() // ask.cpus) if executor.cluster == "local" else None

    class Job:
        def __init__(self, order: Order):
            self._job = executor.submit(train_block, *order)

        def done(self) -> bool:
            return bool(self._job.done())

        def result(self) -> str:
            try:
                return str(self._job.result())
            except Exception as error:  # train_block raises none
                return f"its job was lost ({type(error).__name__}: {_line(error)})\n\n{error}"

        def cancel(self) -> None:
            self._job.cancel()

    yield Engine(Job, ask.workers or here)


ENGINES = {"processes": processes, "ray": ray, "slurm": slurm}
"""What starts blocks, by name."""
