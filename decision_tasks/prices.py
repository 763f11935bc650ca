"""Daily prices: the S&P 500 stocks that come with this package, a file of the user's, or a factor model."""

from __future__ import annotations

import csv
import gzip
import io
from dataclasses import dataclass
from datetime import date
from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from mbrl_taskmet.core.settings import ConfigError

SP500 = Path(__file__).parent / "data" / "sp500_prices.csv.gz"
"""20 stocks of the S&P 500, 1990–2022, as skfolio 1.12.2 ships them (`sp500_dataset.csv.gz`; BSD-3-Clause, LICENSE-skfolio)."""
MOST_MISSING = 0.05
"""Days that lack some ticker's price are left out up to this share of all days; more is an error."""


@dataclass(frozen=True, eq=False)
class Prices:
    """Prices of every ticker on every day.

    Attributes:
        values: (days, tickers), all finite and positive.
        dropped: days left out because some ticker had no price.
    """

    values: np.ndarray
    tickers: tuple[str, ...]
    dates: tuple[str, ...]
    dropped: int = 0


@cache
def sp500_prices() -> Prices:
    """The prices that come with this package: 8313 days of 20 stocks."""
    return parse_prices(gzip.decompress(SP500.read_bytes()).decode(), SP500.name)


def read_prices(path: str) -> Prices:
    """Prices from a CSV file, wide (date, then a column per ticker) or long (date, ticker, price).

    Raises:
        ConfigError: the file cannot be used; the sentence says where and why.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text in UTF-8"
        raise ConfigError(f"--prices {path} cannot be read ({reason}); give a CSV file of dates and prices") from None
    return parse_prices(text, path)


def parse_prices(text: str, name: str) -> Prices:
    """`read_prices` on the contents of the file `name`."""
    rows = [row for row in csv.reader(io.StringIO(text)) if any(cell.strip() for cell in row)]
    if len(rows) < 3:
        raise ConfigError(f"{name} holds {max(len(rows) - 1, 0)} days; give a header and a row for each of many days")
    header = [cell.strip() for cell in rows[0]]
    for number, row in enumerate(rows[1:], 2):
        if len(row) != len(header):
            raise ConfigError(f"{name} has {len(row)} cells in row {number} and {len(header)} in its header; mend that row")
    long = len(header) == 3 and header[1].lower() in ("ticker", "symbol")
    table, tickers = (_long if long else _wide)(rows[1:], header, name)
    if len(tickers) < 2:
        raise ConfigError(f"{name} has one ticker, {tickers[0] if tickers else 'or none'}; give two or more to choose from")
    days = sorted(table)
    values = np.array([[table[day].get(ticker, np.nan) for ticker in tickers] for day in days])
    return _complete(values, tuple(tickers), tuple(map(str, days)), name)


def _wide(rows: list[list[str]], header: list[str], name: str) -> tuple[dict[date, dict[str, float]], list[str]]:
    tickers = header[1:]
    repeated = [ticker for ticker in tickers if tickers.count(ticker) > 1]
    if repeated:
        raise ConfigError(f"{name} has two columns {repeated[0]}; give each ticker one")
    table: dict[date, dict[str, float]] = {}
    for number, row in enumerate(rows, 2):
        day = _date(row[0], name, number)
        if day in table:
            raise ConfigError(f"{name} has the date {day} twice, again in row {number}; give each day one row")
        table[day] = {t: _price(cell, t, name, number) for t, cell in zip(tickers, row[1:], strict=True) if cell.strip()}
    return table, tickers


def _long(rows: list[list[str]], header: list[str], name: str) -> tuple[dict[date, dict[str, float]], list[str]]:
    table: dict[date, dict[str, float]] = {}
    for number, (day_text, ticker, cell) in enumerate(rows, 2):
        day = table.setdefault(_date(day_text, name, number), {})
        if ticker in day:
            raise ConfigError(f"{name} has {ticker} on {day_text} twice, again in row {number}; give one price a day")
        if cell.strip():
            day[ticker.strip()] = _price(cell, ticker, name, number)
    return table, sorted({ticker for day in table.values() for ticker in day})


def _date(text: str, name: str, number: int) -> date:
    try:
        return date.fromisoformat(text.strip()[:10])
    except ValueError:
        raise ConfigError(f"{name} has {text!r} for a date in row {number}; write it as 2024-01-31") from None


def _price(text: str, ticker: str, name: str, number: int) -> float:
    try:
        price = float(text)
    except ValueError:
        price = np.nan
        if text.strip().lower() != "nan":
            raise ConfigError(f"{name} has {text!r} for {ticker} in row {number}; give a number") from None
    if price <= 0 or np.isinf(price):
        raise ConfigError(f"{name} has the price {text} for {ticker} in row {number}; give a number above 0")
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
