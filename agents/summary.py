"""`summary.json`: what a run came to, from its rows."""

from __future__ import annotations

import statistics as standard
from typing import Any

from agents.rundir import Run
from mbrl_taskmet.recording import Row
from mbrl_taskmet.statistics import ci95, iqm, mean
from mbrl_taskmet.versions import environment


def summarize(run: Run, rows: list[Row], compile_seconds: float | None) -> dict[str, Any]:
    """The contents of `summary.json`. Lists are per seed; final means at the last evaluation.

    `compile_seconds` is None where nothing was left to compile.
    """
    last = [row for row in rows if row["step"] == rows[-1]["step"]]
    returns = [row["eval/return"] for row in last]
    known = [value for value in returns if value is not None]
    return {
        "config": run.to_json(),
        **environment(),
        "seeds": [row["seed"] for row in last],
        "env_steps": last[0]["step"],
        "final_return": returns,
        "mean": mean(known) if known else None,
        "iqm": iqm(known) if known else None,
        "ci95": ci95(known),
        "model_mse": [row["train/model_mse"] for row in last],
        "model_mse_state": [row["train/model_mse_state"] for row in last],
        "metric_diagonal": [row.get("metric/diagonal") for row in last],
        "failures": {str(row["seed"]): row["failure"] for row in last if "failure" in row},
        "steps_per_second": standard.median(row["time/steps_per_second"] for row in rows),
        "compile_seconds": compile_seconds,
        "wall_seconds": rows[-1]["wall_seconds"],
    }  # fmt: skip
