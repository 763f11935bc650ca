"""OMD's exact tabular study, its table and its picture beside the published ones; the mathematics is in `agents/tabular.py`.

`python -m runs.tabular --seeds 10 --steps 10000`, a minute on one core: nothing is left to resume.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np

from agents.tabular import BOUNDS, PUBLISHED, read, study, table
from mbrl_taskmet.runner.command import Parser, command
from mbrl_taskmet.runner.plotting import STYLES, band, save_both
from mbrl_taskmet.runner.versions import environment
from runs.names import STYLE


@command
def main(argv: list[str] | None = None) -> int:
    """Run the study; write table, picture and the returns of every seed."""
    parser = Parser(prog="python -m runs.tabular", description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("runs/logs/tabular"), metavar="DIR")
    options = read(argv, parser)
    begin = time.monotonic()
    returns = study(options.seeds, options.steps)
    seconds = time.monotonic() - begin
    options.output.mkdir(parents=True, exist_ok=True)
    text = table(returns)
    (options.output / "table.md").write_text(text + "\n", encoding="utf-8")
    _draw(returns, options.output)
    record = {
        "seeds": options.seeds, "steps": options.steps, "bounds": BOUNDS, "wall_seconds": round(seconds, 1),
        **environment(),
        "returns": {method: np.round(values, 6).tolist() for method, values in returns.items()},
    }  # fmt: skip
    (options.output / "runs.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(text)
    return 0


def _draw(returns: dict[str, np.ndarray], output: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.5, 4.5), layout="constrained")
    axis = figure.subplots()
    for (method, values), theirs in zip(returns.items(), STYLES[2:], strict=False):
        band(axis, np.array(BOUNDS), values, label=method, **STYLE[method])
        axis.plot(BOUNDS, PUBLISHED[method], label=f"{method}, published", **{**theirs, "fillstyle": "none"})
    axis.set(xlabel="bound B on the norm of the model", ylabel="return, exact")
    axis.grid(alpha=0.3)
    axis.legend(fontsize="small")
    save_both(figure, output / "figure.png")


if __name__ == "__main__":
    sys.exit(main())
