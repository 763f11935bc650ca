"""Daily prices: the S&P 500 stocks that come with this package, a file of the user's, or a factor model."""

from __future__ import annotations

import gzip
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from decision_tasks.inputs import csv_rows, decoded, fingerprint, read_bytes, shown
from mbrl_taskmet.core.settings import ConfigError

SP500 = Path(__file__).parent / "data" / "sp500_prices.csv.gz"
"""20 stocks of the S&P 500, 1990–2022, as skfolio 1.12.2 ships them (`sp500_dataset.csv.gz`; BSD-3-Clause, LICENSE-skfolio)."""
MOST_MISSING = 0.05
"""Days that lack some ticker's price are left out up to this share of all days; more is an error."""
_LIMITS, _MOST_RATIO = (1e-30, 1e30), 1e12
"""Prices between these, no ticker's highest over its lowest more than that: squares of returns then stay in float32."""
_WANTED = "a CSV file of dates and prices"
_NO_TICKERS = {"close", "adj close", "adj_close", "adjclose", "adjusted close", "close/last", "volume", "vwap"}
_QUOTES = _NO_TICKERS | {"open", "high", "low"}  # Open and Low are tickers, too
_Rows = Sequence[tuple[int, list[str]]]
_Table = dict[date, np.ndarray]  # each day's prices by ticker, NaN where there is none


@dataclass(frozen=True, eq=False)
class Prices:
    """Prices of every ticker on every day.

    Attributes:
        values: (days, tickers), all finite and positive.
        dropped: days left out because some ticker had no price.
        fingerprint: of the file.
    """

    values: np.ndarray
    tickers: tuple[str, ...]
    dates: tuple[str, ...]
    dropped: int = 0
    fingerprint: str = ""


@cache
def sp500_prices() -> Prices:
    """The prices that come with this package: 8313 days of 20 stocks."""
    return parse_prices(gzip.decompress(SP500.read_bytes()).decode(), SP500.name)


def read_prices(path: str) -> Prices:
    """Prices from a CSV file, wide (date, then a column per ticker) or long (date, ticker, price).

    Raises:
        ConfigError: the file cannot be used; the sentence says where and why. Rows are counted by the file's lines.
    """
    what = f"--prices {path}"
    data = read_bytes(path, what, _WANTED)
    prices = parse_prices(decoded(data, what, _WANTED), path)
    return replace(prices, fingerprint=fingerprint(data, prices.values.shape))


def parse_prices(text: str, name: str) -> Prices:
    """`read_prices` on the contents of the file `name`."""
    rows = list(csv_rows(text, name))
    if len(rows) < 3:
        raise ConfigError(f"{name} holds {max(len(rows) - 1, 0)} days; give a header and a row for each of many days")
    header = [cell.strip() for cell in rows[0][1]]
    for line, row in rows[1:]:
        if len(row) != len(header):
            raise ConfigError(f"{name} has {len(row)} cells in row {line} and {len(header)} in its header; correct that row")
    long = _is_long(header, name)
    table, tickers = (_long if long else _wide)(rows[1:], header, name)
    if len(tickers) < 2:
        raise ConfigError(f"{name} has one ticker, {tickers[0] if tickers else 'or none'}; give two or more to choose from")
    days = sorted(table)
    values = np.array([table[day] for day in days])
    complete = _complete(values, tuple(tickers), tuple(map(str, days)), name)
    check_prices(complete.values, name, complete.tickers)
    return complete


def check_prices(values: np.ndarray, name: str = "the prices", tickers: Sequence[str] | None = None) -> None:
    """Raise ConfigError unless values are (days, stocks), positive, and of a size that returns can be computed of."""
    if values.ndim != 2 or values.dtype.kind not in "iuf":
        raise ConfigError(f"{name}: {values.dtype} of the shape {values.shape}; give numbers, days × stocks")
    values = values.astype(np.float64)
    low, high = np.min(values, axis=0, initial=np.inf), np.max(values, axis=0, initial=0)
    bad = np.flatnonzero(~((low >= _LIMITS[0]) & (high <= _LIMITS[1]) & (high <= _MOST_RATIO * low)))  # NaN is bad
    if len(bad):
        stock = tickers[bad[0]] if tickers else f"stock {bad[0] + 1}"
        raise ConfigError(
            f"{name} has prices of {stock} from {low[bad[0]]:g} to {high[bad[0]]:g}; give them between {_LIMITS[0]:g} and "
            f"{_LIMITS[1]:g}, the highest at most {_MOST_RATIO:g} times the lowest"
        )


def _is_long(header: list[str], name: str) -> bool:
    """Whether a row is one price of one ticker, by the header, which says what all columns are."""
    words = [cell.lower() for cell in header]
    unnamed = [number for number, cell in enumerate(header[1:], 2) if not (cell and cell.isprintable())]
    if unnamed:
        raise ConfigError(f"{name} has {shown(header[unnamed[0] - 1])} for the name of column {unnamed[0]}; name its ticker")
    named = {"ticker", "symbol"} & set(words[1:])
    if len(header) == 3 and words[1] in named and words[2] != "volume":
        return True
    if named:
        raise ConfigError(f"{name} has a column {named.pop()} among {', '.join(header[1:7])}; give three columns: date, ticker "
                          "and closing price")  # fmt: skip
    quotes = [cell for cell, word in zip(header[1:], words[1:], strict=True) if word in _QUOTES]
    if set(words[1:]) & _NO_TICKERS or (len(quotes) == len(header) - 1 and "high" in words):
        raise ConfigError(f"{name} has the columns {', '.join(dict.fromkeys(quotes))}, which are one stock's and no tickers; "
                          "give a date and then a column of closing prices for each of two or more stocks")  # fmt: skip
    return False


def _wide(rows: _Rows, header: list[str], name: str) -> tuple[_Table, list[str]]:
    tickers = header[1:]
    repeated = [ticker for ticker, count in Counter(tickers).items() if count > 1]
    if repeated:
        raise ConfigError(f"{name} has two columns {repeated[0]}; give each ticker one")
    table: _Table = {}
    for line, row in rows:
        day = _date(row[0], name, line)
        if day in table:
            raise ConfigError(f"{name} has the date {day} twice, again in row {line}; give each day one row")
        table[day] = np.array([_price(cell, ticker, name, line) for ticker, cell in zip(tickers, row[1:], strict=True)])
    return table, tickers


def _long(rows: _Rows, header: list[str], name: str) -> tuple[_Table, list[str]]:
    found: dict[date, dict[str, float]] = {}
    for line, (day_text, cell_ticker, cell) in rows:
        date_, ticker = _date(day_text, name, line), cell_ticker.strip()
        day = found.setdefault(date_, {})
        if not (ticker and ticker.isprintable()):
            raise ConfigError(f"{name} has {shown(cell_ticker)} for a ticker in row {line}; name it")
        if ticker in day:
            raise ConfigError(f"{name} has {ticker} on {date_} twice, again in row {line}; give one price a day")
        day[ticker] = _price(cell, ticker, name, line)
    tickers = sorted({ticker for day in found.values() for ticker in day})
    return {day: np.array([own.get(ticker, np.nan) for ticker in tickers]) for day, own in found.items()}, tickers


def _date(text: str, name: str, line: int) -> date:
    try:
        return datetime.fromisoformat(text.strip()).date()
    except ValueError:
        raise ConfigError(f"{name} has {shown(text)} for a date in row {line}; write it as 2024-01-31") from None


def _price(text: str, ticker: str, name: str, line: int) -> float:
    """A cell's price, NaN for an empty one and for `nan`."""
    try:
        price = float(text.replace("_", "?"))  # Python's own digit separator is none of CSV's
    except ValueError:
        if text.strip():
            raise ConfigError(f"{name} has {shown(text)} for {ticker} in row {line}; give a number") from None
        return np.nan
    if price <= 0 or price == np.inf:
        raise ConfigError(f"{name} has the price {text.strip()} for {ticker} in row {line}; give a number above 0")
    return price


def _complete(values: np.ndarray, tickers: tuple[str, ...], dates: tuple[str, ...], name: str) -> Prices:
    """The days on which every ticker has a price."""
    missing = np.isnan(values)
    whole = ~missing.any(axis=1)
    dropped = int((~whole).sum())
    if dropped > MOST_MISSING * len(dates):
        worst = int(missing.sum(axis=0).argmax())
        first = dates[int(missing[:, worst].argmax())]
        raise ConfigError(
            f"{name} lacks prices on {dropped} of {len(dates)} days, most of them of {tickers[worst]} (from {first} on); "
            f"leave that ticker out or fill its gaps: up to {MOST_MISSING:.0%} may be missing"
        )
    return Prices(values[whole], tickers, tuple(d for d, keep in zip(dates, whole, strict=True) if keep), dropped)


def factor_prices(key: jax.Array, days: int, stocks: int, factors: int = 3) -> jax.Array:
    """Prices (days, stocks) from 100 on, of which no return can be predicted from the past. `key` is consumed.

    Daily log returns are β·f + e, f ~ N(0.0003, 0.01²) of each factor, β ~ N(1/factors, 0.3²) and e ~ N(0, s²) with
    s ~ U(0.005, 0.02) of each stock.
    """
    keys = jax.random.split(key, 4)
    common = 0.0003 + 0.01 * jax.random.normal(keys[0], (days, factors))
    loading = 1 / factors + 0.3 * jax.random.normal(keys[1], (factors, stocks))
    spread = jax.random.uniform(keys[2], (stocks,), minval=0.005, maxval=0.02)
    return 100 * jnp.exp(jnp.cumsum(common @ loading + spread * jax.random.normal(keys[3], (days, stocks)), axis=0))
