"""The tables of an experiment:

table.md, table.csv     a line per setting
curves.csv.gz           return and model error of every evaluation of every seed
runs.json               seeds, device, versions and wall time of every block
"""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mbrl_taskmet.statistics import iqm, mean, probability_of_improvement, standard_error, stratified_ci95

if TYPE_CHECKING:
    from runs.experiment import Setting

PUBLISHED = Path(__file__).parent / "published"
LAST = 10  # evaluations

Rows = list[dict[str, Any]]
Results = dict[str, Rows]  # by the name of the setting; only those with a row


def report(settings: Iterable[Setting], results: Results, output: Path, logdir: Path) -> None:
    """Write the table, the curves and where they come from."""
    lines = [_line(setting, results) for setting in settings if setting.name in results]
    head = list(lines[0])
    text = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    text += ["| " + " | ".join(str(line[name]) for name in head) + " |" for line in lines]
    (output / "table.md").write_text("\n".join(text) + "\n", encoding="utf-8")
    _write_csv(output / "table.csv", lines)
    curves = [
        {"setting": name, "seed": row["seed"], "step": row["step"], "return": _short(row["eval/return"]),
         "model_error": _short(row["train/model_mse_state"])}
        for name, rows in results.items() for row in rows
    ]  # fmt: skip
    _write_csv(output / "curves.csv.gz", curves)
    blocks = [path for name in results for path in sorted((logdir / name).glob("*/summary.json"))]
    keys = ("seeds", "env_steps", "wall_seconds", "steps_per_second", "device", "versions", "failures")
    summaries = {str(path.parent.relative_to(logdir)): json.loads(path.read_text(encoding="utf-8")) for path in blocks}
    runs = {name: {key: summary[key] for key in keys} for name, summary in summaries.items()}
    (output / "runs.json").write_text(json.dumps(runs, indent=1) + "\n", encoding="utf-8")


def final_returns(rows: Rows, last: int = 1) -> np.ndarray:
    """Each seed's return (seeds,), the mean over its `last` evaluations; seeds that know none are left out."""
    values = []
    for _, own in groupby(sorted(rows, key=lambda row: (row["seed"], row["step"])), lambda row: row["seed"]):
        known = [row["eval/return"] for row in list(own)[-last:] if row["eval/return"] is not None]
        values += [float(np.mean(known))] if known else []
    return np.array(values)


def read_published(name: str) -> list[dict[str, str]]:
    """The rows of a file of published numbers."""
    with (PUBLISHED / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _line(setting: Setting, results: Results) -> dict[str, Any]:
    rows = results[setting.name]
    final, late = final_returns(rows), final_returns(rows, LAST)
    interval = stratified_ci95(iqm, final, resamples=2000)
    errors = [row["train/model_mse_state"] for row in rows if row["step"] == rows[-1]["step"]]
    known = [error for error in errors if error is not None]
    rival = results.get(setting.rival or "")
    return {
        "setting": setting.name,
        "seeds": len({row["seed"] for row in rows}),
        "steps": max(row["step"] for row in rows),
        "final return": _spread(final),
        f"last {LAST} evaluations": _spread(late),
        "IQM": f"{iqm(final):.2f}" if len(final) else "",
        "95 % interval": f"{interval[0]:.2f} to {interval[1]:.2f}" if interval else "",
        "P(rival is better)": f"{probability_of_improvement(final_returns(rival), final):.2f}" if rival and len(final) else "",
        "model error": f"{mean(known):.3g}" if known else "",
        "published": setting.published,
    }


def _spread(values: np.ndarray) -> str:
    """Mean ± standard error, as far as there are values."""
    error = f" ± {standard_error(values):.2f}" if len(values) > 1 else ""
    return f"{mean(list(values)):.2f}{error}" if len(values) else ""


def _short(value: float | None) -> str:
    return "" if value is None else f"{value:.5g}"


def _write_csv(path: Path, lines: list[dict[str, Any]]) -> None:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(lines[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    data = text.getvalue().encode()
    path.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)
