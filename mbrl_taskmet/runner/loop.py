"""The loop on the host that drives any job: records, checkpoints, progress, and signals that end it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

from mbrl_taskmet.runner.checkpoint import Checkpoints, Trainer
from mbrl_taskmet.runner.records import Recorder, Row
from mbrl_taskmet.runner.signals import Stopped, StopSignal


class Chunk(NamedTuple):
    """A stretch of training that has ended.

    Attributes:
        step: where it ended.
        carry: everything the job has there. Valid until the next chunk is asked for.
        rows: its lines of the record, without times.
        status: what the progress bar says.
        news: sentences to be said once.
    """

    step: int
    carry: Any
    rows: list[Row]
    status: str
    news: tuple[str, ...] = ()


@runtime_checkable
class Job(Protocol):
    """What `drive` trains."""

    @property
    def trainer(self) -> Trainer:
        """What makes, splits and joins the carry that checkpoints hold."""

    @property
    def total(self) -> int:
        """The last step."""

    @property
    def unit(self) -> str:
        """What a step is, in one word."""

    @property
    def label(self) -> str | None:
        """What the progress bar calls the job."""

    def prepare(self) -> None:
        """Compile ahead of the first chunk."""

    def chunks(self, carry: Any, start: int, rows: list[Row]) -> Iterator[Chunk]:
        """Train from a carry at step `start`, `rows` being on record, to the end."""


class Driven(NamedTuple):
    """A job at its end.

    Attributes:
        carry: everything it has.
        rows: its record.
        compile_seconds: what compiling ahead took; None where nothing was left to train.
    """

    carry: Any
    rows: list[Row]
    compile_seconds: float | None


def drive(
    job: Job, directory: Path, go_on: str, share: float = 0.03, begin_record: Callable[[], None] = lambda: None
) -> Driven:
    """Train a job to its end, from its last checkpoint in `directory` if there is one.

    Args:
        job: what is trained.
        directory: where its record and its checkpoints are; there.
        go_on: what a user does to go on with a run that was stopped.
        share: the largest part of the time that checkpoints take.
        begin_record: called when the start is known, a damaged checkpoint refused, and nothing written yet.

    Raises:
        Stopped: a signal asked for it; record and checkpoint are written.
        ConfigError: a checkpoint is damaged or belongs to another configuration.
    """
    from tqdm import tqdm

    checkpoints = Checkpoints(directory / "checkpoints", job.trainer, share)
    resumed = checkpoints.latest is not None
    step, carry = checkpoints.restore() if resumed else (0, job.trainer.init())
    begin_record()
    checkpoints.save(step, carry)
    recorder = Recorder(directory, resume_at=step if resumed else None)
    begin, seconds = time.monotonic(), None
    if step < job.total:
        job.prepare()
        seconds = time.monotonic() - begin
    begin = time.monotonic()
    before = recorder.rows[-1]["wall_seconds"] if recorder.rows else 0.0
    bar = tqdm(total=job.total, initial=step, unit=job.unit, desc=job.label, disable=None, dynamic_ncols=True)
    with StopSignal() as stop, bar:
        for chunk in job.chunks(carry, step, recorder.rows):
            recorder.write([row | _times(before + time.monotonic() - begin) for row in chunk.rows])
            for sentence in chunk.news:
                bar.write(sentence, file=sys.stderr)
            bar.set_postfix_str(chunk.status, refresh=False)
            bar.update(chunk.step - step)
            step, carry = chunk.step, chunk.carry
            if step == job.total or stop or checkpoints.due():
                checkpoints.save(step, carry)
            if stop and step < job.total:
                recorder.close()
                raise Stopped(f"stopped at step {step}; to go on: {go_on}", stop.number)
    recorder.close()
    return Driven(carry, recorder.rows, seconds)


def _times(seconds: float) -> Row:
    return {"wall_time": time.time(), "wall_seconds": seconds}
