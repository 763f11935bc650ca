"""Continuous control: soft actor-critic on models of Pendulum and of brax' environments, with noise and with small models.

`python -m runs.continuous --only 'pendulum-*'`; brax' environments take more steps, `--only 'hopper-*' --steps 50000`. See
`runs/experiment.py` for its flags. True transitions (`model_free`) show what a perfect one-step model would give.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mbrl_taskmet.rl.methods import METHODS
from mbrl_taskmet.runner.plotting import band, curve, draw_against, save_both
from runs.experiment import Experiment, main
from runs.names import NAMES, STYLE
from runs.report import Results, returns_against
from runs.setting import Setting

COUNTS = (0, 8, 32, 128)
UNITS = (4, 8)
FEW = ("model_free", "mle", "omd", "taskmet")
"""What is run on brax."""
BODIES = ("inverted_pendulum", "reacher", "hopper")
BODIES_COUNTS = (0, 16)
CHEETAH_UNITS = (64, 256)
LAST = 3
"""Evaluations that a final return is the mean of."""


def draw(results: Results, output: Path, logdir: Path) -> None:
    """Pendulum's return against noise and against the model's size; returns along training on brax."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 4.2), layout="constrained")
    axes = figure.subplots(1, 3, sharey=True)
    panels = (
        (f"last {LAST} evaluations", "pendulum", COUNTS, LAST, "distractors"),
        ("mean over training", "pendulum", COUNTS, None, "distractors"),
        (f"last {LAST} evaluations", "pendulum-units", UNITS, LAST, "hidden units of the model"),
    )
    for axis, (title, name, numbers, last, label) in zip(axes, panels, strict=True):
        places = range(len(numbers))
        for method in METHODS:
            found = returns_against(results, f"{name}-{method}", numbers, last)
            points = {place: found[number] for place, number in zip(places, numbers, strict=True) if number in found}
            draw_against(axis, places, {NAMES[method]: points}, STYLE)
        axis.set_xscale("linear")
        axis.set_xticks(places, [str(number) for number in numbers])
        axis.set(title=title, xlabel=label)
    axes[0].set(ylabel="return, mean ± standard error")
    axes[0].legend(fontsize="small")
    save_both(figure, output / "pendulum.png")
    rows = {"distractors": [(name, BODIES_COUNTS) for name in BODIES], "units": [("halfcheetah", CHEETAH_UNITS)]}
    for label, shown in rows.items():
        found = [(name, numbers) for name, numbers in shown if any(setting.startswith(f"{name}-") for setting in results)]
        if found:
            _draw_curves(results, found, label, output / f"brax_{label}.png")


def _draw_curves(results: Results, shown: Sequence[tuple[str, Sequence[int]]], label: str, path: Path) -> None:
    """Returns along training, a column per environment, a row per number."""
    from matplotlib.figure import Figure

    height = len(shown[0][1])
    figure = Figure(figsize=(4.5 * len(shown), 3.5 * height), layout="constrained")
    axes = figure.subplots(height, len(shown), sharex="col", sharey="col", squeeze=False)
    for column, (name, numbers) in enumerate(shown):
        for axis, number in zip(axes[:, column], numbers, strict=True):
            for method in FEW:
                rows = results.get(f"{name}-{method}-{number}", [])
                if rows:
                    band(axis, *curve(rows, "eval/return"), label=NAMES[method], **STYLE[NAMES[method]])
            axis.set(title=f"{name}, {number} {label}", ylabel="return")
            axis.locator_params(axis="x", nbins=4)
            axis.grid(alpha=0.3)
        axes[-1, column].set_xlabel("environment steps")
    axes[0, 0].legend(fontsize="small")
    save_both(figure, path)


NEEDED: dict[str, dict[str, Any]] = {"omd": {"model_target": "difference", "model_lr": 3e-4}}
"""What a method is given everywhere, chosen on Pendulum's seeds 100 and 101: OMD does not learn it otherwise."""


def _setting(name: str, method: str, number: int, environment: str, distractors: int = 0, **given: Any) -> Setting:
    rival = None if method == "mle" else f"{name}-mle-{number}"
    given = {"method": method, **NEEDED.get(method, {}), **given}
    return Setting(f"{name}-{method}-{number}", environment, distractors, given, rival)


def _small(method: str, units: int) -> dict[str, Any]:
    return {} if method == "model_free" else {"model_hidden": units}


EXPERIMENT = Experiment(
    "continuous",
    (
        *(_setting("pendulum", method, count, "Pendulum-v1", count) for count in COUNTS for method in METHODS),
        *(
            _setting("pendulum-units", method, units, "Pendulum-v1", **_small(method, units))
            for units in UNITS
            for method in METHODS
            if method != "model_free"  # which has no model
        ),
        *(
            _setting(name, method, count, name, count, suite="brax")
            for name in BODIES
            for count in BODIES_COUNTS
            for method in FEW
        ),
        *(
            _setting("halfcheetah", method, units, "halfcheetah", suite="brax", **_small(method, units))
            for units in CHEETAH_UNITS
            for method in FEW
            if method != "model_free" or units == CHEETAH_UNITS[0]
        ),
    ),
    draw,
    steps=20_000,
    seeds=5,
)

if __name__ == "__main__":
    sys.exit(main(EXPERIMENT))
