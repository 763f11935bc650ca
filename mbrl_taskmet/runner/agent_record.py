"""What an agent's run says: the rows of its record, and `summary.json`."""

from __future__ import annotations

import statistics as standard
from typing import Any

from mbrl_taskmet.rl.methods import Learner
from mbrl_taskmet.rl.settings import Settings
from mbrl_taskmet.rl.training import Report
from mbrl_taskmet.runner.records import Row, finite
from mbrl_taskmet.runner.rundir import to_json
from mbrl_taskmet.runner.statistics import ci95, iqm, mean
from mbrl_taskmet.runner.versions import environment

COLUMNS = ("eval/return", "train/model_mse", "train/model_mse_state", "train/task_loss", "train/q_loss",
           "time/steps_per_second", "wall_time", "wall_seconds")  # fmt: skip
"""What every row of an agent's record holds besides `step` and `seed`."""


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


def summarize_sweep(summaries: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The contents of a sweep's `summary.json`: the final return of every combination, and what is common to all."""
    first = next(iter(summaries.values()))
    common = ("versions", "device", "seeds", "env_steps", "steps_per_second", "compile_seconds", "wall_seconds")
    own = ("final_return", "mean", "iqm", "ci95", "failures")
    return {
        **{name: first[name] for name in common},
        "settings": {folder: {name: summary[name] for name in own} for folder, summary in summaries.items()},
    }
