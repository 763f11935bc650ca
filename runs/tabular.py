"""OMD's exact tabular study, its table and its picture beside the published ones; the mathematics is in `agents/tabular.py`.

`python -m runs.tabular --output runs/results/tabular`, under a minute on one core: nothing is left to resume.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np

from agents.tabular import BOUNDS, FIGURE, ORIGINAL, read, study, table
from mbrl_taskmet.runner.command import Parser, command
from mbrl_taskmet.runner.plotting import band, save_both
from mbrl_taskmet.runner.versions import environment
from runs import provenance
from runs.names import STYLE


@command
def main(argv: list[str] | None = None) -> int:
    """Run the study; write table, picture and the returns of every seed."""
    parser = Parser(prog="python -m runs.tabular", description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("runs/logs/tabular"), metavar="DIR")
    options = read(argv, parser)
    begin = time.monotonic()
    returns = study(options.seeds, options.steps, options.norm)
    seconds = time.monotonic() - begin
    options.output.mkdir(parents=True, exist_ok=True)
    text = table(returns)
    (options.output / "table.md").write_text(text + "\n", encoding="utf-8")
    _draw(returns, options.output)
    record = {
        "seeds": options.seeds, "steps": options.steps, "norm": options.norm, "bounds": np.round(BOUNDS, 4).tolist(),
        "wall_seconds": round(seconds, 1),
        **environment(),
        "returns": {method: np.round(values, 6).tolist() for method, values in returns.items()},
    }  # fmt: skip
    (options.output / "runs.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    (options.output / provenance.NAME).write_text(
        provenance.of_run(provenance.command_of("tabular", record), record), encoding="utf-8"
    )
    print(text)
    return 0


def _draw(returns: dict[str, np.ndarray], output: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.5, 4.5), layout="constrained")
    axis = figure.subplots()
    for method, values in returns.items():
        style = {**STYLE[method], "marker": ""}
        band(axis, BOUNDS, values, label=f"{method}, here", **style)
        points = {"color": style["color"], "linestyle": "", "fillstyle": "none"}
        axis.plot(BOUNDS, ORIGINAL[method], marker="o", label=f"{method}, original code run again", **points)
        axis.plot(BOUNDS, FIGURE[method], marker="x", label=f"{method}, published figure", **points)
    axis.set(xlabel="bound B on the norm of the model", ylabel="return, exact")
    axis.grid(alpha=0.3)
    axis.legend(fontsize="small")
    save_both(figure, output / "figure.png")


if __name__ == "__main__":
    sys.exit(main())
