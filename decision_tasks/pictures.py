"""Pictures of what the decision tasks learn."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mbrl_taskmet.runner.plotting import save

Arrays = dict[str, np.ndarray]


def draw_predictions(learned: dict[str, Arrays], path: Path) -> None:
    """TaskMet's Figure 4: predictions of every method over x, one line a run, and the learned metric below them."""
    from matplotlib.figure import Figure  # without pyplot: no global state, no display

    metrics = {label: arrays for label, arrays in learned.items() if "metric" in arrays}
    figure = Figure(figsize=(8, 6 if metrics else 4), layout="constrained")
    axes = figure.subplots(2 if metrics else 1, 1, sharex=True, squeeze=False, height_ratios=[3, 2] if metrics else None)[:, 0]
    for i, (label, arrays) in enumerate(learned.items()):
        lines = axes[0].plot(arrays["x"][:, 0], arrays["prediction"][:, :, 0].T, color=f"C{i}", alpha=0.25, linewidth=0.8)
        lines[0].set_label(label)
    x = next(iter(learned.values()))["x"][:, 0]
    axes[0].plot(x, 10 * x**3 - 6.5 * x, color="black", linewidth=2, label="truth")
    legend = axes[0].legend(fontsize="small", loc="upper left", ncols=2)
    for handle in legend.get_lines():
        handle.set(alpha=1.0, linewidth=2)
    axes[0].set(ylabel="y, predicted and true", ylim=(-5, 5))  # a diverged run would hide the others
    for arrays in metrics.values():
        weight = arrays["metric"][:, :, 0, 0]
        axes[1].plot(x, weight.T, color="grey", alpha=0.3, linewidth=0.8)
        axes[1].plot(x, np.mean(weight, axis=0), color="C3", linewidth=2, label="mean over runs")
        axes[1].set_ylabel("learned metric Λ(x)")
        axes[1].legend(fontsize="small")
    axes[-1].set_xlabel("x")
    for axis in axes:
        axis.grid(alpha=0.3)
    save(figure, path)


def draw_ellipses(learned: Arrays, path: Path, runs: int = 4) -> None:
    """TaskMet's Figure 2: the errors on two targets that have length 1 under the metric of each row; dashed, the identity's."""
    from matplotlib.figure import Figure

    metrics = learned["metric"][:runs]  # (runs, rows, n, n)
    figure = Figure(figsize=(3.2 * len(metrics), 3.6), layout="constrained")
    angle = np.linspace(0, 2 * np.pi, 200)
    circle = np.stack([np.cos(angle), np.sin(angle)])
    for run, (axis, matrices) in enumerate(zip(figure.subplots(1, len(metrics), squeeze=False)[0], metrics, strict=True)):
        # the two targets on which the rows' mean metric is farthest from a multiple of the identity
        _, vectors = np.linalg.eigh(matrices.mean(axis=0))
        first, second = np.sort(np.argsort(-np.abs(vectors[:, -1]))[:2])
        for row, matrix in enumerate(matrices):
            block = matrix[np.ix_([first, second], [first, second])]
            ellipse = np.linalg.solve(np.linalg.cholesky(block).T, circle)
            axis.plot(*ellipse, color=f"C{row}", label=f"row {row + 1}")
        axis.plot(*circle, color="black", linestyle="--", linewidth=0.8, label="identity")
        axis.set(
            aspect="equal", title=f"run {run}", xlabel=f"error on target {first + 1}", ylabel=f"error on target {second + 1}"
        )
        axis.grid(alpha=0.3)
    figure.legend(*figure.axes[0].get_legend_handles_labels(), fontsize="small", loc="outside lower center", ncols=7)
    save(figure, path)
