"""Click rates: generated, or a file of the user's."""

from __future__ import annotations

from pathlib import Path

import jax
import numpy as np

from mbrl_taskmet.core.settings import ConfigError


def generate_rates(key: jax.Array, websites: int, users: int) -> jax.Array:
    """Click rates σ(−4 + w_i + u_j + e_ij) with w, u, e ~ N(0, 0.6²) of a website, a user and both.

    Their median is 1.8 %, nine of ten are between 0.3 % and 9 %. `key` is consumed.
    """
    keys = jax.random.split(key, 3)
    effects = jax.random.normal(keys[0], (websites, 1)) + jax.random.normal(keys[1], (1, users))
    return jax.nn.sigmoid(-4 + 0.6 * (effects + jax.random.normal(keys[2], (websites, users))))


def read_rates(path: str) -> np.ndarray:
    """Click rates (websites, users) from a CSV file of numbers alone, or from the one array in an NPZ file.

    Raises:
        ConfigError: the file cannot be read, or holds something else.
    """
    try:
        if Path(path).suffix == ".npz":
            with np.load(path, allow_pickle=False) as arrays:
                if len(arrays.files) != 1:
                    raise ConfigError(
                        f"--rates {path} holds {len(arrays.files)} arrays; give a file with one, websites × users"
                    )
                rates = np.asarray(arrays[arrays.files[0]], dtype=np.float64)
        else:
            rates = np.loadtxt(path, delimiter=",", ndmin=2, encoding="utf-8-sig")
    except ConfigError:
        raise
    except Exception as error:  # numpy raises whatever the file's contents bring about
        reason = " ".join((getattr(error, "strerror", None) or str(error)).split())[:150]
        raise ConfigError(f"--rates {path} cannot be read ({reason}); give a CSV file of numbers without a header, or an "
                          "NPZ file with one array, websites × users") from None  # fmt: skip
    check_rates(rates, 1, 1)
    return rates


def check_rates(rates: np.ndarray, items: int, users: int) -> None:
    """Raise ConfigError unless rates is a matrix of numbers in [0, 1], large enough to draw instances from."""
    if rates.ndim != 2 or rates.shape[0] < items or rates.shape[1] < users:
        raise ConfigError(f"the click rates have the shape {rates.shape}; give at least {items} rows (websites, --items) and "
                          f"{users} columns (users, --users)")  # fmt: skip
    bad = np.argwhere(~((rates >= 0) & (rates <= 1)))
    if len(bad):
        row, column = bad[0]
        raise ConfigError(f"the click rate in row {row + 1}, column {column + 1} is {rates[row, column]}; "
                          "give rates from 0 to 1")  # fmt: skip
