"""Click rates: generated, or a file of the user's."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np

from decision_tasks.inputs import MOST_BYTES, csv_rows, decoded, fingerprint, read_bytes, shown
from mbrl_taskmet.core.settings import ConfigError

_WANTED = "a CSV file of numbers without a header, or an NPZ file with one array, websites × users"


def generate_rates(key: jax.Array, websites: int, users: int) -> jax.Array:
    """Click rates σ(−4 + w_i + u_j + e_ij) with w, u, e ~ N(0, 0.6²) of a website, a user and both.

    Their median is 1.8 %, nine of ten are between 0.3 % and 9 %. `key` is consumed.
    """
    keys = jax.random.split(key, 3)
    effects = jax.random.normal(keys[0], (websites, 1)) + jax.random.normal(keys[1], (1, users))
    return jax.nn.sigmoid(-4 + 0.6 * (effects + jax.random.normal(keys[2], (websites, users))))


def read_rates(path: str) -> tuple[np.ndarray, str]:
    """Click rates (websites, users) from a CSV file of numbers alone, or from the one array in an NPZ file.

    Returns:
        (the rates, a fingerprint of the file).

    Raises:
        ConfigError: the file cannot be read, or holds something else, or rates on which every decision is worth the same.
    """
    what = f"--rates {path}"
    data = read_bytes(path, what, _WANTED)
    if Path(path).suffix.lower() == ".npz":
        rates, lines = _from_npz(data, what), None
    else:
        rates, lines = _from_csv(decoded(data, what, _WANTED), what)
    check_rates(rates, 1, 1, lines)
    return rates, fingerprint(data, rates.shape)


def check_rates(rates: np.ndarray, items: int, users: int, lines: Sequence[int] | None = None) -> None:
    """Raise ConfigError unless rates is a matrix of numbers in [0, 1], large enough to draw instances from.

    Args:
        rates: (websites, users).
        items: websites of an instance.
        users: of an instance.
        lines: the line of a file that each row is in; by default they are counted from 1.
    """
    if rates.dtype.kind not in "biuf":
        raise ConfigError(f"the click rates are {rates.dtype}; give numbers")
    if rates.ndim != 2 or rates.shape[0] < items or rates.shape[1] < users:
        raise ConfigError(f"the click rates have the shape {rates.shape}; give at least {items} rows (websites, --items) and "
                          f"{users} columns (users, --users)")  # fmt: skip
    bad = np.argwhere(~((rates >= 0) & (rates <= 1)))
    if len(bad):
        row, column = bad[0]
        raise ConfigError(f"the click rate in row {lines[row] if lines else row + 1}, column {column + 1} is "
                          f"{rates[row, column]}; give rates from 0 to 1")  # fmt: skip
    silence = _silence(rates)
    for silent, word in ((1, 0), (0, 1)):
        if (silence == silent).all():
            raise ConfigError(f"every click rate is {word}, as far as float32 tells, and every decision would be worth the "
                              "same; give rates that differ")  # fmt: skip
    if len(rates) > 1 and (silence == silence[0]).all():
        raise ConfigError("the click rates are the same for every website, as far as float32 tells, and every decision would "
                          "be worth the same; give rates that differ")  # fmt: skip


def _silence(rates: np.ndarray) -> np.ndarray:
    """1 − rates, which is what decides, in float32."""
    return 1 - rates.astype(np.float32)


def _from_csv(text: str, what: str) -> tuple[np.ndarray, list[int]]:
    """The numbers and the line of each row; lines that begin with # are left out."""
    rows, lines = list[np.ndarray](), list[int]()
    for line, row in csv_rows(text, what):
        if row[0].lstrip().startswith("#"):
            continue
        for column, cell in enumerate(row, 1):
            try:
                float(cell)
            except ValueError:
                raise ConfigError(f"{what} cannot be read ({shown(cell)} in row {line}, column {column}, is no number); "
                                  f"give {_WANTED}") from None  # fmt: skip
        if rows and len(row) != len(rows[0]):
            raise ConfigError(f"{what} has {len(row)} cells in row {line} and {len(rows[0])} before it; correct that row")
        rows.append(np.array(row, dtype=float))
        lines.append(line)
    return np.array(rows).reshape(len(rows), -1) if rows else np.zeros((0, 0)), lines


def _from_npz(data: bytes, what: str) -> np.ndarray:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            size = sum(member.file_size for member in archive.infolist())
        if size > MOST_BYTES:
            raise ConfigError(f"{what} holds {size} bytes; give {_WANTED} of up to {MOST_BYTES}")
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            if len(arrays.files) != 1:
                raise ConfigError(f"{what} holds {len(arrays.files)} arrays; give a file with one, websites × users")
            rates = arrays[arrays.files[0]]
            if rates.dtype.kind not in "biuf":
                raise TypeError(f"its array is of {rates.dtype}")
            return np.asarray(rates, dtype=np.float64)
    except ConfigError:
        raise
    except Exception as error:  # numpy raises whatever the file's contents bring about
        reason = " ".join(str(error).split())[:150]
        raise ConfigError(f"{what} cannot be read ({reason}); give {_WANTED}") from None
