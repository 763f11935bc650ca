"""Figures 6 and 7: return against the number of distractors, every method, and the metric that TaskMet learns.

`python -m runs.distractors`; see `runs/experiment.py` for its flags. The default preset, for every method and count.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from mbrl_taskmet.config import METHODS
from mbrl_taskmet.plotting import STYLES, save_both
from mbrl_taskmet.statistics import standard_error
from runs.experiment import Experiment, Setting, main
from runs.report import Results, Rows, final_returns, read_published
from runs.restored import restored

COUNTS = (16, 32, 64, 128, 256, 512)
REAL = ("cart position", "cart velocity", "pole angle", "pole velocity")
NAMES = {"mle": "MLE", "omd": "OMD", "taskmet": "TaskMet", "vep": "VEP", "vagram": "VaGraM", "itervaml": "IterVAML",
         "model_free": "model-free"}  # fmt: skip


def published() -> dict[tuple[str, int], tuple[float, float]]:
    """(mean, standard error) by method and number of distractors, TaskMet the best of six settings at each."""
    return {
        (row["method"], int(row["distractors"])): (float(row["final_episode_return_mean"]), float(row["standard_error"]))
        for row in read_published("figure6.csv")
    }


def draw(results: Results, output: Path, logdir: Path) -> None:
    """Figure 6, the published one beside ours, and Figure 7."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    numbers = published()
    for (method, name), style in zip(NAMES.items(), STYLES, strict=False):
        theirs = {count: numbers[name, count] for count in COUNTS if (name, count) in numbers}
        ours = {}
        for count in COUNTS:
            final = final_returns(results.get(f"{method}-{count}", []))
            if len(final):
                ours[count] = (float(final.mean()), standard_error(final))  # NaN, and so no bar, for one seed
        for axis, points in ((left, theirs), (right, ours)):
            if points:
                centers, errors = zip(*points.values(), strict=True)
                axis.errorbar(list(points), centers, errors, capsize=3, label=name, **style)
    for axis, title in ((left, "published, TaskMet the best of six settings"), (right, "this library, one setting each")):
        axis.set(title=title, xlabel="distractors", xscale="log", xlim=(14, 590), ylim=(0, 520))
        axis.set_xticks(COUNTS, [str(count) for count in COUNTS], minor=False)
        axis.minorticks_off()
        axis.grid(alpha=0.3)
        axis.legend(fontsize="small")
    left.set_ylabel("final return, mean ± standard error")
    save_both(figure, output / "figure6.png")
    _draw_metric(results, output, logdir)


def _draw_metric(results: Results, output: Path, logdir: Path) -> None:
    """Figure 7: the final weight of every real dimension, and the range of the distractors', for TaskMet's runs.

    In standard deviations, the units that the metric sees by default, and in the environment's, the published ones.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.5), layout="constrained")
    axes = figure.subplots(1, 2)
    hidden = ""  # a label that begins with _ is not in the legend
    for place, count in enumerate(COUNTS):
        rows = results.get(f"taskmet-{count}", [])
        blocks = sorted(path.parent for path in (logdir / f"taskmet-{count}").glob("*/checkpoints"))
        for axis, weights in zip(axes, _weights(rows, blocks) if rows else (), strict=False):
            if not len(weights):
                continue
            center = weights.mean(axis=0)
            for i, (name, style) in enumerate(zip(REAL, STYLES, strict=False)):
                point = {**style, "linestyle": "", "markersize": 8, "label": hidden + name}
                axis.plot(place + 0.12 * (i - 1.5), center[i], **point)
            axis.fill_between([place - 0.3, place + 0.3], center[4:].min(), center[4:].max(), color="grey", alpha=0.5,
                              label=f"{hidden}distractors, lowest to highest")  # fmt: skip
            hidden = hidden if axis is axes[0] else "_"
    for axis, units in zip(axes, ("standard deviations", "the environment's units, as published"), strict=True):
        axis.set_xticks(range(len(COUNTS)), [str(count) for count in COUNTS])
        axis.set(xlabel="distractors", ylabel="weight in the metric, mean over seeds", title=f"errors in {units}")
        axis.grid(alpha=0.3)
    axes[1].set_yscale("log")
    if hidden:
        axes[0].legend(fontsize="small")
    save_both(figure, output / "figure7.png")


def _weights(rows: Rows, blocks: list[Path]) -> tuple[np.ndarray, np.ndarray]:
    """Λ's diagonal of every seed at the end, (seeds, n): as the metric sees the errors, and in the environment's units."""
    final = {row["seed"]: row["metric/diagonal"] for row in rows}  # the last row of each seed is its last evaluation
    seen, own = [], []
    for block in blocks:
        run, _, _, carry = restored(block, with_replay=False)
        scales = np.broadcast_to(carry.learner.scale, (run.config.seeds, len(rows[-1]["metric/diagonal"])))
        for seed, scale in enumerate(scales, start=run.config.seed):
            if seed in final and None not in final[seed]:
                seen.append(np.array(final[seed]))
                own.append(seen[-1] / scale**2)
    return np.array(seen), np.array(own)


def _setting(method: str, count: int) -> Setting:
    number = published().get((NAMES[method], count))
    return Setting(
        name=f"{method}-{count}",
        distractors=count,
        given={"method": method},
        rival=None if method == "taskmet" else f"taskmet-{count}",
        published=f"{number[0]:.0f} ± {number[1]:.0f}" if number else "",
    )


EXPERIMENT = Experiment("distractors", tuple(_setting(method, count) for count in COUNTS for method in METHODS), draw)

if __name__ == "__main__":
    sys.exit(main(EXPERIMENT))
