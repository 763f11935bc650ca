"""Pictures of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

Rows = list[dict[str, Any]]


def plot_run(rows: Rows, state_names: tuple[str, ...], title: str, path: Path) -> None:
    """Draw `curves.png`: return, model error, and the learned metric if there is one; thin lines are seeds, bold their mean."""
    from matplotlib.figure import Figure  # without pyplot: no global state, no display

    measured = rows[-1].get("metric/diagonal") is not None
    figure = Figure(figsize=(15 if measured else 10, 4), layout="constrained")
    figure.suptitle(title)
    axes = figure.subplots(1, 3 if measured else 2)
    _seeds(axes[0], rows, "eval/return", "return")
    _seeds(axes[1], rows, "train/model_mse_state", "model error, real dimensions")
    axes[1].set_yscale("log")
    if measured:
        _metric(axes[2], rows, state_names)
    for axis in axes:
        axis.set_xlabel("environment steps")
        axis.locator_params(axis="x", nbins=5)  # more labels of six digits would overlap
        axis.grid(alpha=0.3)
    aside = path.with_suffix(".part.png")
    figure.savefig(aside, dpi=120)
    aside.replace(path)


def curve(rows: Rows, key: str) -> tuple[np.ndarray, np.ndarray]:
    """(steps (T,), values (seeds, T)) of one quantity; NaN where it was null."""
    steps = sorted({row["step"] for row in rows})
    seeds = sorted({row["seed"] for row in rows})
    values = np.full((len(seeds), len(steps)), np.nan)
    for row in rows:
        value = row.get(key)
        values[seeds.index(row["seed"]), steps.index(row["step"])] = np.nan if value is None else value
    return np.array(steps), values


def _seeds(axis: Any, rows: Rows, key: str, label: str) -> None:
    steps, values = curve(rows, key)
    axis.plot(steps, values.T, color="C0", alpha=0.3, linewidth=0.8)
    axis.plot(steps, np.mean(values, axis=0), color="C0", linewidth=2)
    axis.set_ylabel(label)


def _metric(axis: Any, rows: Rows, state_names: tuple[str, ...]) -> None:
    for i, name in enumerate(state_names):
        steps, values = curve(rows, f"metric/{name}")
        axis.plot(steps, np.mean(values, axis=0), color=f"C{i}", label=name.replace("_", " "))
    last = rows[-1]["metric/diagonal"]
    if len(last) > len(state_names):
        noise = {(row["seed"], row["step"]): row["metric/diagonal"][len(state_names) :] for row in rows}
        steps = np.array(sorted({step for _, step in noise}))
        low, high = ([f(f(v) for (_, t), v in noise.items() if t == step) for step in steps] for f in (min, max))
        axis.fill_between(steps, low, high, color="grey", alpha=0.4, label="distractors (lowest to highest)")
    axis.set_ylabel("weight in the metric, mean over seeds")
    axis.legend(fontsize="small")
