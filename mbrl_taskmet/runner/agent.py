"""An agent's run, or a sweep of runs: training with records, checkpoints and pictures in a directory of its own.

A run's directory holds `config.json`, `metrics.jsonl`, `tensorboard/`, `checkpoints/`, `summary.json` and `curves.png`. A
sweep's holds the checkpoints of all its runs, and for every combination a folder with the other files.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import jax

from mbrl_taskmet.core.settings import ConfigError
from mbrl_taskmet.rl.environment import Environment
from mbrl_taskmet.rl.make import make_method
from mbrl_taskmet.rl.methods import Learner, Method
from mbrl_taskmet.rl.post_mortem import failed_operation
from mbrl_taskmet.rl.settings import Config, Settings, read_saved
from mbrl_taskmet.rl.sweep import Grid, Sweep
from mbrl_taskmet.rl.training import Carry, Trainer, grid_of
from mbrl_taskmet.runner.agent_record import COLUMNS, rows_of, summarize, summarize_sweep
from mbrl_taskmet.runner.loop import Chunk, Records, as_path, check_manner, drive, own
from mbrl_taskmet.runner.memory import check_memory, check_start, gigabytes, required_bytes
from mbrl_taskmet.runner.plotting import drawing, plot_run, plot_sweep
from mbrl_taskmet.runner.records import TEXTS, Layout, Row, write_json
from mbrl_taskmet.runner.rundir import CHECKPOINT_SHARE, check_same, check_same_sweep, saved_settings, saved_sweep, to_json
from mbrl_taskmet.runner.versions import environment

T = TypeVar("T")


class Outcome(NamedTuple):
    """A run at its end.

    Attributes:
        summary: the contents of `summary.json`.
        rows: those of `metrics.jsonl`.
        settings: the run's.
        method: how was learned.
        learner: what was learned, on the host, every leaf (seeds, …).
    """

    summary: dict[str, Any]
    rows: list[Row]
    settings: Settings
    method: Method
    learner: Learner


def run(
    env: Environment,
    config: Config | Settings,
    directory: Path | str,
    *,
    checkpoint_share: float = CHECKPOINT_SHARE,
    debug_nans: bool = False,
    go_on: str = "call run with the same arguments",
    say: Callable[[str], None] = lambda sentence: None,
) -> Outcome:
    """Train on `env` with records and checkpoints in `directory`, or go on with the run that is there.

    Args:
        env: the environment.
        config: the settings. Those of a run that is there have to be the same, but for more steps, which extend it.
        directory: the run's own; made if it is not there.
        checkpoint_share: the largest part of the time spent writing checkpoints.
        debug_nans: repeat an update at which a run stopped learning, to name the operation that was not finite.
        go_on: what a user does to go on with a run that was stopped, for the sentence that says so.
        say: takes a sentence before the training starts.

    Raises:
        ConfigError: the settings cannot work, the run that is there has others or goes on in another process, or the directory
            cannot be written.
        OSError: the machine fails; what is written stays.
        Stopped: a signal asked the run to end; record and checkpoint are written.
    """
    return _train(env, grid_of(env, config, {}), as_path(directory), checkpoint_share, debug_nans, go_on, say)["."]


def run_sweep(
    env: Environment,
    config: Config | Settings,
    directory: Path | str,
    sweep: Sweep,
    *,
    checkpoint_share: float = CHECKPOINT_SHARE,
    debug_nans: bool = False,
    go_on: str = "call run_sweep with the same arguments",
    say: Callable[[str], None] = lambda sentence: None,
) -> dict[str, Outcome]:
    """Train every combination of a sweep with every seed, in one program, or go on with the sweep that is there.

    Args:
        env: the environment.
        config: the settings that are not swept.
        directory: the sweep's own; each combination has a folder in it.
        sweep: values of settings by name, such as `{"metric_lr": [1e-3, 3e-3]}`: numbers that change no shape.
        checkpoint_share: see `run`.
        debug_nans: see `run`.
        go_on: see `run`.
        say: see `run`.

    Returns:
        The outcome of every combination by its folder, such as `metric_lr=0.001`.

    Raises:
        ConfigError: as of `run`, or something cannot be swept.
        OSError: the machine fails; what is written stays.
        Stopped: a signal asked the sweep to end; records and checkpoint are written.
    """
    if not sweep:
        raise ConfigError("the sweep is empty; give values of settings by name, or call run")
    return _train(env, grid_of(env, config, sweep), as_path(directory), checkpoint_share, debug_nans, go_on, say)


def _train(
    env: Environment, over: Grid, directory: Path, share: float, debug_nans: bool, go_on: str, say: Callable[[str], None]
) -> dict[str, Outcome]:
    """Train the combinations of a grid; the outcome of each by its folder."""
    settings = over.settings[0]
    check_manner(share, say)
    trainer = Trainer(env, make_method(env, settings), settings, over=over)
    least = check_start(trainer)
    with own(directory, to_json(settings.names, over.axes) | environment(), go_on) as place:
        if place.began:
            check_extends(directory, over)
        title = f"{settings.names['method']} on {env.name}"
        settings_of = f"{len(over.settings)} settings of " if over.numbers else ""
        say(f"{directory}: {settings_of}{title}, {settings.seeds} seed(s), {settings.steps} steps, "
            f"needs about {gigabytes(least)} of memory")  # fmt: skip
        if notice := settings.method.notice(settings.steps):
            say(notice)
        done = drive(_Job(trainer, debug_nans), place, share=share, begin_record=partial(_write_configs, directory, over))
        learners = trainer.axis.to_host(done.carry.learner)
        outcomes = {}
        for index, (folder, own_settings) in enumerate(zip(over.folders, over.settings, strict=True)):
            rows = done.records[folder]
            summary = summarize(own_settings, rows, done.compile_seconds)
            write_json(directory / folder / "summary.json", summary)
            learner = _part(learners, over.runs(index))
            outcomes[folder] = Outcome(summary, rows, own_settings, make_method(env, own_settings), learner)
            with drawing(directory, go_on):
                plot_run(rows, env.state_names, title, directory / folder / "curves.png")
        if over.numbers:
            summaries = {folder: outcome.summary for folder, outcome in outcomes.items()}
            write_json(directory / "summary.json", summarize_sweep(summaries))
            with drawing(directory, go_on):
                plot_sweep(summaries, title, directory / "sweep.png")
    return outcomes


def _write_configs(directory: Path, over: Grid) -> None:
    """`config.json` of the directory and of every combination's folder."""
    configs = {folder: to_json(settings.names) for folder, settings in zip(over.folders, over.settings, strict=True)}
    made = environment()
    for folder, config in {**configs, ".": to_json(over.settings[0].names, over.axes)}.items():
        (directory / folder).mkdir(exist_ok=True)
        write_json(directory / folder / "config.json", config | made)


def restored(env: Environment, directory: Path, with_replay: bool = True) -> tuple[Settings, Method, int, Carry]:
    """What a run has at its last checkpoint: (settings, method, step, carry), the carry's leaves (seeds, …).

    Of a sweep: what its first combination is made of, and the carry of the runs of all.

    Raises:
        ConfigError: it holds no run, no checkpoint, or a damaged one.
    """
    from mbrl_taskmet.runner.checkpoint import Checkpoints

    settings = saved_settings(directory, read_saved)
    over = grid_of(env, settings, saved_sweep(directory))
    trainer = Trainer(env, make_method(env, settings), settings, over=over)
    step, carry = Checkpoints(directory / "checkpoints", trainer).restore(with_replay)
    return settings, trainer.method, step, carry


def check_extends(directory: Path, over: Grid) -> None:
    """Raise ConfigError unless the run or sweep in `directory` has these settings, but for no more steps."""
    saved, settings = saved_settings(directory, read_saved), over.settings[0]
    check_same_sweep(directory, over.axes)
    check_same(directory, dataclasses.replace(settings, steps=saved.steps).names, saved.names)
    if settings.steps < saved.steps:
        raise ConfigError(f"--steps {settings.steps} is less than the {saved.steps} of {directory}; give more to extend it")


class _Job:
    """A `Trainer`'s training, as `drive` needs it."""

    unit, label = "step", None

    def __init__(self, trainer: Trainer, debug_nans: bool):
        settings, self._debug_nans = trainer.settings, debug_nans
        self.trainer, self.total, self.folders = trainer, settings.steps, trainer.over.folders
        self.layout = Layout(range(settings.seed, settings.seed + settings.seeds), settings.eval_every, COLUMNS, whole=True)

    def prepare(self) -> None:
        self.trainer.compile()
        check_memory(required_bytes(self.trainer), self.trainer.env.name)

    def chunks(self, carry: Carry, start: int, records: Records) -> Iterator[Chunk]:
        settings, state_names = self.trainer.settings, self.trainer.env.state_names
        known = set(_events(records))
        last = time.monotonic()
        for step, new_carry, report in self.trainer.run(carry, start):
            now = time.monotonic()
            speed, last = settings.eval_every * len(self.trainer.seeds) / (now - last), now
            reports = (_part(report, self.trainer.over.runs(index)) for index in range(len(self.folders)))
            own = (rows_of(part, step, settings.seed, state_names, speed) for part in reports)
            new = dict(zip(self.folders, own, strict=True))
            events = _events(new)
            news = tuple(self._told(event, what, new_carry, step) for event, what in events.items() if event not in known)
            known |= events.keys()
            status = (f"return {report.episode_returns.mean():.1f}, model error {report.model_mse_state.mean():.2g}, "
                      f"{speed:.0f} steps/s")  # fmt: skip
            yield Chunk(step, new_carry, new, status, news)

    def _told(self, event: tuple[str, int, str], what: str, carry: Carry, step: int) -> str:
        """The sentence of an event."""
        folder, seed, kind = event
        who = f"{'' if folder == '.' else folder + ', '}seed {seed}"
        if kind == "collapse":
            return f"{who}: {what}; a larger --metric-floor or a smaller --metric-lr may help"
        if self._debug_nans:
            index = self.folders.index(folder) * self.trainer.settings.seeds + seed - self.trainer.settings.seed
            what = f"{what}; {failed_operation(self.trainer, carry, index, step)}"
        return (f"{who}: {what}; its last finite state is kept and the others go on; a smaller --model-lr or --metric-lr may "
                "help" + ("" if self._debug_nans else ", and --debug-nans names the operation"))  # fmt: skip


def _part(tree: T, runs: slice) -> T:
    """Some of the runs of a tree, whose leaves are (runs, …)."""
    return jax.tree.map(lambda leaf: leaf[runs], tree)


def _events(records: Records) -> dict[tuple[str, int, str], str]:
    """The messages of a seed that are printed once, by folder, seed and kind."""
    every = ((folder, row, kind) for folder, rows in records.items() for row in rows for kind in TEXTS)
    return {(folder, row["seed"], kind): row[kind] for folder, row, kind in every if kind in row}
