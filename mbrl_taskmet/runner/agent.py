"""An agent's run: training with records, checkpoints and pictures in a directory of its own."""

from __future__ import annotations

import dataclasses
import statistics as standard
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from mbrl_taskmet.core.settings import ConfigError
from mbrl_taskmet.rl.environment import Environment
from mbrl_taskmet.rl.make import make_method
from mbrl_taskmet.rl.methods import Learner, Method
from mbrl_taskmet.rl.settings import Config, Settings, read_saved
from mbrl_taskmet.rl.training import Carry, Report, Trainer, resolved
from mbrl_taskmet.runner.loop import Chunk, as_path, check_manner, drive, own
from mbrl_taskmet.runner.memory import check_memory, check_start, gigabytes, required_bytes
from mbrl_taskmet.runner.plotting import drawing, plot_run
from mbrl_taskmet.runner.records import Layout, Row, finite, write_json
from mbrl_taskmet.runner.rundir import check_same, saved_settings, to_json
from mbrl_taskmet.runner.statistics import ci95, iqm, mean
from mbrl_taskmet.runner.versions import environment

COLUMNS = ("eval/return", "train/model_mse", "train/model_mse_state", "train/task_loss", "train/q_loss",
           "time/steps_per_second", "wall_time", "wall_seconds")  # fmt: skip
"""What every row of an agent's record holds besides `step` and `seed`."""


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
    checkpoint_share: float = 0.03,
    go_on: str = "call run with the same arguments",
    say: Callable[[str], None] = lambda sentence: None,
) -> Outcome:
    """Train on `env` with records and checkpoints in `directory`, or go on with the run that is there.

    Args:
        env: the environment.
        config: the settings. Those of a run that is there have to be the same, but for more steps, which extend it.
        directory: the run's own; made if it is not there.
        checkpoint_share: the largest part of the time spent writing checkpoints.
        go_on: what a user does to go on with a run that was stopped, for the sentence that says so.
        say: takes a sentence before the training starts.

    Raises:
        ConfigError: the settings cannot work, the run that is there has others or goes on in another process, or the directory
            cannot be written.
        OSError: the machine fails; what is written stays.
        Stopped: a signal asked the run to end; record and checkpoint are written.
    """
    settings, directory = resolved(env, config), as_path(directory)
    check_manner(checkpoint_share, say)
    trainer = Trainer(env, make_method(env, settings), settings)
    least = check_start(trainer)
    with own(directory, to_json(settings.names), go_on) as place:
        if place.began:
            check_extends(directory, settings)
        say(f"{directory}: {settings.names['method']} on {env.name}, {settings.seeds} seed(s), {settings.steps} steps, "
            f"needs about {gigabytes(least)}")  # fmt: skip
        begin_record = partial(write_json, directory / "config.json", to_json(settings.names))
        done = drive(_Job(trainer), place, share=checkpoint_share, begin_record=begin_record)
        summary = summarize(settings, done.rows, done.compile_seconds)
        write_json(directory / "summary.json", summary)
        title = f"{settings.names['method']} on {env.name}"
        with drawing(directory, go_on):
            plot_run(done.rows, env.state_names, title, directory / "curves.png")
    return Outcome(summary, done.rows, settings, trainer.method, trainer.axis.to_host(done.carry.learner))


def restored(env: Environment, directory: Path, with_replay: bool = True) -> tuple[Settings, Method, int, Carry]:
    """What a run has at its last checkpoint: (settings, method, step, carry), the carry's leaves (seeds, …).

    Raises:
        ConfigError: it holds no run, no checkpoint, or a damaged one.
    """
    from mbrl_taskmet.runner.checkpoint import Checkpoints

    settings = saved_settings(directory, read_saved)
    trainer = Trainer(env, make_method(env, settings), settings)
    step, carry = Checkpoints(directory / "checkpoints", trainer).restore(with_replay)
    return settings, trainer.method, step, carry


def check_extends(directory: Path, settings: Settings) -> None:
    """Raise ConfigError unless the run in `directory` has these settings, but for no more steps."""
    saved = saved_settings(directory, read_saved)
    check_same(directory, dataclasses.replace(settings, steps=saved.steps).names, saved.names)
    if settings.steps < saved.steps:
        raise ConfigError(f"--steps {settings.steps} is less than the {saved.steps} of {directory}; give more to extend it")


class _Job:
    """A `Trainer`'s training, as `drive` needs it."""

    unit, label = "step", None

    def __init__(self, trainer: Trainer):
        settings = trainer.settings
        self.trainer, self.total = trainer, settings.steps
        self.layout = Layout(range(settings.seed, settings.seed + settings.seeds), settings.eval_every, COLUMNS, whole=True)

    def prepare(self) -> None:
        self.trainer.compile()
        check_memory(required_bytes(self.trainer), self.trainer.env.name)

    def chunks(self, carry: Carry, start: int, rows: list[Row]) -> Iterator[Chunk]:
        settings, state_names = self.trainer.settings, self.trainer.env.state_names
        failed = {row["seed"] for row in rows if "failure" in row}
        last = time.monotonic()
        for step, new_carry, report in self.trainer.run(carry, start):
            now = time.monotonic()
            speed, last = settings.eval_every * settings.seeds / (now - last), now
            new = rows_of(report, step, settings.seed, state_names, speed)
            news = tuple(
                f"seed {row['seed']}: {row['failure']}; its last finite state is kept and the others go on; "
                "a smaller --model-lr or --metric-lr may help"
                for row in new if "failure" in row and row["seed"] not in failed
            )  # fmt: skip
            failed |= {row["seed"] for row in new if "failure" in row}
            status = (f"return {report.episode_returns.mean():.1f}, model error {report.model_mse_state.mean():.2g}, "
                      f"{speed:.0f} steps/s")  # fmt: skip
            yield Chunk(step, new_carry, new, status, news)


def rows_of(report: Report, step: int, first_seed: int, state_names: tuple[str, ...], speed: float) -> list[Row]:
    """One row per seed.

    Args:
        report: of a chunk.
        step: environment steps of each seed so far.
        first_seed: the number of the first one.
        state_names: names of the real dimensions.
        speed: environment steps of all seeds together, per second, in the last chunk.
    """
    rows = []
    for i in range(len(report.model_mse)):
        row = {
            "step": step,
            "seed": first_seed + i,
            "eval/return": report.episode_returns[i].mean(),
            "train/model_mse": report.model_mse[i],
            "train/model_mse_state": report.model_mse_state[i],
            "train/task_loss": report.task_loss[i],
            "train/q_loss": report.q_loss[i],
            "solver/residual": None if report.residual is None else report.residual[i],
            "time/steps_per_second": speed,
        }
        if report.metric_diagonal is not None:
            diagonal, real = report.metric_diagonal[i], len(state_names)
            row |= {f"metric/{name}": value for name, value in zip(state_names, diagonal[:real], strict=True)}
            if len(diagonal) > real:
                row["metric/distractors_mean"] = diagonal[real:].mean()
            row["metric/diagonal"] = diagonal
        if report.failed_step[i] >= 0:
            row["failure"] = failure(report, i)
        rows.append({key: finite(value) for key, value in row.items()})
    return rows


def failure(report: Report, index: int) -> str:
    """Which quantity of a seed turned non-finite, and when."""
    part = Learner._fields[int(report.failed_part[index])]
    return f"the parameters of {part} turned non-finite at step {int(report.failed_step[index])}"


def summarize(settings: Settings, rows: list[Row], compile_seconds: float | None) -> dict[str, Any]:
    """The contents of `summary.json`. Lists are per seed; final means at the last evaluation.

    `compile_seconds` is None where nothing was left to compile.
    """
    last = [row for row in rows if row["step"] == rows[-1]["step"]]
    returns = [row["eval/return"] for row in last]
    known = [value for value in returns if value is not None]
    return {
        "config": to_json(settings.names),
        **environment(),
        "seeds": [row["seed"] for row in last],
        "env_steps": last[0]["step"],
        "final_return": returns,
        "mean": mean(known) if known else None,
        "iqm": iqm(known) if known else None,
        "ci95": ci95(known),
        "model_mse": [row["train/model_mse"] for row in last],
        "model_mse_state": [row["train/model_mse_state"] for row in last],
        "metric_diagonal": [row.get("metric/diagonal") for row in last],
        "failures": {str(row["seed"]): row["failure"] for row in last if "failure" in row},
        "steps_per_second": standard.median(row["time/steps_per_second"] for row in rows),
        "compile_seconds": compile_seconds,
        "wall_seconds": rows[-1]["wall_seconds"],
    }  # fmt: skip
