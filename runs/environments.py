"""The same agents, untouched, on other environments.

Model-free soft Q-learning on the true transitions shows what a perfect model would give. Every method is given what that one
needs there, and TaskMet also has a setting for many dimensions that matter together: a full metric, faster, with less of the
identity mixed in.

`python -m runs.environments`; see `runs/experiment.py` for its flags.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from mbrl_taskmet.runner.plotting import draw_seeds, save_both
from runs.experiment import Experiment, main
from runs.names import NAMES, STYLE
from runs.report import LAST, Results, final_returns
from runs.setting import Setting

ENVIRONMENTS: dict[str, dict[str, Any]] = {
    "Acrobot-v1": {"q_hidden": 128},
    "MountainCar-v0": {},
    "Catch-bsuite": {},
    # Four random actions for ever are worth α ln 4/(1 − γ): at the default's α more than the goal, which ends them.
    "FourRooms-misc": {"temperature": 1e-3},
}
"""Settings that model-free soft Q-learning needs to learn there, without a model and without distractors."""
METHODS: dict[str, dict[str, Any]] = {
    "model_free": {},
    "taskmet": {},
    "omd": {},
    "mle": {},
    "taskmet_full": {"method": "taskmet", "metric": "full", "metric_floor": 0.1, "metric_lr": 0.01},
}
"""Settings by name; the method is the name unless it says otherwise."""
COUNTS = (0, 8)


def _name(environment: str, method: str, count: int) -> str:
    return f"{environment.split('-')[0].lower()}-{method}-{count}"


def draw(results: Results, output: Path, logdir: Path) -> None:
    """Every seed's return at the end and their mean, a column per environment, a row per number of distractors."""
    from matplotlib.figure import Figure

    shown = [e for e in ENVIRONMENTS if any(_name(e, method, count) in results for method in METHODS for count in COUNTS)]
    figure = Figure(figsize=(4 * len(shown), 5), layout="constrained")
    axes = figure.subplots(len(COUNTS), len(shown), sharex="col", sharey=True, squeeze=False)
    for row, count in enumerate(COUNTS):
        for column, environment in enumerate(shown):
            axis = axes[row, column]
            for place, method in enumerate(METHODS):
                returns = final_returns(results.get(_name(environment, method, count), []), LAST)
                if len(returns):
                    style = STYLE[NAMES[method]]
                    draw_seeds(axis, place, returns, float(returns.mean()), None, style["color"], style["marker"])
            axis.set_title(f"{environment}, {count} distractors")
            axis.set_yticks(range(len(METHODS)), [NAMES[method] for method in METHODS])
            axis.grid(alpha=0.3)
    axes[0, 0].invert_yaxis()  # of all, which share it
    for axis in axes[-1]:
        axis.set_xlabel(f"return, last {LAST} evaluations: seeds, mean")
    save_both(figure, output / "figure.png")


EXPERIMENT = Experiment(
    "environments",
    tuple(
        Setting(
            name=_name(environment, method, count),
            environment=environment,
            distractors=count,
            given={"method": method, **needed, **given},
            rival=None if method == "model_free" else _name(environment, "model_free", count),
        )
        for environment, needed in ENVIRONMENTS.items()
        for count in COUNTS
        for method, given in METHODS.items()
    ),
    draw,
)

if __name__ == "__main__":
    sys.exit(main(EXPERIMENT))
