"""What a run leaves behind: `metrics.jsonl`, the record, and TensorBoard event files, a view of it.

A row of `metrics.jsonl` is one evaluation of one seed. Its keys are the TensorBoard tags; a list becomes a histogram. Because
the event files are made from the rows alone, resuming rewrites them without a gap or a double line.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

Row = dict[str, Any]


class Recorder:
    """Writes rows to `directory`, from the start or after those that are there.

    Args:
        resume_at: keep the rows up to this environment step and drop later ones, which a kill may have left.
    """

    def __init__(self, directory: Path, resume_at: int | None = None):
        from tensorboardX import SummaryWriter

        self._path = directory / "metrics.jsonl"
        kept = [row for row in read_rows(directory) if row["step"] <= resume_at] if resume_at is not None else []
        self.rows: list[Row] = kept
        write_text(self._path, "".join(map(_line, kept)))
        shutil.rmtree(directory / "tensorboard", ignore_errors=True)
        self._make_writer = lambda seed: SummaryWriter(str(directory / "tensorboard" / f"seed_{seed}"), flush_secs=10)
        self._writers: dict[int, Any] = {}
        self._show(kept)

    def write(self, rows: list[Row]) -> None:
        """Append rows, to disk before returning."""
        with self._path.open("a", encoding="utf-8") as file:
            file.writelines(map(_line, rows))
            file.flush()
            os.fsync(file.fileno())
        self.rows += rows
        self._show(rows)

    def close(self) -> None:
        """Finish the event files."""
        for writer in self._writers.values():
            writer.close()

    def _show(self, rows: Iterable[Row]) -> None:
        for row in rows:
            writer = self._writers.setdefault(row["seed"], None) or self._make_writer(row["seed"])
            self._writers[row["seed"]] = writer
            for tag, value in row.items():
                if "/" not in tag or value is None:
                    continue
                if isinstance(value, list):
                    finite = np.array([x for x in value if x is not None])
                    writer.add_histogram(tag, finite, row["step"], walltime=row["wall_time"])
                else:
                    writer.add_scalar(tag, value, row["step"], walltime=row["wall_time"])


def read_rows(directory: Path) -> list[Row]:
    """The rows of a run; a last line that a kill cut short is left out."""
    path = directory / "metrics.jsonl"
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


def write_json(path: Path, value: Any) -> None:
    """Write `value` whole or not at all; numbers that are not finite become null."""
    write_text(path, json.dumps(finite(value), indent=2, ensure_ascii=False) + "\n")


def _line(row: Row) -> str:
    return json.dumps(row, ensure_ascii=False) + "\n"


def write_text(path: Path, text: str) -> None:
    """Write `text` whole or not at all."""
    aside = path.with_suffix(path.suffix + ".part")
    aside.write_text(text, encoding="utf-8")
    aside.replace(path)


def write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write an NPZ file whole or not at all."""
    aside = path.with_suffix(".part.npz")
    np.savez_compressed(aside, **arrays)  # type: ignore[arg-type]
    aside.replace(path)


def finite(value: Any) -> Any:
    """Plain JSON values, with null for NaN and infinity."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [finite(item) for item in value]
    if isinstance(value, np.float32):
        value = float(f"{value:.9g}")  # as many digits as tell any two float32 apart
    if isinstance(value, (np.floating, float)):
        return float(value) if math.isfinite(value) else None
    return value.item() if isinstance(value, np.generic) else value
