"""Sweeps: settings × seeds as the runs of one program, in which the numbers that are swept are traced.

A grid compiles once, for nothing that is swept changes a shape or a branch of Python.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any, NamedTuple

import numpy as np

from mbrl_taskmet.core.settings import ConfigError, flag, nearest, options
from mbrl_taskmet.rl.settings import Config, Settings
from mbrl_taskmet.rl.spaces import ActionSpace

Sweep = Mapping[str, Sequence[Any]]
"""Values of settings by name; every combination is run."""


class Grid(NamedTuple):
    """The K combinations of a sweep.

    Attributes:
        settings: of every combination.
        numbers: what is swept, by name, each (K,).
    """

    settings: tuple[Settings, ...]
    numbers: dict[str, np.ndarray]

    @property
    def folders(self) -> tuple[str, ...]:
        """Where every combination's results are in a run's directory, such as `metric_lr=0.001,l1=0.1`; "." without a sweep."""
        if not self.numbers:
            return (".",)
        values = zip(*(column.tolist() for column in self.numbers.values()), strict=True)
        return tuple(",".join(f"{n}={_short(v)}" for n, v in zip(self.numbers, row, strict=True)) for row in values)

    @property
    def axes(self) -> dict[str, list[Any]]:
        """The values of every setting that is swept, each once."""
        return {name: list(dict.fromkeys(values.tolist())) for name, values in self.numbers.items()}

    def runs(self, index: int) -> slice:
        """Where the seeds of a combination are among all runs."""
        seeds = self.settings[0].seeds
        return slice(index * seeds, (index + 1) * seeds)

    @property
    def total(self) -> int:
        """How many runs there are."""
        return len(self.settings) * self.settings[0].seeds

    def per_run(self) -> dict[str, np.ndarray]:
        """`numbers` of every run, (K·S,), the S seeds of one combination after the other."""
        return {name: np.repeat(values, self.settings[0].seeds) for name, values in self.numbers.items()}

    def seeds(self) -> np.ndarray:
        """The seed of every run, (K·S,)."""
        first = self.settings[0]
        return np.tile(np.arange(first.seed, first.seed + first.seeds, dtype=np.int32), len(self.settings))


def read_sweep(texts: Sequence[str]) -> dict[str, list[int | float]]:
    """The values by name in texts such as `metric-lr=1e-3,3e-3`.

    Raises:
        ConfigError: one is no such text, or names a setting that another does.
    """
    sweep: dict[str, list[int | float]] = {}
    for text in texts:
        name, equals, values = text.partition("=")
        name = name.strip().lstrip("-").replace("-", "_")
        try:
            numbers = [_number(value) for value in values.split(",")]
        except ValueError:
            numbers = []
        if not name or not equals or not numbers:
            raise ConfigError(f"--sweep {text} is no setting and numbers; give them as in --sweep metric-lr=0.001,0.003")
        if name in sweep:
            raise ConfigError(f"--sweep {name} is given twice; give all of its values in one")
        sweep[name] = numbers
    return sweep


def _number(text: str) -> int | float:
    try:
        return int(text)
    except ValueError:
        return float(text)


def _short(value: float) -> str:
    return f"{value:g}" if float(f"{value:g}") == value else repr(value)


def grid(config: Config, sweep: Sweep, action_space: ActionSpace | None = None) -> Grid:
    """The combinations of a sweep, each resolved and checked; of an empty one, the configuration alone.

    Raises:
        ConfigError: a value cannot work, is there twice, or belongs to a setting that is not a number to be traced.
    """
    known = {option.name: option for option in options(Settings)}
    for name, values in sweep.items():
        if name not in known:
            raise ConfigError(f"--sweep {name} is no setting; did you mean {flag(nearest(name, known))}?")
        if not known[name].traced:
            numbers = ", ".join(option.name for option in known.values() if option.traced)
            raise ConfigError(f"--sweep {name} would change what is compiled; start a run for each of its values. "
                              f"What can be swept: {numbers}")  # fmt: skip
        if isinstance(values, str) or not len(values) or len(set(values)) < len(values):
            raise ConfigError(f"--sweep {name} has the values {values!r}; give one or more, each once")
        if config.given.get(name) is not None:
            raise ConfigError(f"{flag(name)} {config.given[name]} is given and swept; leave one of the two out")
    combinations: list[dict[str, Any]] = [dict(zip(sweep, values, strict=True)) for values in product(*sweep.values())]
    settings = tuple((config | combination).resolve(action_space) for combination in combinations)
    return Grid(settings, {name: np.array([one.names[name] for one in settings]) for name in sweep})
