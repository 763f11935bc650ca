"""Tables on file: CSV that is checked when it is read, and Markdown."""

from __future__ import annotations

import csv
import gzip
import io
import math
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from mbrl_taskmet.core.settings import MOST, ConfigError
from mbrl_taskmet.runner.records import read_regular, shortened, write_text
from mbrl_taskmet.runner.statistics import standard_error


@contextmanager
def undamaged(path: Path, remedy: str = "restore it, or give another --output") -> Iterator[Path]:
    """Context in which a file of a report is read: any error becomes a ConfigError that names the file and what to do."""
    try:
        yield path
    except ConfigError:
        raise
    except (
        OSError,
        EOFError,
        zlib.error,
        csv.Error,
        LookupError,
        AttributeError,
        TypeError,
        ValueError,
        RecursionError,
    ) as error:
        raise ConfigError(f"{path} is damaged ({shortened(error)}); {remedy}") from error


def as_number(text: str) -> float:
    """The finite number in a cell; ValueError for any other."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is no finite number")
    return value


def as_count(text: str) -> int:
    """The seed or step in a cell; ValueError for anything else."""
    value = int(text)
    if not 0 <= value <= MOST:
        raise ValueError(f"{text} is no seed and no step")
    return value


def read_csv(path: Path, key: tuple[str, ...] = ()) -> list[dict[str, str]]:
    """The lines of a CSV file, compressed if it ends in .gz.

    Args:
        path: where it is.
        key: columns that tell any two lines apart.

    Raises:
        ValueError: it is no file, a line has too few or too many cells, or two are the same in `key`.
        KeyError: it lacks one of these columns.
    """
    data = read_regular(path)
    text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode()
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    lines = list(reader)
    for line in lines:
        if None in line or None in line.values():
            raise ValueError(
                f"a line has {sum(value is not None for value in line.values())} cells of {len(reader.fieldnames or ())}"
            )
    twice = [told for told, times in Counter(tuple(line[name] for name in key) for line in lines).items() if key and times > 1]
    if twice:
        raise ValueError(f"it has two lines of {', '.join(key)} {', '.join(twice[0])}")
    return lines


def counted(values: np.ndarray) -> str:
    """Mean ± standard error (seeds), in whole numbers; nothing for no values."""
    return f"{values.mean():.0f} ± {standard_error(values):.0f} ({len(values)})" if len(values) else ""


def write_table(path: Path, lines: list[dict[str, Any]]) -> None:
    """Write at least one line as a CSV file, and as Markdown beside it."""
    write_csv(path, lines)
    write_text(path.with_suffix(".md"), markdown(lines))


def markdown(lines: list[dict[str, Any]]) -> str:
    """At least one line as a Markdown table."""
    rows = [list(lines[0]), *(line.values() for line in lines)]
    first, *text = ("| " + " | ".join(map(str, row)) + " |\n" for row in rows)
    return first + "|---" * len(lines[0]) + "|\n" + "".join(text)


def write_csv(path: Path, lines: list[dict[str, Any]]) -> None:
    """Write at least one line; the same lines give the same bytes."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(lines[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    data = text.getvalue().encode()
    aside = path.with_suffix(path.suffix + ".part")
    aside.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)
    aside.replace(path)
