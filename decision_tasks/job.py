"""A run of cells, one after the other: training with records, checkpoints, tables and pictures in a directory of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from decision_tasks.one_run import VALIDATE_EVERY, CellCarry
from decision_tasks.report import Tables, draw, learned, result_of, rows_of, write_report
from decision_tasks.saved import check_same_cells, is_finished, move_checkpoints, to_json
from decision_tasks.settings import CellSettings
from decision_tasks.training import CellTrainer
from mbrl_taskmet.core.settings import ConfigError, shown
from mbrl_taskmet.runner.loop import Chunk, Place, Records, as_path, check_manner, drive, own
from mbrl_taskmet.runner.plotting import drawing
from mbrl_taskmet.runner.records import Layout, write_arrays, write_json
from mbrl_taskmet.runner.rundir import CHECKPOINT_SHARE

COLUMNS = ("validation/score", "validation/value", "validation/mse", "train/task_loss", "solver/residual", "best_iteration",
           "wall_time", "wall_seconds")  # fmt: skip
"""What every row of a cell's record holds besides `step` and `seed`."""


def run(
    cells: CellSettings | Iterable[CellSettings],
    directory: Path | str,
    *,
    checkpoint_share: float = CHECKPOINT_SHARE,
    go_on: str = "call run with the same arguments",
    say: Callable[[str], None] = lambda sentence: None,
) -> Tables:
    """Train cells with records and checkpoints in `directory`, or go on with the run that is there.

    Args:
        cells: one, or several that have a directory each. Those of a run that is there have to be the same.
        directory: the run's own; made if it is not there.
        checkpoint_share: the largest part of the time spent writing checkpoints.
        go_on: what a user does to go on with a run that was stopped, for the sentence that says so.
        say: takes a sentence before the training starts.

    Raises:
        ConfigError: two cells would write the same files, the run that is there has others or goes on in another process, or
            the directory cannot be written.
        OSError: the machine fails; what is written stays.
        Stopped: a signal asked the run to end; record and checkpoint are written.
    """
    cells, directory = _as_cells(cells), as_path(directory)
    check_manner(checkpoint_share, say)
    _check_apart(cells)
    with own(directory, to_json(cells), go_on) as place:
        if place.began:
            check_same_cells(directory, cells)
        say(f"{directory}: {len(cells)} cell(s), {sum(cell.runs for cell in cells)} runs (data sets × seeds)")
        for note in dict.fromkeys(note for cell in cells for note in cell.task.notes):
            say(note)
        finished = {cell.directory for cell in cells if is_finished(directory / cell.directory)}
        begin_record = partial(write_json, directory / "config.json", to_json(cells))
        trainer: CellTrainer | None = None
        for cell in cells:
            if cell.directory in finished:
                continue
            trainer = CellTrainer(cell, trainer)
            _train(CellJob(trainer), place, checkpoint_share, begin_record)
        tables = write_report(cells, directory)
        with drawing(directory, go_on):
            draw(cells, directory)
        return tables


class CellJob:
    """A `CellTrainer`'s training, as `drive` needs it."""

    unit, folders = "iteration", (".",)

    def __init__(self, trainer: CellTrainer):
        self.trainer, self.total = trainer, trainer.iterations
        self.layout = Layout(range(trainer.cell.runs), VALIDATE_EVERY, COLUMNS, whole=False)
        self.label = f"{trainer.cell.names['task']} {trainer.cell.label}"

    def prepare(self) -> None:
        """Compile ahead of the first chunk."""
        self.trainer.compile()

    def chunks(self, carry: CellCarry, start: int, records: Records) -> Iterator[Chunk]:
        """Train from a carry at iteration `start` until every run has stopped."""
        del records
        cell = self.trainer.cell
        for iteration, new_carry, report in self.trainer.run(carry, start):
            new = rows_of(report, iteration, cell.seeds)
            news = tuple(
                f"{self.label}, run {row['seed']}: {row['failure']}; its best predictor before is kept and the others go on"
                for row in new if "failure" in row
            )  # fmt: skip
            yield Chunk(iteration, new_carry, {".": new}, f"{report.stopped.sum()} of {cell.runs} runs stopped", news)


def _train(job: CellJob, place: Place, share: float, begin_record: Callable[[], None]) -> None:
    """Train a cell to its `result.json`, or go on with it."""
    folder = job.trainer.cell.directory
    directory = place.directory / folder
    directory.mkdir(exist_ok=True)
    move_checkpoints(directory)
    done = drive(job, place, folder, share, begin_record)
    result = job.trainer.finish(done.carry)
    write_arrays(directory / "learned.npz", learned(job.trainer, result))
    rows = done.records["."]
    seconds = rows[-1]["wall_seconds"] if rows else None
    write_json(directory / "result.json", result_of(job.trainer, result, seconds))


def _as_cells(cells: Any) -> tuple[CellSettings, ...]:
    """One cell or several, as a tuple."""
    several = (cells,) if isinstance(cells, CellSettings) else tuple(cells) if isinstance(cells, Iterable) else (None,)
    if not all(isinstance(cell, CellSettings) for cell in several):
        raise ConfigError(f"the cells are {shown(cells)}; give CellSettings, one or several")
    return several


def _check_apart(cells: tuple[CellSettings, ...]) -> None:
    places = [cell.directory for cell in cells]
    if not places:
        raise ConfigError("there is no cell to train; give one or more")
    twice = [place for place in places if places.count(place) > 1]
    if twice:
        raise ConfigError(f"two cells would write to {twice[0]}; give each a run of its own")
