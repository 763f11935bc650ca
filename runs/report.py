"""The tables of an experiment.

table.csv               a line per setting; P: the probability that its rival is better, at the last evaluation and over all
table.md                the columns of it that fit a page
seeds.csv               a line per seed: its returns at the end and over training, and its model error
curves.csv.gz           return and model error of every evaluation of every seed
runs.json               settings, seeds, device, versions and wall time of every block

The last two are read back, so that seeds and settings can be added to a report whose blocks are on another machine.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from mbrl_taskmet.rl.settings import Settings, read_saved
from mbrl_taskmet.runner.records import read_json, write_text
from mbrl_taskmet.runner.rundir import saved_settings, to_json
from mbrl_taskmet.runner.statistics import iqm, mean, probability_of_improvement, standard_error, stratified_ci95
from runs.setting import Setting
from runs.tables import as_count, as_number, markdown, read_csv, undamaged, write_csv

PUBLISHED = Path(__file__).parent / "published"
LAST = 10  # evaluations
SHOWN = ("setting", "seeds", "steps", "final return", "all evaluations", "published")
"""Columns of table.csv that table.md has."""

Rows = list[dict[str, Any]]
Results = dict[str, Rows]  # by the name of the setting; only those with a row
Runs = dict[str, dict[str, Any]]  # what is known of a block, by "setting/block"


def report(settings: Iterable[Setting], results: Results, runs: Runs, output: Path) -> None:
    """Write the table, the curves and where they come from."""
    lines = [_line(setting, results) for setting in settings if setting.name in results]
    write_csv(output / "table.csv", lines)
    write_text(output / "table.md", markdown([{name: line[name] for name in SHOWN} for line in lines]))
    write_csv(output / "seeds.csv", [line for name, rows in results.items() for line in _seeds(name, rows)])
    curves = [
        {"setting": name, "seed": row["seed"], "step": row["step"], "return": _short(row["eval/return"]),
         "model_error": _short(row["train/model_mse_state"])}
        for name, rows in results.items() for row in rows
    ]  # fmt: skip
    write_csv(output / "curves.csv.gz", curves)
    write_text(output / "runs.json", json.dumps(runs, indent=1) + "\n")


def read_runs(logdir: Path, names: Iterable[str]) -> Runs:
    """The records of the finished blocks of the named settings."""
    keys = ("seeds", "env_steps", "wall_seconds", "steps_per_second", "device", "versions", "failures")
    runs = {}
    for path in (path for name in names for path in sorted((logdir / name).glob("*/summary.json"))):
        with undamaged(path):
            summary = read_json(path)
            known = _checked({key: summary[key] for key in keys})
        settings = saved_settings(path.parent, read_saved)
        runs[str(path.parent.relative_to(logdir))] = known | {"settings": dict(settings.names)}
    return runs


def reported_settings(output: Path, run: dict[str, Any], setting: Setting) -> Settings:
    """The settings of a block in the report in `output`; old reports lack the environment, which is then the setting's.

    Raises:
        ConfigError: it is damaged, or of newer code.
    """
    with undamaged(output / "runs.json"):
        if "settings" in run:
            return read_saved(to_json(run["settings"]))
        where = {"environment": setting.environment, "distractors": setting.distractors}
        return read_saved({"format": 1, "config": run["config"], **where})


def read_report(output: Path) -> tuple[Results, Runs]:
    """The rows and the blocks of the report in `output`, as far as `report` keeps them; none where there is no report.

    Raises:
        ConfigError: its files are damaged.
    """
    path, results = output / "curves.csv.gz", Results()
    if not path.exists():
        return results, {}
    with undamaged(path):
        for line in read_csv(path, key=("setting", "seed", "step")):
            value, error = (as_number(line[key]) if line[key] else None for key in ("return", "model_error"))
            row = {
                "seed": as_count(line["seed"]),
                "step": as_count(line["step"]),
                "eval/return": value,
                "train/model_mse_state": error,
            }
            results.setdefault(line["setting"], []).append(row)
    with undamaged(output / "runs.json") as file:
        runs = read_json(file)
        if not isinstance(runs, dict) or not all(isinstance(run, dict) for run in runs.values()):
            raise ValueError("it is no table of blocks")
        return results, {name: _checked(run) for name, run in runs.items()}


def _checked(run: dict[str, Any]) -> dict[str, Any]:
    """`run`, if its device, versions and wall time can be printed by `runs/provenance.py`; an exception otherwise."""
    if "device" in run:
        _ = [run["device"][key] for key in ("count", "kind", "machine")]
    if "versions" in run:
        hash(tuple(run["versions"].items()))
    float(run.get("wall_seconds") or 0)
    return run


def merged(earlier: Rows, now: Rows) -> Rows:
    """For each seed the rows with more steps; `now`'s if both have as many."""
    seeds: dict[int, Rows] = {}
    for own in [*_by_seed(earlier), *_by_seed(now)]:
        before = seeds.get(own[0]["seed"])
        if before is None or own[-1]["step"] >= before[-1]["step"]:
            seeds[own[0]["seed"]] = own
    return [row for seed in sorted(seeds) for row in seeds[seed]]


def _by_seed(rows: Rows) -> Iterator[Rows]:
    """The rows of one seed after the other, each in the order of steps."""
    for _, own in groupby(sorted(rows, key=lambda row: (row["seed"], row["step"])), lambda row: row["seed"]):
        yield list(own)


def final_returns(rows: Rows, last: int | None = 1) -> np.ndarray:
    """Each seed's return (seeds,), the mean over its `last` evaluations or all; seeds that know none are left out."""
    values = []
    for own in _by_seed(rows):
        known = [row["eval/return"] for row in own[-(last or len(own)) :] if row["eval/return"] is not None]
        values += [float(np.mean(known))] if known else []
    return np.array(values)


def second_half(rows: Rows) -> np.ndarray:
    """Each seed's mean return (seeds,) over the evaluations after half of its steps; seeds that know none are left out."""
    return final_returns([row for own in _by_seed(rows) for row in own if 2 * row["step"] > own[-1]["step"]], None)


def returns_against(
    results: Results, name: str, numbers: Sequence[int], last: int | None = 1
) -> dict[int, tuple[float, float]]:
    """(mean, standard error) of the returns of the settings `name`-n, by n of `numbers`, the error NaN for one seed."""
    returns = {number: final_returns(results.get(f"{name}-{number}", []), last) for number in numbers}
    return {number: (float(own.mean()), standard_error(own)) for number, own in returns.items() if len(own)}


def read_published(name: str) -> list[dict[str, str]]:
    """The rows of a file of published numbers."""
    return read_csv(PUBLISHED / name)


def _seeds(name: str, rows: Rows) -> Iterator[dict[str, Any]]:
    """The line of every seed of a setting; empty cells where nothing is known."""
    for own in _by_seed(rows):
        returns = {
            "final return": final_returns(own), f"last {LAST} evaluations": final_returns(own, LAST),
            "second half": second_half(own), "all evaluations": final_returns(own, None),
        }  # fmt: skip
        known = {label: _short(float(value[0]) if len(value) else None) for label, value in returns.items()}
        end = own[-1]
        yield {"setting": name, "seed": end["seed"], "steps": end["step"], **known,
               "model error": _short(end["train/model_mse_state"])}  # fmt: skip


def _line(setting: Setting, results: Results) -> dict[str, Any]:
    rows = results[setting.name]
    final = final_returns(rows)
    interval = stratified_ci95(iqm, final, resamples=2000)
    ends = [own[-1] for own in _by_seed(rows)]
    steps, errors = sorted({row["step"] for row in ends}), [row["train/model_mse_state"] for row in ends]
    known = [error for error in errors if error is not None]
    rival = results.get(setting.rival or "", [])
    return {
        "setting": setting.name,
        "seeds": len(ends),
        "steps": " to ".join(str(step) for step in steps[:: max(1, len(steps) - 1)]),
        "final return": _spread(final),
        f"last {LAST} evaluations": _spread(final_returns(rows, LAST)),
        "all evaluations": _spread(final_returns(rows, None)),
        "IQM": f"{iqm(final):.2f}" if len(final) else "",
        "95 % interval": f"{interval[0]:.2f} to {interval[1]:.2f}" if interval else "",
        "P(rival is better)": _better(rival, rows, 1),
        "P, all evaluations": _better(rival, rows, None),
        "model error": f"{mean(known):.3g}" if known else "",
        "published": setting.published,
    }


def _better(rival: Rows, own: Rows, last: int | None) -> str:
    """The probability that a seed of the rival's is better over its `last` evaluations, if both are there."""
    theirs, ours = final_returns(rival, last), final_returns(own, last)
    return f"{probability_of_improvement(theirs, ours):.2f}" if len(theirs) and len(ours) else ""


def _spread(values: np.ndarray) -> str:
    """Mean ± standard error, as far as there are values."""
    error = f" ± {standard_error(values):.2f}" if len(values) > 1 else ""
    return f"{mean(list(values)):.2f}{error}" if len(values) else ""


def _short(value: float | None) -> str:
    return "" if value is None else f"{value:.5g}"
