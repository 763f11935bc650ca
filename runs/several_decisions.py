"""One metric for several decisions: trained for either, for both, and scored on each of them.

`python -m runs.several_decisions --output runs/results/several-decisions`, some minutes on one core: nothing is left to resume.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from mbrl_taskmet.core.settings import ConfigError
from mbrl_taskmet.runner.command import Parser, command, start_jax
from mbrl_taskmet.runner.records import write_text
from mbrl_taskmet.runner.versions import environment
from runs.tables import markdown

ALSO = {"cubic": 25, "budget": 4}
"""How many items are chosen beside the best one."""
ROWS: tuple[tuple[str, tuple[float, float] | None], ...] = (
    ("mse", None),
    ("taskmet", (1.0, 0.0)),
    ("taskmet", (0.0, 1.0)),
    ("taskmet", (1.0, 1.0)),
    ("taskmet", (10.0, 1.0)),
)
"""The method and the weights of the two decisions."""


@command
def main(argv: list[str] | None = None) -> int:
    """Train every row; write table and records."""
    parser = Parser(prog="python -m runs.several_decisions", description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("runs/logs/several-decisions"), metavar="DIR")
    parser.add_argument("--datasets", type=int, default=10, metavar="N", help="data sets, a run on each (default: 10)")
    options = parser.parse_args(argv)
    if options.datasets < 1:
        raise ConfigError(f"--datasets is {options.datasets}; give 1 or more")
    start_jax(options.datasets)
    records = [_train(task, method, weights, options.datasets) for task in ALSO for method, weights in ROWS]
    options.output.mkdir(parents=True, exist_ok=True)
    text = table(records)
    write_text(options.output / "table.md", text + "\n")
    write_text(options.output / "runs.json", json.dumps({**environment(), "rows": records}, indent=1) + "\n")
    print(text)
    return 0


def table(records: list[dict[str, Any]]) -> str:
    """The decision quality of both decisions and the error of every row, means over the data sets ± standard error."""
    lines = []
    for record in records:
        weights = record["weights"]
        trained = "squared error" if weights is None else f"{weights[0]:g} · best one + {weights[1]:g} · several"
        first, second = (_mean(values) for values in record["normalized_dq"].values())
        figures = {"best one": first, "several": second, "test MSE": _mean(record["test_mse"])}
        lines.append({"task": record["task"], "trained for": trained, **figures})
    count = len(records[0]["test_mse"])
    several = ", ".join(f"{number} on {task}" for task, number in ALSO.items())
    return f"{markdown(lines)}\nSeveral: {several}. ±: standard error over {count} data sets."


def _train(task: str, method: str, weights: tuple[float, float] | None, datasets: int) -> dict[str, Any]:
    from decision_tasks import Budget, Cubic, train

    also: dict[str, Any] = {"choose": 1, "also_choose": (ALSO[task],), "decision_weights": weights or ()}
    made = Cubic(**also) if task == "cubic" else Budget(**also, output="relu")
    result = train(made, method, datasets=datasets, seeds=1, seed=2)
    quality = {name: np.round(score.normalized_dq[:, 0], 6).tolist() for name, score in result.apart.items()}
    error = [float(f"{value:.6g}") for value in result.test_mse[:, 0]]
    return {"task": task, "method": method, "weights": weights, "normalized_dq": quality, "test_mse": error}


def _mean(values: list[float]) -> str:
    mean = f"{np.mean(values):.3g}"
    return mean if len(values) == 1 else f"{mean} ± {np.std(values, ddof=1) / len(values) ** 0.5:.2g}"


if __name__ == "__main__":
    sys.exit(main())
