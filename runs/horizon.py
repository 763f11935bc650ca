"""Longer rollouts: return against the horizon H, for three methods on three environments.

`python -m runs.horizon`; see `runs/experiment.py` for its flags. TaskMet names long-horizon planning as future work: here the
critic is trained on all H imagined states, and the gradients of OMD and TaskMet go through them (`rl/rollout.py`).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from mbrl_taskmet.runner.plotting import draw_against, save_both, shared_legend
from runs import continuous
from runs.continuous import LAST
from runs.experiment import Experiment, main
from runs.names import NAMES, STYLE
from runs.report import Results, returns_against
from runs.setting import Setting

HORIZONS = (1, 2, 4, 8)
METHODS = ("mle", "omd", "taskmet")
ENVIRONMENTS: dict[str, dict[str, Any]] = {
    "CartPole-v1": {},
    "Acrobot-v1": {"q_hidden": 128},  # see `runs/environments.py`
    "Pendulum-v1": {},
}
NEEDED = {("Pendulum-v1", method): given for method, given in continuous.NEEDED.items()}


def _name(environment: str, method: str, horizon: int) -> str:
    return f"{environment.split('-')[0].lower()}-{method}-{horizon}"


def draw(results: Results, output: Path, logdir: Path) -> None:
    """The mean over all evaluations above and the final return below, against H, a column per environment."""
    from matplotlib.figure import Figure

    shown = [e for e in ENVIRONMENTS if any(name.startswith(_name(e, "", 0).split("-")[0]) for name in results)]
    figure = Figure(figsize=(4.5 * len(shown), 7), layout="constrained")
    axes = figure.subplots(2, len(shown), sharex=True, squeeze=False)
    for row, (last, label) in zip(axes, ((None, "mean over training"), (LAST, f"last {LAST} evaluations")), strict=True):
        for axis, environment in zip(row, shown, strict=True):
            names = {NAMES[method]: _name(environment, method, 0).removesuffix("-0") for method in METHODS}
            curves = {called: returns_against(results, name, HORIZONS, last) for called, name in names.items()}
            draw_against(axis, HORIZONS, curves, STYLE)
            axis.set_title(environment)
        row[0].set_ylabel(f"return, {label}")
    for axis in axes[-1]:
        axis.set_xlabel("horizon H")
    shared_legend(axes.ravel())
    save_both(figure, output / "horizon.png")


EXPERIMENT = Experiment(
    "horizon",
    tuple(
        Setting(
            name=_name(environment, method, horizon),
            environment=environment,
            given={"method": method, "horizon": horizon, **needed, **NEEDED.get((environment, method), {})},
            rival=None if horizon == 1 else _name(environment, method, 1),
        )
        for environment, needed in ENVIRONMENTS.items()
        for horizon in HORIZONS
        for method in METHODS
    ),
    draw,
    steps=30_000,
    seeds=3,
)

if __name__ == "__main__":
    sys.exit(main(EXPERIMENT))
