"""Budget allocation: advertise on `choose` of the websites, for the expected number of users who click at least once,

    g(z, y) = Σ_j (1 − Π_i (1 − z_i y_ij)),      y_ij the rate at which user j clicks on website i   (Wilder et al. 2019)

Hard decisions enumerate all subsets while there are at most 10 000, and are greedy beyond, which reaches at least 1 − 1/e of
the best. Three relaxations of them are in `budget_relaxations`; the default is smooth and has a useful gradient everywhere.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np

from decision_tasks.base import Data, Split, Task, check_choice, split, standardize
from decision_tasks.budget_relaxations import projected_gradient, soft_greedy
from mbrl_taskmet.core.settings import ConfigError

MOST_SUBSETS = 10_000
_MATRIX = (400, 200)  # websites and users of the generated click rates


@dataclass(frozen=True, eq=False)
class Budget(Task):
    """An instance draws `items` websites and `users` users from a matrix of click rates, each at most once.

    items, users, choose: websites, users and the number of websites to choose.
    train, validation, test: instances.
    relaxation: "smooth", or "published".
    temperature: of the smooth relaxation, in users.
    output: what follows the predictor's last layer: "softplus", or "relu", the published one, under which an output that is
        negative for every row never learns.
    rates: (websites, users) in [0, 1], or None for generated ones.
    """

    name: ClassVar[str] = "budget"
    hidden: ClassVar[tuple[int, ...]] = (500,)
    learning_rate: ClassVar[float] = 1e-4
    outer_batch: ClassVar[int] = 80
    lodl_learning_rate: ClassVar[float] = 0.1

    items: int = 5
    users: int = 10
    choose: int = 2
    train: int = 80
    validation: int = 20
    test: int = 500
    relaxation: Literal["smooth", "published"] = "smooth"
    temperature: float = 0.02
    output: Literal["softplus", "relu"] = "softplus"
    rates: np.ndarray | None = None

    def __post_init__(self) -> None:
        check_choice(self.choose, self.items)
        if self.rates is not None:
            check_rates(self.rates, self.items, self.users)

    def data(self, key: jax.Array) -> Split:
        """Features are the standardised rates through a random linear map, the same for all instances of a data set."""
        matrix_key, draw_key, map_key = jax.random.split(key, 3)
        rates = generate_rates(matrix_key, *_MATRIX) if self.rates is None else jnp.asarray(self.rates, float)

        def draw(key: jax.Array) -> jax.Array:
            website_key, user_key = jax.random.split(key)
            websites = jax.random.choice(website_key, rates.shape[0], (self.items,), replace=False)
            return rates[websites][:, jax.random.choice(user_key, rates.shape[1], (self.users,), replace=False)]

        y = jax.lax.map(draw, jax.random.split(draw_key, self.train + self.validation + self.test))
        mixing = jax.random.normal(map_key, (self.users, self.users)) / self.users**0.5
        return split(Data(standardize(y[: self.train], y, (0, 1)) @ mixing, y), self.train, self.validation)

    def activation(self, output: jax.Array) -> jax.Array:
        return {"softplus": jax.nn.softplus, "relu": jax.nn.relu}[self.output](output)

    def value(self, z: jax.Array, y: jax.Array, given: Any = ()) -> jax.Array:
        return expected_clicks(z, y)

    def decide(self, y: jax.Array, given: Any = ()) -> jax.Array:
        if self._subsets is None:
            return greedy(y, self.choose)
        return jnp.asarray(self._subsets, y.dtype)[jnp.argmax(subset_values(self._subsets, y))]

    def relax(self, y: jax.Array, given: Any = ()) -> jax.Array:
        """The subsets' mean under softmax(values/temperature); where those are many, a softmax at each of greedy's choices."""
        if self.relaxation == "published":
            return projected_gradient(y, self.choose)
        if self._subsets is None:
            return soft_greedy(y, self.choose, self.temperature)
        return jax.nn.softmax(subset_values(self._subsets, y) / self.temperature) @ jnp.asarray(self._subsets, y.dtype)

    @property
    def _subsets(self) -> np.ndarray | None:
        """Every choice, or None where they are too many to enumerate."""
        return subsets(self.items, self.choose) if math.comb(self.items, self.choose) <= MOST_SUBSETS else None


def expected_clicks(z: jax.Array, y: jax.Array) -> jax.Array:
    """g(z, y) of z (items,), possibly fractional, and rates (items, users); scalar, in users."""
    return jnp.sum(1 - jnp.prod(1 - z[:, None] * y, axis=0))


@cache
def subsets(items: int, choose: int) -> np.ndarray:
    """Every choice as a row of 0 and 1, (C(items, choose), items)."""
    rows = np.array(list(itertools.combinations(range(items), choose)))
    table = np.zeros((len(rows), items))
    np.put_along_axis(table, rows, 1.0, axis=1)
    return table


def subset_values(chosen: np.ndarray, y: jax.Array) -> jax.Array:
    """g of every row of `chosen`."""
    return jax.vmap(lambda z: expected_clicks(z, y))(jnp.asarray(chosen, y.dtype))


def greedy(y: jax.Array, choose: int) -> jax.Array:
    """Add the website that gains most, `choose` times."""

    def add(_: int, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        z, silent = carry  # silent: the probability (users,) that nobody clicked yet
        best = jnp.argmax(jnp.where(z > 0, -1.0, y @ silent))
        return z.at[best].set(1.0), silent * (1 - y[best])

    z, _ = jax.lax.fori_loop(0, choose, add, (jnp.zeros_like(y[:, 0]), jnp.ones_like(y[0])))
    return z


def generate_rates(key: jax.Array, websites: int, users: int) -> jax.Array:
    """Click rates σ(−4 + w_i + u_j + e_ij) with w, u, e ~ N(0, 0.6²) of a website, a user and both.

    Their median is 1.8 %, nine of ten are between 0.3 % and 9 %. `key` is consumed.
    """
    keys = jax.random.split(key, 3)
    effects = jax.random.normal(keys[0], (websites, 1)) + jax.random.normal(keys[1], (1, users))
    return jax.nn.sigmoid(-4 + 0.6 * (effects + jax.random.normal(keys[2], (websites, users))))


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
