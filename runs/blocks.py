"""Settings × blocks of seeds on disk: each block is one run directory, and holds consecutive seeds of one setting.

A block that is there is not run again; one that was interrupted, or is to have more steps, is resumed; seeds that are missing
are added.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from mbrl_taskmet.core.settings import ConfigError, flag
from mbrl_taskmet.rl.settings import Config, Settings, read_saved
from mbrl_taskmet.runner.records import read_rows
from mbrl_taskmet.runner.rundir import began, saved_settings
from runs.report import Rows

COLUMNS = ("eval/return", "train/model_mse_state")
"""What tables and pictures are made of."""
PER_BLOCK = ("steps", "seed", "seeds")
"""Settings in which the blocks of a line may differ."""


class Block(NamedTuple):
    """Consecutive seeds of one setting.

    Attributes:
        directory: of the run.
        config: all that is given to it.
        due: whether it is missing or unfinished.
    """

    directory: Path
    config: Config
    due: bool


def planned(config: Config, folder: Path, seeds: range, steps: int, most: int) -> Iterator[Block]:
    """The blocks of a setting that have begun, finished or not, then those that are missing, of at most `most` seeds."""
    missing = set(seeds)
    for directory, saved in blocks_of(folder):
        own = set(range(saved.seed, saved.seed + saved.seeds))
        ended = saved.steps > steps or (directory / "summary.json").exists()
        if own & missing:
            given = config | {"seed": saved.seed, "seeds": saved.seeds, "steps": max(steps, saved.steps)}
            yield Block(directory, given, not (ended and _last_step(directory) >= steps))
        missing -= own
    for first, count in _stretches(missing, most):
        given = config | {"seed": first, "seeds": count, "steps": steps}
        yield Block(folder / f"seeds{first}-{first + count - 1}", given, True)


def blocks_of(folder: Path) -> Iterator[tuple[Path, Settings]]:
    """The blocks of a setting that have begun, with their settings."""
    for path in sorted(folder.glob("*/config.json")):
        if began(path.parent):
            yield path.parent, saved_settings(path.parent, read_saved)


def check_block(where: Path, saved: Settings, config: Config, remedy: str) -> None:
    """Only seeds of equal settings are put together.

    Raises:
        ConfigError: the settings `saved` in `where` are others.
    """
    # The environment, which chooses a critic that is not given, is not made for this; it is compared before the critic.
    expected = (Config(critic=saved.names["critic"]) | config.given).resolve().names
    for name, value in saved.names.items():
        if name not in PER_BLOCK and value != expected[name]:
            raise ConfigError(f"{where} was run with {flag(name)} {value}, not {expected[name]}; "
                              f"give another {remedy}, or move it away")  # fmt: skip


def _stretches(seeds: Iterable[int], most: int) -> Iterator[tuple[int, int]]:
    """(first, count) of consecutive seeds, at most `most` at a time."""
    for _, stretch in groupby(enumerate(sorted(seeds)), lambda pair: pair[1] - pair[0]):
        own = [seed for _, seed in stretch]
        for start in range(0, len(own), most):
            yield own[start], len(own[start : start + most])


def _last_step(directory: Path) -> int:
    rows = read_rows(directory)
    return rows[-1]["step"] if rows else 0


def rows_of(folder: Path, seeds: range, steps: int) -> Rows:
    """The rows of a setting, of each seed once."""
    found = {}
    for path in sorted(folder.glob("*/metrics.jsonl")):
        for row in read_rows(path.parent, COLUMNS):
            if row["seed"] in seeds and row["step"] <= steps:
                found[row["seed"], row["step"]] = row
    return [found[key] for key in sorted(found)]
