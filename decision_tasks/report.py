"""What a run says: rows of its record, `result.json` of each cell, `summary.json`, `tables.md` and pictures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from decision_tasks.evaluation import BASELINES
from decision_tasks.objectives import MetricLearning
from decision_tasks.one_run import CellReport
from decision_tasks.pictures import draw_ellipses, draw_predictions
from decision_tasks.saved import to_json
from decision_tasks.settings import CellSettings
from decision_tasks.training import CellResult, CellTrainer
from mbrl_taskmet.runner.records import Row, finite, read_json, write_json, write_text
from mbrl_taskmet.runner.versions import environment

PUBLISHED: dict[str, dict[str, tuple[float, float, float, float]]] = {
    "cubic": {
        "mse": (-0.96, 0.02, 2.30, 0.03),
        "dfl α=0": (0.61, 0.74, 2.89, 0.32),
        "dfl α=10": (0.62, 0.74, 2.41, 0.05),
        "lodl α=0": (0.96, 0.005, 2.88, 0.03),
        "lodl α=10": (-0.95, 0.005, 2.29, 0.19),
        "taskmet": (0.96, 0.005, 2.89, 0.03),
    },
    "budget": {
        "mse": (0.54, 0.17, 4.32, 2.35),
        "dfl α=0": (0.91, 0.06, 71.7, 58.3),
        "dfl α=10": (0.81, 0.11, 8.09, 12.1),
        "lodl α=0": (0.84, 0.105, 35.9, 12.9),
        "lodl α=10": (0.58, 0.14, 5.05, 1.88),
        "taskmet": (0.83, 0.12, 9.74, 13.79),
    },
    "portfolio": {
        "mse": (0.33, 0.03, 4.03, 0.24),
        "dfl α=0": (0.25, 0.02, 8.0e3, 8e2),
        "dfl α=10": (0.34, 0.03, 5.18, 0.46),
        "lodl α=0": (0.17, 0.05, 55.6, 9.95),
        "lodl α=10": (0.30, 0.03, 4.31, 0.31),
        "taskmet": (0.33, 0.03, 4.69, 0.56),
    },
}
"""TaskMet's Tables 2 and 3: normalised decision quality ± and test error ±, the error in the unit of `UNIT`."""
UNIT = {"budget": 1e-4, "portfolio": 1e-4}


class Tables(NamedTuple):
    """What a run has found.

    Attributes:
        summary: the contents of `summary.json`.
        text: those of `tables.md`.
    """

    summary: dict[str, Any]
    text: str


def rows_of(report: CellReport, iteration: int, seeds: int) -> list[Row]:
    """One row per run that was still training: `seed` is the run's number, data set × seeds + seed of the data set."""
    return [
        finite({
            "step": iteration,
            "seed": run,
            "dataset": run // seeds,
            "validation/score": report.score[run],
            "validation/value": report.validation_value[run],
            "validation/mse": report.validation_mse[run],
            "train/task_loss": report.task_loss[run],
            "solver/residual": report.residual[run],
            "best_iteration": report.best_iteration[run],
            **({"failure": f"not finite by iteration {report.failed[run]}"} if report.failed[run] >= 0 else {}),
        })
        for run in range(len(report.score))
        if not np.isnan(report.score[run]) or report.failed[run] == iteration
    ]  # fmt: skip


def result_of(trainer: CellTrainer, result: CellResult, seconds: float | None) -> dict[str, Any]:
    """The contents of `result.json`. Lists are per run, those of a data set together."""
    names = trainer.cell.names
    flat = {name: values.reshape(-1) for name, values in result.scores._asdict().items()}
    dq, error = _mean(result.normalized_dq), _mean(result.test_mse)
    return {
        "task": names["task"],
        "method": names["method"],
        "alpha": names.get("alpha", 0.0),
        **flat,
        "mean_normalized_dq": dq[0],
        "stderr_normalized_dq": dq[1],
        "mean_test_mse": error[0],
        "stderr_test_mse": error[1],
        "best_iteration": result.carry.best_iteration,
        "failed": result.carry.failed,
        "baselines": {name: {"normalized_dq": score.normalized_dq, "test_mse": score.test_mse}
                      for name, score in trainer.data_sets.baselines.items()},
        **({"decisions": _apart(result)} if result.apart else {}),
        "wall_seconds": seconds,
    }  # fmt: skip


def _apart(result: CellResult) -> dict[str, Any]:
    """The scores of each decision, where the task takes several."""
    found = {}
    for name, score in result.apart.items():
        dq = _mean(score.normalized_dq)
        found[name] = {"normalized_dq": score.normalized_dq.reshape(-1), "value": score.value.reshape(-1),
                       "mean_normalized_dq": dq[0], "stderr_normalized_dq": dq[1]}  # fmt: skip
    return found


def learned(trainer: CellTrainer, result: CellResult) -> dict[str, np.ndarray]:
    """What the pictures show: predictions and metrics of every run where x has one dimension, and of one instance elsewhere."""
    with jax.enable_x64(trainer.x64):
        return {name: np.asarray(array) for name, array in _shown(trainer, result).items()}


def _shown(trainer: CellTrainer, result: CellResult) -> dict[str, jax.Array]:
    objective, data = trainer.cell.objective, jax.tree.map(lambda leaf: jnp.asarray(leaf[0]), trainer.data_sets.data.test)
    if data.x.shape[-1] == 1:
        x = jnp.linspace(-1.0, 1.0, 201)[None, :, None]
        batch = data._replace(x=x, y=jnp.zeros((1, 201, data.y.shape[-1])))
    else:
        batch = jax.tree.map(lambda leaf: leaf[:1], data)
    runs = result.carry
    arrays = {
        "x": batch.x[0],
        "y": batch.y[0],
        "prediction": jax.vmap(lambda p: trainer.task.predict(p, batch)[0])(runs.best_params),
    }
    if isinstance(objective, MetricLearning):
        arrays["metric"] = jax.vmap(lambda p: objective.weigh(p, batch)[0])(runs.best_metric)
    return arrays


def write_report(cells: Sequence[CellSettings], directory: Path) -> Tables:
    """Write `summary.json` and `tables.md`."""
    results = [read_json(directory / cell.directory / "result.json") for cell in cells]
    summary = {"config": to_json(cells), **environment(), "cells": results}
    if len(results) == 1:
        summary |= {name: results[0][name] for name in ("normalized_dq", "test_mse")}
    write_json(directory / "summary.json", summary)
    tables = "\n\n".join(_table(cells, results, *kind) for kind in (
        ("Normalised test decision quality: 0 random predictions, 1 the truth (Table 2)", "normalized_dq", 0),
        ("Test MSE (Table 3)", "test_mse", 2),
    ))  # fmt: skip
    write_text(directory / "tables.md", tables + "\n")
    return Tables(summary, tables)


def draw(cells: Sequence[CellSettings], directory: Path) -> None:
    """Draw what the trained cells have learned, where there is a picture for it."""
    arrays = {}
    for cell in cells:
        with np.load(directory / cell.directory / "learned.npz", allow_pickle=False) as saved:
            arrays[cell.names["task"], cell.label] = dict(saved)
    cubic = {label: value for (task, label), value in arrays.items() if task == "cubic"}
    if cubic:
        draw_predictions(cubic, directory / "cubic.png")
    if ("budget", "taskmet") in arrays and arrays["budget", "taskmet"]["metric"].shape[-1] > 1:
        draw_ellipses(arrays["budget", "taskmet"], directory / "metric.png")


def _mean(values: Any) -> tuple[float, float | None]:
    """The mean over runs, and its standard error from the means of the data sets (None for one), whose runs are alike."""
    each = np.mean(np.asarray(values, dtype=float), axis=-1)
    with np.errstate(invalid="ignore"):  # a value may be infinite
        return float(each.mean()), float(each.std(ddof=1) / math.sqrt(len(each))) if len(each) > 1 else None


def _table(cells: Sequence[CellSettings], results: list[dict[str, Any]], title: str, key: str, column: int) -> str:
    """A column for each task and a row for each objective, empty where a cell was not trained."""
    found = {(result["task"], cell.label): result for cell, result in zip(cells, results, strict=True)}
    tasks, labels = (list(dict.fromkeys(part)) for part in zip(*found, strict=True))
    unit = {task: UNIT.get(task, 1.0) if key == "test_mse" else 1.0 for task in tasks}
    heads = [task + (f" ×{unit[task]:g}" if unit[task] != 1 else "") for task in tasks]
    lines = [
        title,
        "",
        "| method | " + " | ".join(f"{head} | published" for head in heads) + " |",
        "|---" * (2 * len(tasks) + 1) + "|",
    ]
    for label in labels:
        parts = []
        for task in tasks:
            published = PUBLISHED.get(task, {}).get(label)
            parts += [_found(found.get((task, label)), key, unit[task]),
                      _number(published[column], published[column + 1], 1.0) if published else ""]  # fmt: skip
        lines.append(f"| {label} | " + " | ".join(parts) + " |")
    for name in BASELINES:
        parts = []
        for task in tasks:
            values = next(r for (t, _), r in found.items() if t == task)["baselines"][name][key]
            parts += [_number(*_mean([[value] for value in values]), unit[task]), ""]
        lines.append(f"| {name} | " + " | ".join(parts) + " |")
    return "\n".join([*lines, "", "±: standard error over the data sets. ↓: worse than predicting zero."])


def _found(result: dict[str, Any] | None, key: str, unit: float) -> str:
    """A result's mean, marked where predicting zero is better."""
    if result is None:
        return ""
    zero, value = np.mean(np.array(result["baselines"]["zero"][key], float)), result[f"mean_{key}"]
    worse = value is not None and (value < zero if key == "normalized_dq" else value > zero)
    return _number(value, result[f"stderr_{key}"], unit) + (" ↓" if worse else "")


def _number(value: float | None, error: float | None, unit: float) -> str:
    if value is None or not math.isfinite(value):
        return "not finite"
    return f"{value / unit:.3g}" + ("" if error is None else f" ± {error / unit:.2g}")
