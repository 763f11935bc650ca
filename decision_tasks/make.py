"""From a configuration to tasks and methods: the one place where names become values."""

from __future__ import annotations

from pathlib import Path

import jax
import numpy as np

from decision_tasks.base import Task
from decision_tasks.budget import Budget, check_rates
from decision_tasks.config import WITH_ALPHA, Block, Config
from decision_tasks.cubic import Cubic
from decision_tasks.methods import METHODS, Method
from decision_tasks.portfolio import Portfolio
from decision_tasks.prices import factor_prices, read_prices
from mbrl_taskmet.core.settings import ConfigError

_FACTOR_DAYS, _FACTOR_STOCKS = 4000, 50


def make_task(name: str, config: Config) -> Task:
    """The task `name` as the configuration wants it.

    Raises:
        ConfigError: its data cannot be used, or its sizes do not fit.
    """
    given = {key: getattr(config, key) for key in ("train", "validation", "test", "items") if getattr(config, key) is not None}
    if name != "portfolio" and config.choose is not None:
        given["choose"] = config.choose
    if name == "cubic":
        return Cubic(**given)
    if name == "budget":
        given |= {key: getattr(config, key) for key in ("users", "relaxation", "output") if getattr(config, key) is not None}
        return Budget(**given, rates=None if config.rates is None else read_rates(config.rates))
    if config.risk is not None:
        given["risk"] = config.risk
    if config.prices == "factor":
        given["prices"] = np.asarray(factor_prices(jax.random.key(config.seed), _FACTOR_DAYS, _FACTOR_STOCKS))
    elif config.prices not in (None, "sp500"):
        prices = read_prices(str(config.prices))
        if prices.dropped:
            print(f"{config.prices}: {prices.dropped} of {prices.dropped + len(prices.dates)} days left out, for some ticker "
                  "has no price on them", flush=True)  # fmt: skip
        given["prices"] = prices.values
    return Portfolio(**given)


def make_method(block: Block, config: Config) -> Method:
    """The method of a block."""
    given: dict[str, float] = {"alpha": block.alpha} if block.method in WITH_ALPHA else {}
    if block.method == "lodl":
        asked = {"samples": config.lodl_samples, "std": config.lodl_std}
        given |= {name: value for name, value in asked.items() if value is not None}
    return METHODS[block.method](**given)  # type: ignore[arg-type]


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
