"""Figure 8: a model that is too small, return and model error along training, and other numbers of hidden units.

`python -m runs.capacity`; see `runs/experiment.py` for its flags.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

from mbrl_taskmet.runner.plotting import band, curve, draw_against, save_both, shared_legend
from mbrl_taskmet.runner.statistics import standard_error
from runs.experiment import Experiment, main
from runs.names import NAMES, STYLE
from runs.report import LAST, Results, read_published, second_half
from runs.setting import Setting

UNITS = (3, 1, 2, 4, 8, 16, 32)
CRITIC: dict[str, Any] = {"q_layer_norm": False, "q_sparsity": 0.0}
"""Nothing that guards the critic against noise: there is none, and it costs return (`results/decisions/small-model.md`)."""
GIVEN: dict[str, dict[str, Any]] = {
    "mle": CRITIC,
    "omd": CRITIC,
    "taskmet": {**CRITIC, "metric": "full", "metric_input": "state_action"},
    "omd_code": {"method": "omd", "preset": "paper-code", "x64": True},
}
"""What a method is given beside its name and size, chosen as in `results/decisions/small-model.md`; the last as published."""
QUANTITIES = {"episode_return": ("eval/return", "return"), "dynamics_mse": ("train/model_mse_state", "model error")}


def draw(results: Results, output: Path, logdir: Path) -> None:
    """Figure 8, published above and ours below, and the return against the number of units where there are several."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 8), layout="constrained")
    axes = figure.subplots(2, 2, sharex=True, sharey="col")
    for column, (theirs, (ours, label)) in enumerate(QUANTITIES.items()):
        for method in GIVEN:
            name = NAMES[method]
            if method in PUBLISHED_3:
                _published_band(axes[0, column], theirs, name)
            rows = results.get(f"{method}-3", [])
            if rows:
                band(axes[1, column], *_averaged(*curve(rows, ours)), label=name, **STYLE[name])
        for axis, source in zip(axes[:, column], ("published", "this library"), strict=True):
            axis.set(title=f"{source}, 3 hidden units", ylabel=label)
            axis.grid(alpha=0.3)
        axes[1, column].set_xlabel("environment steps")
        axes[1, column].locator_params(axis="x", nbins=5)
    axes[0, 1].set_yscale("log")
    shared_legend(axes.ravel())
    save_both(figure, output / "figure8.png")
    if len({name.rpartition("-")[2] for name in results}) > 1:
        _draw_units(results, output)


def _averaged(steps: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A curve (T,), (seeds, T) as the published ones are drawn: the mean of each evaluation and the nine before it."""
    window = min(LAST, len(steps))
    return steps[window - 1 :], np.lib.stride_tricks.sliding_window_view(values, window, axis=1).mean(axis=-1)


def _published_band(axis: Any, quantity: str, method: str) -> None:
    style = STYLE[method]
    rows = [row for row in read_published("figure8.csv") if (row["quantity"], row["method"]) == (quantity, method)]
    names = ("env_step", "mean_over_10_seeds_10_point_moving_average", "mean_minus_se", "mean_plus_se")
    steps, center, low, high = (np.array([float(row[name]) for row in rows]) for name in names)
    axis.plot(steps, center, markevery=25, markersize=5, linewidth=1.6, label=method, **style)
    axis.fill_between(steps, low, high, color=style["color"], alpha=0.15, linewidth=0)


def _draw_units(results: Results, output: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 4.5), layout="constrained")
    axis = figure.subplots()
    units = sorted(UNITS)
    for method in PUBLISHED_3:
        name, style = NAMES[method], STYLE[NAMES[method]]
        returns = {number: second_half(results.get(f"{method}-{number}", [])) for number in units}
        points = {number: (float(own.mean()), standard_error(own)) for number, own in returns.items() if len(own)}
        draw_against(axis, units, {name: points}, STYLE)
        for number, own in returns.items():
            axis.plot([number] * len(own), own, ".", color=style["color"], alpha=0.4)
    axis.set(xlabel="hidden units of the model", ylabel="return over the second half of training", ylim=(0, 520))
    shared_legend([axis])
    save_both(figure, output / "units.png")


PUBLISHED_3 = {"taskmet": "412 ± 25", "omd": "320 ± 50", "mle": "166 ± 44"}  # at 200 000 steps

EXPERIMENT = Experiment(
    "capacity",
    tuple(
        Setting(
            name=f"{method}-{units}",
            given={"method": method, "model_hidden": units, **given},
            rival=None if method == "taskmet" else f"taskmet-{units}",
            published=PUBLISHED_3.get(str(given.get("method", method)), "") if units == 3 else "",
        )
        for units in UNITS
        for method, given in GIVEN.items()
        if units == 3 or method in PUBLISHED_3
    ),
    draw,
)

if __name__ == "__main__":
    sys.exit(main(EXPERIMENT))
