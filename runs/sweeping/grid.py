"""A grid file: YAML that says what is swept.

    settings: {env: CartPole-v1, steps: 2000, distractors: 8}   # for every combination
    grid: {method: [mle, taskmet], metric_lr: [1e-3, 3e-3]}     # every combination of these values
    seeds: 10                                                   # of each; the first is settings' seed, 0 by default

Settings have the names of the flags, with _ or -. A swept setting that has no place in a combination, as the learning rate of
a metric in `mle`, is left out of it, and combinations that are the same then are one.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from mbrl_taskmet.core.run_axis import MOST_RUNS
from mbrl_taskmet.core.settings import ConfigError, nearest, shown
from mbrl_taskmet.core.settings_tree import Misplaced, check_names
from mbrl_taskmet.rl.settings import Config, Settings
from mbrl_taskmet.runner.records import read_regular, shortened
from runs.setting import Setting

MOST = 10_000
"""Combinations of a grid."""
_PARTS = ("settings", "grid", "seeds")
_LONGEST = 150
"""Characters of a combination's name, before its hash."""
Resolve = Callable[[Config], Settings]
"""Complete, checked settings, where the environment counts as well."""


class Grid(NamedTuple):
    """What a file asks for.

    Attributes:
        combinations: by their names, which are those of their directories.
        seeds: of each.
    """

    combinations: tuple[Setting, ...]
    seeds: range


def read_grid(path: Path, resolve: Resolve) -> Grid:
    """The combinations in a grid file, each of them checked.

    Raises:
        ConfigError: it is damaged, or asks for what cannot work.
    """
    try:
        settings, swept, seeds = _parts(path)
        count = math.prod(map(len, swept.values()))
        if count > MOST:
            raise ConfigError(f"the grid has {count} combinations; give {MOST} or less")
        first = Config(seed=settings.pop("seed", None), seeds=seeds).resolve().seed
        return Grid(tuple(_combinations(settings, swept, resolve)), range(first, first + seeds))
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def _parts(path: Path) -> tuple[dict[str, Any], dict[str, list[Any]], int]:
    """(settings for all, values of each swept setting, seeds), their names those of settings."""
    parts = _mapping("the file", _read(path))
    for name in parts:
        if name not in _PARTS:
            raise ConfigError(f"{name!r} is no part of a grid; did you mean {nearest(name, _PARTS)!r}?")
    settings = _named("settings", parts.get("settings"))
    swept = _named("grid", parts.get("grid"))
    seeds = parts.get("seeds", 10)
    for name, values in swept.items():
        if name in settings:
            raise ConfigError(f"{name} is in both settings and grid; leave it out of one")
        if not isinstance(values, list) or not values:
            raise ConfigError(f"{name} in grid is {shown(values)}; give a list of values, such as [1, 2]")
    if "seeds" in settings or {"seed", "seeds"} & swept.keys():
        raise ConfigError("seeds are not in settings or grid; give seeds: N beside them, and the first one as seed in settings")
    if type(seeds) is not int or not 1 <= seeds <= MOST_RUNS:
        raise ConfigError(f"seeds is {shown(seeds)}; give a whole number from 1 to {MOST_RUNS}")
    for env in (settings.get("env"), *swept.get("env", ())):
        if isinstance(env, str) and ":" in env:
            raise ConfigError(f"{env} is code of a module, and a file does not decide what code runs; "
                              "give an environment that has a name")  # fmt: skip
    return settings, swept, seeds


class _Loader(yaml.SafeLoader):
    """Plain values alone; 1e-3 is a number, which YAML 1.1 takes for a text, and a key that stands twice is refused."""

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        keys = [key.value for key, _ in node.value]
        for key in keys:
            if isinstance(key, str) and keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"{key!r} stands there twice", node.start_mark)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+[eE][-+]?[0-9]+$"), list("-+0123456789"))


def _read(path: Path) -> Any:
    try:
        return yaml.load(read_regular(path).decode("utf-8"), _Loader)
    except OSError as error:
        raise ConfigError(f"it cannot be read ({error.strerror}); give a grid file to --grid") from None
    except yaml.MarkedYAMLError as error:
        line = f" in line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(f"it is no YAML{line} ({shortened(Exception(error.problem))}); fix it") from None
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"it is no YAML ({shortened(error)}); fix it, or give another file to --grid") from None


def _mapping(what: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
        raise ConfigError(f"{what} is {shown(value)}; give names with values, such as steps: 2000")
    return value


def _named(part: str, value: Any) -> dict[str, Any]:
    """Settings by their names, which the file may write as flags."""
    if value is None:
        return {}
    named: dict[str, Any] = {}
    for written, given in _mapping(part, value).items():
        name = written.removeprefix("--").replace("-", "_")
        check_names(Settings, {name: given})
        if name in named:
            raise ConfigError(f"{name} is given twice in {part}; leave one out")
        named[name] = given
    return named


def _combinations(settings: dict[str, Any], swept: dict[str, list[Any]], resolve: Resolve) -> Iterator[Setting]:
    """Each combination once, with the swept settings that have a place in it."""
    names: dict[str, str] = {}
    placed: set[str] = set()
    misplaced: dict[str, Misplaced] = {}
    for values in itertools.product(*swept.values()):
        chosen, complete = _placed(settings, dict(zip(swept, values, strict=True)), resolve, misplaced)
        placed |= chosen.keys()
        name, key = _name(chosen), repr(sorted(complete.names.items()))
        if key in names.values():
            continue
        if name in names:
            raise ConfigError(f"two combinations are called {name}; give values that differ in letters or digits")
        names[name] = key
        given = settings | chosen
        where = {key: given.pop(key) for key in ("env", "distractors") if given.get(key) is not None}
        yield Setting(name, where.get("env", "CartPole-v1"), where.get("distractors", 0), given)
    for name in swept:
        if name not in placed:
            raise misplaced[name]


def _placed(
    settings: Mapping[str, Any], swept: dict[str, Any], resolve: Resolve, misplaced: dict[str, Misplaced]
) -> tuple[dict[str, Any], Settings]:
    """The swept settings that have a place in a combination, and its complete settings; why others have none is noted."""
    while True:
        try:
            return swept, resolve(Config(**settings, **swept))
        except Misplaced as error:
            if error.name not in swept:
                raise ConfigError(f"{error}; or move it to grid, as a list, for the combinations where it does") from None
            misplaced[error.name] = error
            swept = {name: value for name, value in swept.items() if name != error.name}


def _name(chosen: Mapping[str, Any]) -> str:
    """The name of a combination and its directory."""
    name = "_".join(f"{name.replace('_', '-')}-{_text(value)}" for name, value in chosen.items()) or "all"
    if len(name) > _LONGEST:
        name = f"{name[:_LONGEST]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    return name


def _text(value: Any) -> str:
    if value is None:
        return "default"
    text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
    return re.sub(r"[^A-Za-z0-9.,+-]", "-", text)
