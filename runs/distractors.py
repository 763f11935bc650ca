"""Figures 6 and 7: return against the number of distractors, every method, and the metric that TaskMet learns.

`python -m runs.distractors`; see `runs/experiment.py` for its flags. The default preset, for every method and count; and
`taskmet_exp`, a metric that singles dimensions out faster, chosen for the mean over training.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from mbrl_taskmet.rl.methods import METHODS
from mbrl_taskmet.rl.settings import read_saved
from mbrl_taskmet.runner.agent import restored
from mbrl_taskmet.runner.plotting import STYLES, draw_against, save_both, shared_legend
from mbrl_taskmet.runner.rundir import check_code, saved_settings
from runs.experiment import Experiment, main
from runs.names import NAMES
from runs.report import Results, final_returns, read_published, returns_against
from runs.setting import Setting
from runs.tables import as_count, as_number, read_csv, undamaged, write_csv

COUNTS = (16, 32, 64, 128, 256, 512)
UNITS = {"normalized": "standard deviations", "environment": "the environment's units, as published"}
REAL = ("cart position", "cart velocity", "pole angle", "pole velocity")
GIVEN: dict[str, dict[str, Any]] = {method: {"method": method} for method in METHODS}
GIVEN["taskmet_exp"] = {"method": "taskmet", "metric_activation": "exp", "metric_floor": 0.05, "metric_lr": 0.01,
                        "metric_warmup": 2000}  # fmt: skip
"""Settings by the first part of a setting's name."""
LINES: dict[str, dict[str, Any]] = {
    "published, final": {"color": "#777777", "linestyle": "--", "marker": "s"},
    "final, mean": {"color": "#0072b2", "linestyle": "-", "marker": "^"},
    "mean over training": {"color": "#e69f00", "linestyle": ":", "marker": "D", "markersize": 4},
}
"""How the curves of Figure 6 are drawn."""
METRICS = tuple(name for name, given in GIVEN.items() if given["method"] == "taskmet")


@cache
def published() -> dict[tuple[str, int], tuple[float, float]]:
    """(mean, standard error) by method and number of distractors, TaskMet the best of six settings at each."""
    return {
        (row["method"], int(row["distractors"])): (float(row["final_episode_return_mean"]), float(row["standard_error"]))
        for row in read_published("figure6.csv")
    }


def draw(results: Results, output: Path, logdir: Path) -> None:
    """Figure 6, a panel per method, and Figure 7."""
    from matplotlib.figure import Figure

    kept = _read_weights(output / "weights.csv.gz")
    shown = [method for method in GIVEN if any(f"{method}-{count}" in results for count in COUNTS)]
    figure = Figure(figsize=(15, 6.5), layout="constrained")
    axes = figure.subplots(2, -(-len(shown) // 2), sharex=True, sharey=True, squeeze=False)
    for axis, method in zip(axes.ravel(), shown, strict=False):
        _draw_method(axis, method, results)
    for axis in axes[:, 0]:
        axis.set_ylabel("return, mean ± standard error")
    for axis in axes[-1]:
        axis.set_xlabel("distractors")
    shared_legend(axes.ravel())
    save_both(figure, output / "figure6.png")
    _draw_metric(kept | {(line["setting"], line["seed"]): line for line in _weights(results, logdir)}, output)


def _draw_method(axis: Any, method: str, results: Results) -> None:
    """One method's returns against the number of distractors, at the end and over training, and the published ones."""
    name, numbers = NAMES[method], published()
    theirs = {count: numbers[name, count] for count in COUNTS if (name, count) in numbers}
    curves = {
        "published, final": theirs,
        "final, mean": returns_against(results, method, COUNTS),
        "mean over training": returns_against(results, method, COUNTS, None),
    }
    draw_against(axis, COUNTS, curves, LINES)
    returns = {count: final_returns(results.get(f"{method}-{count}", [])) for count in COUNTS}
    places = [count for count, values in returns.items() for _ in values]
    axis.plot(places, np.concatenate(list(returns.values())), "o", markersize=4, color="#0072b2", alpha=0.4, linewidth=0,
              label="final, each seed")  # fmt: skip
    axis.set(title=f"{name}, {max(map(len, returns.values()))} seeds", xlim=(13, 630), ylim=(-15, 520))


def _draw_metric(lines: dict[tuple[str, int], dict[str, Any]], output: Path) -> None:
    """Figure 7: the final weight of every real dimension, and the range of the distractors', for TaskMet's runs.

    Drawn in standard deviations, the units that the metric sees by default, and in the environment's, the published ones; kept
    in `weights.csv.gz`.
    """
    from matplotlib.figure import Figure

    if not lines:
        return
    write_csv(output / "weights.csv.gz", [lines[key] for key in sorted(lines)])
    learned = [method for method in METRICS if any(name.startswith(f"{method}-") for name, _ in lines)]
    figure = Figure(figsize=(13.5, 4.5 * len(learned)), layout="constrained")
    axes = figure.subplots(len(learned), 2, sharey="col", squeeze=False)
    for row, method in zip(axes, learned, strict=True):
        seeds = len({seed for name, seed in lines if name.startswith(f"{method}-")})
        for axis, (key, units) in zip(row, UNITS.items(), strict=True):
            for place, count in enumerate(COUNTS):
                own = [line[key].split() for (name, _), line in lines.items() if name == f"{method}-{count}"]
                if own:
                    _draw_weights(axis, place, np.mean(np.array(own, float), axis=0))
            axis.set_xticks(range(len(COUNTS)), [str(count) for count in COUNTS])
            axis.set(xlabel="distractors", title=f"{NAMES[method]}, {seeds} seeds\nerrors in {units}")
            axis.grid(alpha=0.3)
        row[0].set_ylabel("weight in the metric, mean over seeds")
        row[1].set_yscale("log")
    shared_legend(axes.ravel())
    save_both(figure, output / "figure7.png")


def _read_weights(path: Path) -> dict[tuple[str, int], dict[str, Any]]:
    """The lines of `weights.csv.gz` by setting and seed, every weight of them a finite number; none where there is no file."""
    if not path.exists():
        return {}
    with undamaged(path):
        lines = {(line["setting"], as_count(line["seed"])): dict(line) for line in read_csv(path, key=("setting", "seed"))}
        for (name, _), line in lines.items():
            size = len(REAL) + as_count(name.rpartition("-")[2])
            for unit in UNITS:
                if len([as_number(weight) for weight in line[unit].split()]) != size:
                    raise ValueError(f"{name} has no {size} weights in the column {unit}")
        return lines


def _draw_weights(axis: Any, place: float, center: np.ndarray) -> None:
    """One count's weights (n,): the real dimensions as points, the distractors as a bar."""
    for i, (name, style) in enumerate(zip(REAL, STYLES, strict=False)):
        axis.plot(place + 0.12 * (i - 1.5), center[i], **{**style, "linestyle": "", "markersize": 8, "label": name})
    low, high = center[len(REAL) :].min(), center[len(REAL) :].max()
    axis.fill_between([place - 0.3, place + 0.3], low, high, color="grey", alpha=0.5, label="distractors, lowest to highest")


def _weights(results: Results, logdir: Path) -> Iterator[dict[str, Any]]:
    """Λ's diagonal at the end of every seed whose block is there, in both units."""
    from envs.make import environment_of  # here, because gymnax takes seconds, and a report needs none

    for name in (f"{method}-{count}" for method in METRICS for count in COUNTS):
        final = {row["seed"]: row.get("metric/diagonal", [None]) for row in results.get(name, [])}  # the last row of each seed
        for block in sorted(path.parent for path in (logdir / name).glob("*/checkpoints") if final):
            saved = saved_settings(block, read_saved)
            check_code(block, saved.environment.name, None)
            env = environment_of(saved.environment)
            settings, _, _, carry = restored(env, block, with_replay=False)
            scales = np.broadcast_to(carry.learner.scale, (settings.seeds, env.observation_size))
            for seed, scale in enumerate(scales, start=settings.seed):
                if None not in final.get(seed, [None]):
                    units = (np.array(final[seed]), np.array(final[seed]) / scale**2)
                    written = (" ".join(f"{weight:.5g}" for weight in weights) for weights in units)
                    yield {"setting": name, "seed": seed, **dict(zip(UNITS, written, strict=True))}


def _setting(name: str, count: int) -> Setting:
    number = published().get((NAMES[GIVEN[name]["method"]], count))
    return Setting(
        name=f"{name}-{count}",
        distractors=count,
        given=GIVEN[name],
        rival=None if name == "taskmet_exp" else f"taskmet_exp-{count}",
        published=f"{number[0]:.0f} ± {number[1]:.0f}" if number else "",
    )


EXPERIMENT = Experiment("distractors", tuple(_setting(name, count) for count in COUNTS for name in GIVEN), draw)

if __name__ == "__main__":
    sys.exit(main(EXPERIMENT))
