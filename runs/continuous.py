"""Continuous control: soft actor-critic on models of Pendulum and of brax' environments, with noise and with small models.

`python -m runs.continuous`; see `runs/experiment.py` for its flags. True transitions (`model_free`) show what a perfect
one-step model would give.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from mbrl_taskmet.rl.methods import METHODS
from mbrl_taskmet.runner.plotting import draw_against, save_both
from runs.experiment import Experiment, main
from runs.names import NAMES, STYLE
from runs.report import Results, returns_against
from runs.setting import Setting

COUNTS = (0, 8, 32, 128)
UNITS = (4, 8)
LAST = 3
"""Evaluations that a final return is the mean of."""


def draw(results: Results, output: Path, logdir: Path) -> None:
    """Pendulum's final return against the number of distractors, and against the number of the model's units."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.5), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    places = (("pendulum", COUNTS, "distractors"), ("pendulum-units", UNITS, "hidden units of the model"))
    for axis, (name, numbers, label) in zip(axes, places, strict=True):
        curves = {NAMES[method]: returns_against(results, f"{name}-{method}", numbers, LAST) for method in METHODS}
        draw_against(axis, numbers, curves, STYLE)
        axis.set(xlabel=label)
    axes[0].set(ylabel=f"return, last {LAST} evaluations, mean ± standard error")
    axes[0].legend(fontsize="small")
    save_both(figure, output / "pendulum.png")


def _setting(name: str, number: int, method: str, distractors: int = 0, **given: Any) -> Setting:
    rival = None if method == "mle" else f"{name}-mle-{number}"
    return Setting(f"{name}-{method}-{number}", "Pendulum-v1", distractors, {"method": method, **given}, rival)


EXPERIMENT = Experiment(
    "continuous",
    (
        *(_setting("pendulum", count, method, count) for count in COUNTS for method in METHODS),
        *(
            _setting("pendulum-units", units, method, model_hidden=units)
            for units in UNITS
            for method in METHODS
            if method != "model_free"
        ),
    ),
    draw,
    steps=20_000,
    seeds=5,
)

if __name__ == "__main__":
    sys.exit(main(EXPERIMENT))
