"""What an agent's run says: the rows of its record, and `summary.json`."""

from __future__ import annotations

import statistics as standard
from typing import Any

import jax
import numpy as np

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
COLLAPSED = 1e-6
"""A weight below which a sum in float32 hardly knows of it beside a weight of 1."""


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
            "train/skipped_updates": report.skipped[i],
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
        if report.metric_diagonal is not None and (collapsed := collapse(np.asarray(report.metric_diagonal[i]))):
            row["collapse"] = collapsed
        rows.append({key: finite(value) for key, value in row.items()})
    return rows


def failure(report: Report, index: int) -> str:
    """Which quantity of a seed turned non-finite, when, and what its last finite state is like."""
    part, found = Learner._fields[int(report.failed_part[index])], jax.tree.map(lambda leaf: leaf[index], report)
    told = [f"task loss {found.task_loss:.3g}", f"Q loss {found.q_loss:.3g}"]
    if found.residual is not None:
        told.append(f"residual of the solver {found.residual:.3g}")
    if found.metric_diagonal is not None:
        told.append(f"smallest weight of the metric {found.metric_diagonal.min():.3g}")
    return (f"the parameters of {part} turned non-finite at step {int(found.failed_step)} ({found.skipped} updates skipped); "
            f"before it: {', '.join(told)}")  # fmt: skip


def collapse(diagonal: np.ndarray) -> str | None:
    """What a metric no longer weighs, by its diagonal (n,); None if it weighs more than one dimension."""
    *_, largest = weights = np.sort(diagonal)
    if largest < COLLAPSED:
        return f"the metric has collapsed: its largest weight is {largest:.2g}"
    if len(weights) > 1 and weights[-2] < COLLAPSED * largest:
        return f"the metric has collapsed to dimension {np.argmax(diagonal)}: all others weigh less than {COLLAPSED:g} of it"
    return None


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
        "collapses": {str(row["seed"]): row["collapse"] for row in last if "collapse" in row},
        "skipped_updates": [row.get("train/skipped_updates") for row in last],
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
