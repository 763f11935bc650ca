"""The loop on the host that drives any job in a directory of its own: records, checkpoints, progress, signals that end it."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

from mbrl_taskmet.core.settings import ConfigError, shown
from mbrl_taskmet.runner.checkpoint import Checkpoints, Trainer
from mbrl_taskmet.runner.claim import claimed
from mbrl_taskmet.runner.records import Layout, Recorder, Row, read_rows, rows_until
from mbrl_taskmet.runner.rundir import CHECKPOINT_SHARE, has_checkpoint
from mbrl_taskmet.runner.signals import Stopped, StopSignal

Records = dict[str, list[Row]]
"""Rows by folder, in a job's directory: "." where there is one record, or a folder for each of several."""


class Chunk(NamedTuple):
    """A stretch of training that has ended.

    Attributes:
        step: where it ended.
        carry: everything the job has there. Valid until the next chunk is asked for.
        records: its lines of every record, by folder, without times.
        status: what the progress bar says.
        news: messages to print once.
    """

    step: int
    carry: Any
    records: Records
    status: str
    news: tuple[str, ...] = ()


@runtime_checkable
class Job(Protocol):
    """What `drive` trains."""

    @property
    def trainer(self) -> Trainer:
        """Makes, splits and joins the carry that checkpoints hold."""

    @property
    def total(self) -> int:
        """The last step."""

    @property
    def unit(self) -> str:
        """The unit of a step, in one word."""

    @property
    def layout(self) -> Layout:
        """What the rows of a record are."""

    @property
    def folders(self) -> tuple[str, ...]:
        """Where its records are, in its directory."""

    @property
    def label(self) -> str | None:
        """The job's label in the progress bar."""

    def prepare(self) -> None:
        """Compile ahead of the first chunk."""

    def chunks(self, carry: Any, start: int, records: Records) -> Iterator[Chunk]:
        """Train from a carry at step `start`, these rows being on record, to the end."""


class Driven(NamedTuple):
    """A job at its end.

    Attributes:
        carry: everything it has.
        records: its records.
        compile_seconds: what compiling ahead took; None where nothing was left to train.
    """

    carry: Any
    records: Records
    compile_seconds: float | None


class Place(NamedTuple):
    """A run's directory while it is this process's own.

    Attributes:
        directory: the path.
        began: whether a run has begun in it before.
        go_on: what a user does to go on with the run.
        stop: true once a signal asked the run to end.
    """

    directory: Path
    began: bool
    go_on: str
    stop: StopSignal


@contextmanager
def own(directory: Path, config: Mapping[str, Any], go_on: str) -> Iterator[Place]:
    """The directory of a run, made with its `config.json` if it is not there, for this process alone.

    Raises:
        ConfigError: it cannot be written, another process has it, or what it holds is no run's.
        Stopped: a signal asked for an end.
    """
    with claimed(directory, config) as began, StopSignal(f"stopped; to go on: {go_on}") as stop:
        yield Place(directory, began, go_on, stop)


def as_path(directory: Any) -> Path:
    """The directory of a run, as it is given in Python; ConfigError where it names none."""
    if not isinstance(directory, (str, os.PathLike)) or not str(directory).strip():
        raise ConfigError(f"the directory is {shown(directory)}; give the path of a run's own")
    return Path(directory)


def check_manner(checkpoint_share: Any, say: Any) -> None:
    """Raise ConfigError unless the checkpoint share is in (0, 1] and `say` is callable."""
    number = isinstance(checkpoint_share, (int, float)) and not isinstance(checkpoint_share, bool)
    if not number or not 0 < checkpoint_share <= 1:
        raise ConfigError(f"the checkpoint share is {shown(checkpoint_share)}; give a number above 0 and up to 1")
    if not callable(say):
        raise ConfigError(f"say is {shown(say)}; give a function of a sentence, such as print")


def drive(
    job: Job, place: Place, folder: str = ".", share: float = CHECKPOINT_SHARE, begin_record: Callable[[], None] = lambda: None
) -> Driven:
    """Train a job to its end, from its last checkpoint if there is one.

    Args:
        job: what is trained.
        place: the run's directory.
        folder: where in it the job's checkpoints and records are; there.
        share: the largest part of the time that checkpoints take.
        begin_record: called when the start is known, a damaged checkpoint or record refused, and nothing written yet.

    Raises:
        Stopped: a signal asked for it; record and checkpoint are written.
        ConfigError: a checkpoint or the record is damaged or belongs to another configuration.
    """
    from tqdm import tqdm

    directory, stop = place.directory / folder, place.stop
    checkpoints, step, carry, records = _start(job, directory, share)
    begin, seconds = time.monotonic(), None
    with tqdm(total=job.total, initial=step, unit=job.unit, desc="compiling", disable=None, dynamic_ncols=True) as bar:
        if step < job.total:
            job.prepare()
            seconds = time.monotonic() - begin
        bar.set_description(job.label, refresh=False)
        bar.unpause()  # its speed is that of the training alone
        begin_record()
        checkpoints.save(step, carry)
        recorders = {folder: Recorder(directory / folder, rows) for folder, rows in records.items()}
        begin = time.monotonic()
        before = max((rows[-1]["wall_seconds"] for rows in records.values() if rows), default=0.0)
        with stop.patient():
            for chunk in job.chunks(carry, step, records):
                times = {"wall_time": time.time(), "wall_seconds": before + time.monotonic() - begin}
                for folder, rows in chunk.records.items():
                    recorders[folder].write([row | times for row in rows])
                for sentence in chunk.news:
                    bar.write(sentence, file=sys.stderr)
                bar.set_postfix_str(chunk.status, refresh=False)
                bar.update(chunk.step - step)
                step, carry = chunk.step, chunk.carry
                if step == job.total or stop or checkpoints.due():
                    checkpoints.save(step, carry)
                if stop and step < job.total:
                    _close(recorders)
                    raise Stopped(f"stopped at step {step}; to go on: {place.go_on}", stop.number)
    _close(recorders)
    return Driven(carry, {folder: recorder.rows for folder, recorder in recorders.items()}, seconds)


def _start(job: Job, directory: Path, share: float) -> tuple[Checkpoints, int, Any, Records]:
    """The start of a job: (its checkpoints, the step, the carry at it, the rows up to it)."""
    if not has_checkpoint(directory) and any(read_rows(directory / folder) for folder in job.folders):
        raise ConfigError(f"{directory} holds no checkpoint of the evaluations in its metrics.jsonl; restore checkpoints/ "
                          "to resume, or give another directory")  # fmt: skip
    checkpoints = Checkpoints(directory / "checkpoints", job.trainer, share)
    if (latest := checkpoints.latest or 0) > job.total:
        raise ConfigError(f"{directory} has a checkpoint at step {latest}, beyond its end at {job.total}; remove it to go on")
    step, carry = checkpoints.restore() if checkpoints.latest is not None else (0, job.trainer.init())
    records = {folder: rows_until(directory / folder, step, job.layout) for folder in job.folders}
    checkpoints.remove_unfinished()
    if news := checkpoints.moved():
        print(news, file=sys.stderr)
    return checkpoints, step, carry, records


def _close(recorders: Mapping[str, Recorder]) -> None:
    for recorder in recorders.values():
        recorder.close()
