"""Where a metric pays: methods on tasks in which a model cannot be right about everything.

`python -m runs.benchmark --only 'cartpole-oscillators-*'`; see `runs/experiment.py` for its flags. A task is an environment, a
disturbance of 32 dimensions and a model size; every method has one setting for all tasks. A score is 0 for random actions and 1
for soft Q-learning on true transitions (`model_free`), the mean over the last four evaluations or over training.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from mbrl_taskmet.rl.methods import METHODS
from mbrl_taskmet.rl.presets import PRESETS
from mbrl_taskmet.runner.plotting import draw_seeds, save_both
from mbrl_taskmet.runner.statistics import iqm, probability_of_improvement, stratified_ci95
from runs.experiment import Experiment, main
from runs.names import NAMES, STYLE
from runs.report import Results, final_returns
from runs.setting import Setting
from runs.tables import counted, write_table
from runs.weights import update_weights

ENVIRONMENTS = {"cartpole": "CartPole-v1"}
DISTURBANCES = ("noise", "oscillators", "nonlinear", "companions", "projected")
DISTRACTORS = 32
UNITS = (16, 8, 32)
STATES = 4
"""CartPole's dimensions that no disturbance makes."""
LAST = 4
"""Evaluations, of 20, that count as the end."""
SHARED: dict[str, Any] = dict(PRESETS["shared"].methods["taskmet"])
"""Chosen on seeds 300 to 303 of CartPole beside oscillators with 16 units; the other methods have their defaults."""
DENSE: dict[str, Any] = dict(PRESETS["shared"].values)
"""For every model, chosen on the same seeds: a sparse one shrinks the outputs of the state beside larger ones."""
UPPER = "model_free"
GIVEN: dict[str, dict[str, Any]] = {
    "taskmet_shared": {"method": "taskmet", **SHARED},
    **{method: {"method": method} for method in METHODS if method != UPPER},
    UPPER: {"method": UPPER},
}
TASKS = tuple((name, disturbance, units) for name in ENVIRONMENTS for disturbance in DISTURBANCES for units in UNITS)


def _name(environment: str, disturbance: str, units: int, method: str) -> str:
    return "-".join([environment, disturbance, *([] if method == UPPER else [f"{units}units"]), method])


@cache
def random_return(environment: str) -> float:
    """The mean return of random actions over 1000 episodes."""
    import jax

    from envs.make import make_environment
    from mbrl_taskmet.rl.evaluation import evaluate

    env = make_environment(environment)
    return float(np.mean(evaluate(env, lambda key, seen: env.action_space.sample(key), jax.random.key(0), 1000)))


def scores(results: Results, task: tuple[str, str, int], last: int | None) -> dict[str, np.ndarray]:
    """The score of every seed (seeds,) by method; none for a task without `model_free`."""
    returns = {method: final_returns(results.get(_name(*task, method), []), last) for method in GIVEN}
    if not len(returns[UPPER]):
        return {}
    low, high = random_return(ENVIRONMENTS[task[0]]), float(final_returns(results[_name(*task, UPPER)], last).mean())
    return {method: (own - low) / (high - low) for method, own in returns.items() if len(own)}


def pooled(results: Results, tasks: list[tuple[str, str, int]], last: int | None) -> dict[str, np.ndarray]:
    """The scores (seeds, tasks) of the methods that every task has, of as many seeds as all have."""
    found = [scores(results, task, last) for task in tasks]
    every = {method: [own[method] for own in found] for method in GIVEN if all(method in own for own in found)}
    least = {method: min(map(len, columns)) for method, columns in every.items()}
    return {method: np.stack([own[: least[method]] for own in columns], axis=1) for method, columns in every.items()}


def draw(results: Results, output: Path, logdir: Path) -> None:
    """The scores over all tasks of the first size, then those of every task; tables."""
    shown = [task for task in TASKS if "mle" in scores(results, task, LAST)]
    if not shown:
        return
    whole = [task for task in shown if task[2] == shown[0][2]]
    pools = {"end": pooled(results, whole, LAST), "over training": pooled(results, whole, None)}
    _draw_all(pools, len(whole), output / "benchmark.png")
    _draw_tasks(results, shown, output / "tasks.png")
    update_weights(output / "weights.csv", results, (_name(*task, "taskmet_shared") for task in shown), STATES)
    write_table(output / "returns.csv", list(_returns(results, shown)))
    write_table(output / "methods.csv", list(_methods(pools, len(whole))))


def _draw_all(pools: dict[str, dict[str, np.ndarray]], tasks: int, path: Path) -> None:
    """Scores over training and at the end, with the performance profile of the end, over so many tasks."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 3.6), layout="constrained")
    axes = figure.subplots(1, 3)
    training, end = pools["over training"], pools["end"]
    for axis, found, label in ((axes[0], training, "over training"), (axes[1], end, f"in the last {LAST} evaluations")):
        _draw_scores(axis, found)
        axis.set_title(f"score {label}, {tasks} task{'s' * (tasks > 1)}", fontsize="small")
        axis.set_xlabel("score: seeds, interquartile mean, its 95 % interval", fontsize="small")
    axes[1].tick_params(labelleft=False)
    _draw_profile(axes[2], end)
    axes[2].set_title(f"last {LAST} evaluations: share of runs above a score", fontsize="small")
    axes[2].set_xlabel("score", fontsize="small")
    save_both(figure, path)


def _draw_tasks(results: Results, tasks: list[tuple[str, str, int]], path: Path) -> None:
    """Scores of each task, over training and at the end."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 1 + 2.2 * len(tasks)), layout="constrained")
    axes = figure.subplots(len(tasks), 2, squeeze=False, sharex=True)
    for row, task in zip(axes, tasks, strict=True):
        for axis, last, label in ((row[0], None, "over training"), (row[1], LAST, f"last {LAST} evaluations")):
            _draw_scores(axis, scores(results, task, last))
            axis.set_title(f"{task[0]}, {task[1]}, {task[2]} units: {label}", fontsize="small")
        row[1].tick_params(labelleft=False)
    for axis in axes[-1]:
        axis.set_xlabel("score")
    save_both(figure, path)


def _draw_scores(axis: Any, found: dict[str, np.ndarray]) -> None:
    """A row a method: scores (seeds,) or (seeds, tasks), their interquartile mean and its interval."""
    for place, (method, own) in enumerate(found.items()):
        style = STYLE[NAMES[method]]
        draw_seeds(axis, place, own.ravel(), iqm(own), stratified_ci95(iqm, own), style["color"], style["marker"])
    axis.set_yticks(range(len(found)), [NAMES[method] for method in found], fontsize="small")
    axis.invert_yaxis()
    axis.axvline(1, color="grey", linewidth=0.8)
    axis.grid(alpha=0.3)


def _draw_profile(axis: Any, found: dict[str, np.ndarray]) -> None:
    """The share of runs whose score is at least so high (Agarwal et al. 2021)."""
    for method, own in found.items():
        falling = 1 - np.arange(own.size) / own.size
        axis.stairs(falling, [0.0, *np.sort(own.ravel()).clip(0)], label=NAMES[method],
                    color=STYLE[NAMES[method]]["color"], linewidth=1.5)  # fmt: skip
    axis.set(ylim=(-0.03, 1.03))
    axis.grid(alpha=0.3)
    axis.legend(fontsize="x-small", loc="lower left")


def _returns(results: Results, tasks: list[tuple[str, str, int]]) -> Iterator[dict[str, str]]:
    """A line a task and method: returns ± standard error (seeds), at the end and over training."""
    for task in tasks:
        for method in GIVEN:
            rows = results.get(_name(*task, method), [])
            if rows:
                columns = {"end": final_returns(rows, LAST), "over training": final_returns(rows, None)}
                yield {"task": f"{task[0]}, {task[1]}", "units": str(task[2]), "method": NAMES[method]} | {
                    name: counted(own) for name, own in columns.items()
                }


def _methods(pools: dict[str, dict[str, np.ndarray]], tasks: int) -> Iterator[dict[str, str]]:
    """A line a method that has been run on all of so many tasks: IQM of the scores, and the probability to beat MLE."""
    for method, end in pools["end"].items():
        line = {"method": NAMES[method], "tasks": str(tasks), "seeds": str(len(end))}
        for label, found in pools.items():
            low, high = stratified_ci95(iqm, found[method]) or (np.nan, np.nan)
            better = "" if method == "mle" else f"{probability_of_improvement(found[method], found['mle']):.2f}"
            line |= {f"IQM, {label}": f"{iqm(found[method]):.2f} ({low:.2f} to {high:.2f})",
                     f"P(better than MLE), {label}": better}  # fmt: skip
        yield line


def _settings() -> Iterator[Setting]:
    seen = set()
    for environment, disturbance, units in TASKS:
        for method, given in GIVEN.items():
            name = _name(environment, disturbance, units, method)
            size = {} if method == UPPER else {"model_hidden": units, **DENSE}
            rival = None if method in ("mle", UPPER) else _name(environment, disturbance, units, "mle")
            if name not in seen:
                seen.add(name)
                given = {**given, **size, "disturbance": disturbance, "eval_every": 2500}
                yield Setting(name, ENVIRONMENTS[environment], DISTRACTORS, given, rival)


EXPERIMENT = Experiment("benchmark", tuple(_settings()), draw, steps=50_000, seeds=8)

if __name__ == "__main__":
    sys.exit(main(EXPERIMENT))
