"""What a run leaves behind: `metrics.jsonl`, the record, and TensorBoard event files, a view of it.

A row of `metrics.jsonl` is one evaluation of one seed. Its keys are the TensorBoard tags; a list becomes a histogram. Because
the event files are made from the rows and `config.json` alone, resuming rewrites them without a gap or a double line. Rows that
are read are data: what is not as the program writes it is damage, and is named by file and line.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mbrl_taskmet.core.settings import ConfigError
from mbrl_taskmet.runner.events import Events

Row = dict[str, Any]
LISTS = ("metric/diagonal",)
"""What a row holds a list of, or null."""
TEXTS = ("failure", "collapse")
"""What a row says in a sentence, where it has happened."""
_FLUSH_SECONDS = 10


@dataclass(frozen=True)
class Layout:
    """What the rows of a job are.

    Attributes:
        seeds: the numbers of its runs.
        every: their steps are multiples of it.
        columns: what every row holds besides `step` and `seed`; null where it is not known.
        whole: whether every run has a row at every multiple, also one that has ended.
    """

    seeds: range
    every: int
    columns: tuple[str, ...]
    whole: bool

    def fault(self, row: Row) -> str | None:
        """What in a row of the right types the job cannot have written, or None."""
        if row["seed"] not in self.seeds:
            return f"seed {row['seed']} is none of the run's, {self.seeds[0]} to {self.seeds[-1]}"
        if not row["step"] or row["step"] % self.every:
            return f"step {row['step']} is no multiple of {self.every}"
        return None


class Recorder:
    """Writes rows to `directory`, after those of `kept`, which replace what is there."""

    def __init__(self, directory: Path, kept: Iterable[Row] = ()):
        self._path, config = directory / "metrics.jsonl", directory / "config.json"
        self._settings = read_json(config).get("settings") if config.is_file() else None
        self.rows: list[Row] = list(kept)
        write_text(self._path, "".join(map(_line, self.rows)))
        self._events, self._seeds, self._flushed = directory / "tensorboard", dict[int, Events](), 0.0
        if self._events.exists():
            shutil.rmtree(self._events)
        self._show(self.rows)

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
        for events in self._seeds.values():
            events.close()

    def _show(self, rows: Iterable[Row]) -> None:
        for row in rows:
            if row["seed"] not in self._seeds:
                self._seeds[row["seed"]] = Events(self._events / f"seed_{row['seed']}", self._settings)
            self._seeds[row["seed"]].add(row)
        if time.monotonic() - self._flushed > _FLUSH_SECONDS:
            for events in self._seeds.values():
                events.flush()
            self._flushed = time.monotonic()


def read_rows(directory: Path, columns: Iterable[str] = (), layout: Layout | None = None) -> list[Row]:
    """The rows of a run; a last line that a kill cut short is left out.

    Args:
        directory: of the run, or of a cell.
        columns: what every row has to hold besides `step` and `seed`.
        layout: what the job writes, where it is known.

    Raises:
        ConfigError: a line is not what the program writes.
    """
    path, rows = directory / "metrics.jsonl", list[Row]()
    if not path.exists():
        return rows
    if not path.is_file():
        raise ConfigError(f"{path} is no regular file; restore it")
    *lines, last = path.read_bytes().split(b"\n")
    for number, line in enumerate([*lines, last] if _is_whole(last) else lines, start=1):
        try:
            row = _parsed(line, [*columns, *(layout.columns if layout else ())])
            if layout and (fault := layout.fault(row)):
                raise ValueError(fault)
            if rows and _place(row) <= _place(rows[-1]) and layout:
                raise ValueError(f"step {row['step']} of seed {row['seed']} does not come after the line before")
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"{path} is damaged in line {number} ({shortened(error)}); restore it") from None
        rows.append(row)
    return rows


def rows_until(directory: Path, step: int, layout: Layout) -> list[Row]:
    """The rows of a run up to the step of its checkpoint; later ones, which a kill may have left, are left out.

    Raises:
        ConfigError: a line is not what the job writes, or one is missing.
    """
    kept = [row for row in read_rows(directory, layout=layout) if row["step"] <= step]
    if layout.whole:
        there = {_place(row) for row in kept}
        for at in ((t, seed) for t in range(layout.every, step + 1, layout.every) for seed in layout.seeds):
            if at not in there:
                raise ConfigError(
                    f"{directory / 'metrics.jsonl'} is damaged (it lacks step {at[0]} of seed {at[1]}); restore it"
                )
    return kept


def read_regular(path: Path) -> bytes:
    """The contents of a file; ValueError if it is no regular one, for a pipe would be waited for."""
    if not path.is_file():
        raise ValueError("it is no regular file")
    return path.read_bytes()


def read_json(path: Path) -> Any:
    """What a JSON file in UTF-8 holds; ValueError or RecursionError where it is none."""
    return json.loads(read_regular(path).decode("utf-8"))


def shortened(error: BaseException) -> str:
    """The message or type of an error, in one short line."""
    return " ".join(str(error).split())[:120] or type(error).__name__


def _is_whole(last: bytes) -> bool:
    """Whether the text after the last newline is a complete row."""
    try:
        return isinstance(json.loads(last), dict)
    except (ValueError, RecursionError):
        return False


def _parsed(line: bytes, columns: Iterable[str]) -> Row:
    """A line's row, or a ValueError that says what is wrong with it."""

    def unknown(constant: str) -> None:
        raise ValueError(f"{constant} is no number")

    row = json.loads(line.decode("utf-8"), parse_constant=unknown)
    if not isinstance(row, dict):
        raise ValueError("it is no row")
    for key in ("step", "seed", *columns):
        if key not in row:
            raise ValueError(f"{key} is missing")
    for key, value in row.items():
        numbers = value if isinstance(value, list) and key in LISTS else [value]
        if key in ("step", "seed"):
            right = type(value) is int and 0 <= value < 2**31
        else:
            right = isinstance(value, str) if key in TEXTS else all(map(_is_known_or_null, numbers)) and bool(numbers)
        if not right or (key.startswith("wall_") and value is None) or (key in LISTS and not isinstance(value, list | None)):
            raise ValueError(f"{key} is {str(value)[:40]!r}")
    return row


def _is_known_or_null(value: Any) -> bool:
    return value is None or (type(value) in (int, float) and abs(value) <= sys.float_info.max)


def _place(row: Row) -> tuple[int, int]:
    return row["step"], row["seed"]


def write_json(path: Path, value: Any) -> None:
    """Write `value` whole or not at all; numbers that are not finite become null."""
    write_text(path, json.dumps(finite(value), indent=2, ensure_ascii=False) + "\n")


def _line(row: Row) -> str:
    return json.dumps(row, ensure_ascii=False) + "\n"


def write_text(path: Path, text: str) -> None:
    """Write `text` whole or not at all, and never through a link that lies there."""
    aside = path.with_suffix(path.suffix + ".part")
    aside.unlink(missing_ok=True)
    with aside.open("x", encoding="utf-8") as file:
        file.write(text)
    aside.replace(path)


def write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write an NPZ file whole or not at all."""
    aside = path.with_suffix(".part.npz")
    aside.unlink(missing_ok=True)
    with aside.open("xb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
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
