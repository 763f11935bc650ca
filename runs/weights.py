"""What metrics learned, kept beside a report: `weights.csv`, a line for every seed that has one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from runs.report import Results
from runs.tables import as_count, as_number, read_csv, undamaged, write_csv

Lines = dict[tuple[str, int], dict[str, Any]]
"""By setting and seed."""


def update_weights(path: Path, results: Results, settings: Iterable[str], real: int) -> None:
    """Write the metric at the end of every seed of these settings whose block is there; the other lines of the file stay.

    Args:
        path: of the file.
        results: the experiment's.
        settings: names of those that learn a metric beside noise.
        real: how many dimensions, the first ones, are no noise.
    """
    kept = _read(path) | dict(_lines(results, settings, real))
    if kept:
        write_csv(path, [kept[key] for key in sorted(kept)])


def _lines(results: Results, settings: Iterable[str], real: int) -> Iterator[tuple[tuple[str, int], dict[str, Any]]]:
    for name in settings:
        for row in {row["seed"]: row for row in results.get(name, [])}.values():  # the last of each
            weights = row.get("metric/diagonal") or [None]
            if None not in weights:
                least, largest = min(weights[:real]), max(weights[real:])
                figures = {"least real": f"{least:.4g}", "largest of noise": f"{largest:.4g}"}
                yield (name, row["seed"]), {"setting": name, "seed": row["seed"], **figures}


def _read(path: Path) -> Lines:
    if not path.exists():
        return {}
    with undamaged(path):
        lines = read_csv(path, key=("setting", "seed"))
        for line in lines:
            as_number(line["least real"]), as_number(line["largest of noise"])
        return {(line["setting"], as_count(line["seed"])): dict(line) for line in lines}
