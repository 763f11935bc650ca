"""Files of the user's data: read once, whole, and marked, so that a resumed run can tell whether they are still the same."""

from __future__ import annotations

import csv
import io
import stat
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mbrl_taskmet.core.settings import ConfigError
from mbrl_taskmet.core.settings import shown as shown_value

MOST_BYTES = 2**31
"""More is refused: it would be read whole."""


def read_bytes(path: str, what: str, wanted: str) -> bytes:
    """The contents of a file.

    Args:
        path: where it is.
        what: what names it, for the sentence of an error: its flag and its path.
        wanted: what the user should give, for the same.

    Raises:
        ConfigError: it cannot be read, is no regular file, whose end might never come, or is larger than `MOST_BYTES`.
    """
    try:
        found = Path(path).stat()
        if not stat.S_ISREG(found.st_mode):
            raise ConfigError(f"{what} is not a regular file; give {wanted}")
        if found.st_size > MOST_BYTES:
            raise ConfigError(f"{what} has {found.st_size} bytes; give {wanted} of up to {MOST_BYTES}")
        return Path(path).read_bytes()
    except ConfigError:
        raise
    except (OSError, ValueError) as error:  # ValueError: no file can have such a name
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"{what} cannot be read ({reason}); give {wanted}") from None


def decoded(data: bytes, what: str, wanted: str) -> str:
    """The text of a file in UTF-8, with or without a mark of that at its start."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigError(f"{what} cannot be read (it is no text in UTF-8); give {wanted}") from None


def csv_rows(text: str, what: str) -> Iterator[tuple[int, list[str]]]:
    """Every row of a CSV file that is not blank, with the number of the line that it begins in.

    Raises:
        ConfigError: a quote is not closed, or stands where none can.
    """
    reader = csv.reader(io.StringIO(text, newline=None), strict=True)
    while True:
        line = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise ConfigError(f"{what} cannot be read from row {line} on ({error}); correct its quotes") from None
        if any(cell.strip() for cell in row):
            yield line, row


def shown(text: str) -> str:
    """A cell as an error shows it: quoted, without what a terminal would act on, and not longer than a line."""
    return repr(text) if len(text) <= 40 else repr(text[:40]) + "…"


def as_numbers(values: Any, what: str, wanted: str) -> np.ndarray:
    """An array that is given in Python.

    Args:
        values: the array, or what numpy makes one of.
        what: what it is called, for the sentence of an error.
        wanted: what the user should give, for the same.

    Raises:
        ConfigError: it is none, or not of real numbers.
    """
    try:
        array = np.asarray(values)
    except Exception:  # numpy and JAX raise several
        array = np.array(None)
    if array.dtype.kind not in "biuf":
        raise ConfigError(f"{what} are {shown_value(values)}; give {wanted}")
    return array


def fingerprint(data: bytes, shape: tuple[int, ...]) -> str:
    """What tells the contents of a file from others: length, checksum and the shape of what was read from it."""
    return f"{len(data)} bytes, checksum {zlib.crc32(data):08x}, {' × '.join(map(str, shape))}"
