"""Portfolio: hold shares z of the stocks, Σz = 1 and z ≥ 0, for the next day's return less its risk (Markowitz 1952).

    g(z, y) = zᵀy − λ zᵀQz,      Q = correlation of the following nine daily returns + 0.1·I

The published experiments wrote the risk as ‖Lz‖² with Q = LLᵀ, which is zᵀLᵀLz: `risk="published"`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
from typing_extensions import override

from decision_tasks.base import Data, Split, Task, split, standardize
from decision_tasks.inputs import as_numbers
from decision_tasks.prices import Prices, check_prices, factor_prices, read_prices, sp500_prices
from decision_tasks.simplex_qp import simplex_qp
from mbrl_taskmet.core.settings import ConfigError, setting

RISK_DAYS = 9
SPANS = (5, 10, 20, 60)
LAGS = 10
_SP500 = "sp500"
_FACTOR_SHAPE = (4000, 50)  # days and stocks of the generated prices
FEATURES = (
    *(f"return {lag} days ago" for lag in range(LAGS)),
    *(f"return over {span} days" for span in SPANS),
    *(f"standard deviation of the returns of {span} days" for span in SPANS),
    *(f"price over its mean of {span} days, less 1" for span in SPANS),
    *(f"price over its {extreme} of {span} days, less 1" for extreme in ("highest", "lowest") for span in SPANS[2:]),
    *(f"mean return of all stocks over {span} days" for span in (1, 20)),
)
"""What is known of each stock after a day's close, from prices up to then; z-scored by the training days' mean and spread."""


@dataclass(frozen=True, eq=False)
class Portfolio(Task):
    """A data set is `train` + `validation` + `test` consecutive days from a random day on, of `items` random stocks.

    Attributes:
        risk: "right" zᵀQz, or "published" ‖Lz‖².
        risk_aversion: λ.
        prices: (days, stocks), all positive, for those who have them as an array; other places are a `source`.
    """

    name: ClassVar[str] = "portfolio"
    hidden: ClassVar[tuple[int, ...]] = (500,)
    learning_rate: ClassVar[float] = 1e-2
    outer_batch: ClassVar[int] = 100
    lodl_std: ClassVar[float | None] = 0.1
    lodl_learning_rate: ClassVar[float] = 0.001

    items: int | None = setting(None, "stocks to choose from, by default as many as there are, up to 50", low=1)
    train: int = setting(200, "training instances", low=1)
    validation: int = setting(200, "validation instances", low=1)
    test: int = setting(400, "test instances", low=1)
    risk: Literal["right", "published"] = setting("right", "right zᵀQz, or published ‖Lz‖² (portfolio)")
    risk_aversion: float = 0.1
    source: str = setting(
        _SP500, "sp500, factor for a generated factor model, or a CSV file of prices (portfolio)", flag="prices"
    )
    prices: np.ndarray | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.prices is not None and self.source != _SP500:
            raise ConfigError(f"the prices are given twice, as an array and as --prices {self.source}; leave one out")
        if self.prices is not None:
            object.__setattr__(self, "prices", as_numbers(self.prices, "the prices", "numbers, days × stocks"))
            check_prices(self.prices)
        days, stocks = self._shape
        if stocks < 2:
            raise ConfigError("the prices are of one ticker, and there is nothing to choose; give two or more")
        if self.items is not None and not 2 <= self.items <= stocks:
            raise ConfigError(f"--items is {self.items}; give a number from 2 to the {stocks} tickers there are")
        if days < self.days_needed:
            raise ConfigError(f"the prices are of {days} days and a data set needs {self.days_needed}; give more days, or "
                              "fewer by --train, --validation and --test")  # fmt: skip

    @property
    def days_needed(self) -> int:
        """Days of prices that one data set reads."""
        return SPANS[-1] + self.train + self.validation + self.test + RISK_DAYS

    @override
    def drawn(self, seed: int) -> Portfolio:
        if not self._generated:
            return self
        prices = np.asarray(factor_prices(jax.random.key(seed), *_FACTOR_SHAPE))
        return replace(self, prices=prices, source=_SP500)

    @override
    @property
    def notes(self) -> tuple[str, ...]:
        read = self._read
        if read is None or not read.dropped:
            return ()
        days = read.dropped + len(read.dates)
        return (f"{self.source}: {read.dropped} of {days} days left out, for some ticker has no price on them",)

    @override
    @property
    def inputs(self) -> dict[str, str]:
        return {} if self._read is None or not self._read.fingerprint else {"prices": self._read.fingerprint}

    @property
    def _generated(self) -> bool:
        """Whether the prices are those of the factor model, and not drawn yet."""
        return self.prices is None and self.source == "factor"

    @cached_property
    def _read(self) -> Prices | None:
        """The prices in a file, or None where they are in none."""
        if self.prices is not None or self.source == "factor":
            return None
        return sp500_prices() if self.source == _SP500 else read_prices(self.source)

    @property
    def _shape(self) -> tuple[int, ...]:
        return _FACTOR_SHAPE if self._generated else self._prices.shape

    @property
    def _prices(self) -> np.ndarray:
        if self._generated:
            raise ConfigError("the factor model's prices are not drawn yet; call `drawn` with a seed, and use what it returns")
        known = self.prices if self._read is None else self._read.values
        assert known is not None
        return known

    @override
    def data(self, key: jax.Array) -> Split:
        day_key, stock_key = jax.random.split(key)
        days, stocks = self._shape
        first = jax.random.randint(day_key, (), 0, days - self.days_needed + 1)
        chosen = jax.random.choice(stock_key, stocks, (self.items or min(stocks, 50),), replace=False)
        prices = jax.lax.dynamic_slice_in_dim(jnp.asarray(self._prices), first, self.days_needed)[:, jnp.sort(chosen)]
        return split(instances(prices.astype(float), self.train, self.risk), self.train, self.validation)

    @override
    def activation(self, output: jax.Array) -> jax.Array:
        return jnp.tanh(output)

    @override
    def value(self, z: jax.Array, y: jax.Array, given: Any = ()) -> jax.Array:
        return z @ y[:, 0] - self.risk_aversion * z @ given @ z

    @override
    def decide(self, y: jax.Array, given: Any = ()) -> jax.Array:
        return simplex_qp(y[:, 0], 2 * self.risk_aversion * given)

    @override
    def relax(self, y: jax.Array, given: Any = ()) -> jax.Array:
        return self.decide(y, given)


def instances(prices: jax.Array, train: int, risk: str) -> Data:
    """One instance per day that has 60 days before it and nine after: (days, stocks) → `Data` whose `given` is Q."""
    returns = prices[1:] / prices[:-1] - 1
    days = jnp.arange(SPANS[-1], prices.shape[0] - RISK_DAYS)
    x = jax.vmap(lambda day: _features(prices, returns, day))(days)
    following = jax.vmap(lambda day: jax.lax.dynamic_slice_in_dim(returns, day, RISK_DAYS))(days)
    # One after the other: jaxlib 0.10.2 deadlocks in batched Cholesky factors when several CPU devices make them at once.
    risks = jax.lax.map(lambda r: risk_matrix(r, risk), following)
    return Data(standardize(x[:train], x, (0, 1)), following[:, 0, :, None], risks)


def risk_matrix(returns: jax.Array, risk: str = "right") -> jax.Array:
    """Q (stocks, stocks) of returns (days, stocks). A stock that does not move correlates with no other."""
    centred = returns - jnp.mean(returns, axis=0)
    norm = jnp.linalg.norm(centred, axis=0)
    unit = jnp.where(norm > 1e-6, centred / jnp.where(norm > 1e-6, norm, 1.0), 0.0)
    correlation = unit.T @ unit
    identity = jnp.eye(returns.shape[1], dtype=returns.dtype)
    matrix = jnp.where(identity == 1, 1.0, correlation) + 0.1 * identity
    if risk == "published":
        factor = jnp.linalg.cholesky(matrix)
        return factor.T @ factor
    return matrix


def _features(prices: jax.Array, returns: jax.Array, day: jax.Array) -> jax.Array:
    """`FEATURES` of every stock after the close of `day`, (stocks, 28); returns[t] is the one from day t to t + 1."""

    def past(series: jax.Array, count: int, last: jax.Array) -> jax.Array:
        return jax.lax.dynamic_slice_in_dim(series, last - count + 1, count)

    now = prices[day]
    recent = {span: past(returns, span, day - 1) for span in SPANS}
    window = {span: past(prices, span, day) for span in SPANS}
    market = jnp.stack([jnp.mean(recent[5][-1]), jnp.mean(jnp.sum(recent[20], 0))])
    return jnp.stack([
        *jnp.flip(recent[LAGS], axis=0),
        *(now / prices[day - span] - 1 for span in SPANS),
        *(jnp.std(recent[span], axis=0) for span in SPANS),
        *(now / jnp.mean(window[span], axis=0) - 1 for span in SPANS),
        *(now / jnp.max(window[span], axis=0) - 1 for span in SPANS[2:]),
        *(now / jnp.min(window[span], axis=0) - 1 for span in SPANS[2:]),
        *jnp.broadcast_to(market[:, None], (2, len(now))),
    ], axis=-1)  # fmt: skip
