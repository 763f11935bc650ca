"""What the experiments share: settings × blocks of seeds, each block one run directory.

A block that is there is not run again; one that was interrupted, or is to have more steps, is resumed; seeds that are missing
are added. Tables (`runs/report.py`) and pictures are made of the blocks that exist and, with `--output`, of the report there.

Settings on the command line hold for every line of the table: `python -m runs.capacity --seeds 2 --steps 2000 --x64`.
"""

from __future__ import annotations

import argparse
import fnmatch
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path

from mbrl_taskmet.core.run_axis import MOST_RUNS
from mbrl_taskmet.core.settings import ConfigError, flag
from mbrl_taskmet.rl.settings import Config, Settings, read_saved
from mbrl_taskmet.runner.agent import run
from mbrl_taskmet.runner.command import Parser, check_counts, command, cores, start_jax
from mbrl_taskmet.runner.plotting import drawing
from mbrl_taskmet.runner.records import read_rows
from mbrl_taskmet.runner.rundir import began, saved_settings
from runs.report import Results, Rows, merged, read_report, read_runs, report, reported_settings
from runs.setting import Setting

COLUMNS = ("eval/return", "train/model_mse_state")
"""What tables and pictures are made of."""
_PER_BLOCK = ("steps", "seed", "seeds")
"""Settings in which the blocks of a line may differ."""


@dataclass(frozen=True)
class Experiment:
    """Settings, the full size of the experiment, and what draws its results.

    Attributes:
        name: of its module.
        settings: the lines of its table.
        draw: (results, the directory to draw to, the blocks' directory).
        steps: environment steps of every seed.
        seeds: of every setting.
    """

    name: str
    settings: tuple[Setting, ...]
    draw: Callable[[Results, Path, Path], None]
    steps: int = 200_000
    seeds: int = 10


@command
def main(experiment: Experiment, argv: list[str] | None = None) -> int:
    """Run what is missing, then write the table and the pictures.

    The exit code is 0, 2 for bad input, and 128 + the signal's number for a block that was stopped: 130 after Ctrl-C.
    """
    given, rest = _parser(experiment).read(argv)
    options = argparse.Namespace(**rest)
    check_counts(options, "seeds", "steps", "block")
    if options.seeds > MOST_RUNS:
        raise ConfigError(f"--seeds is {options.seeds}; give {MOST_RUNS} or less")
    start_jax(min(options.seeds, options.block, cores()))
    chosen = _chosen(experiment, options.only)
    configs = {setting.name: setting.config | {**given, "steps": options.steps} for setting in chosen}
    earlier, runs = read_report(options.output) if options.output else ({}, {})
    if strange := earlier.keys() - {setting.name for setting in experiment.settings}:
        raise ConfigError(f"the report in {options.output} has a setting {min(strange)}, which runs.{experiment.name} has not; "
                          "restore it, or give another --output")  # fmt: skip
    for setting in chosen:
        configs[setting.name].resolve()  # what cannot work is refused before anything is run
        for name in fnmatch.filter(runs, f"{setting.name}/*"):
            saved = reported_settings(options.output, runs[name], setting)
            _check(options.output / name, saved, configs[setting.name], "--output")
        for directory, block in _blocks(options.logdir / setting.name):
            _check(directory, block, configs[setting.name], "--logdir")
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    for name, config in () if options.report else configs.items():
        from envs.make import environment_of  # here, because gymnax takes seconds, and a report needs none

        for directory, due in _due(config, options.logdir / name, seeds, options.steps, options.block):
            env = environment_of(due.resolve().environment)
            run(env, due, directory, go_on="give the same command again", say=partial(print, flush=True))
    found = {name: rows for name in configs if (rows := _rows(options.logdir / name, seeds, options.steps))}
    if not found and not earlier:
        raise ConfigError(f"{options.logdir} holds no evaluation; leave --report out to make some")
    output = options.output or options.logdir
    output.mkdir(parents=True, exist_ok=True)
    results = {s.name: merged(earlier.get(s.name, []), found.get(s.name, [])) for s in experiment.settings}
    results = {name: rows for name, rows in results.items() if rows}
    blocks = runs | read_runs(options.logdir, found)
    with drawing(output, "give the same command again, with --report"):  # first: a damaged file that it draws is refused
        experiment.draw(results, output, options.logdir)
    report(experiment.settings, results, blocks, output)
    print((output / "table.md").read_text(encoding="utf-8"))
    return 0


def _parser(experiment: Experiment) -> Parser:
    parser = Parser(
        prog=f"python -m runs.{experiment.name}",
        epilog="A setting that is given holds for every line of the table; the defaults shown are the agents'.",
    )
    parser.add_argument("--seeds", type=int, default=experiment.seeds, help="seeds of every setting (default: %(default)s)")
    parser.add_argument("--first-seed", type=int, default=0, help="number of the first one (default: 0)")
    parser.add_argument("--steps", type=int, default=experiment.steps, help="environment steps (default: %(default)s)")
    parser.add_argument("--block", type=int, default=10, help="most seeds of one run (default: %(default)s)")
    parser.add_argument("--only", action="append", metavar="PATTERN", help="only settings such as 'taskmet-*'; may be repeated")
    parser.add_argument("--report", action="store_true", help="run nothing, report what is there")
    parser.add_argument("--logdir", type=Path, default=Path("runs/logs") / experiment.name, metavar="DIR",
                        help="where the blocks are (default: %(default)s)")  # fmt: skip
    parser.add_argument("--output", type=Path, metavar="DIR",
                        help="where table and pictures go, added to those that are there (default: the logdir)")  # fmt: skip
    parser.add_settings(Settings, leave_out=("suite", "env", *_PER_BLOCK))
    return parser


def _chosen(experiment: Experiment, patterns: list[str] | None) -> list[Setting]:
    chosen = [s for s in experiment.settings if not patterns or any(fnmatch.fnmatch(s.name, p) for p in patterns)]
    if not chosen:
        names = ", ".join(setting.name for setting in experiment.settings)
        raise ConfigError(f"--only {' '.join(patterns or [])} is no setting; there are {names}")
    return chosen


def _due(config: Config, folder: Path, seeds: range, steps: int, block: int) -> Iterator[tuple[Path, Config]]:
    """The blocks that are unfinished, then those that are missing, with all that is given to them."""
    missing = set(seeds)
    for directory, saved in _blocks(folder):
        own = set(range(saved.seed, saved.seed + saved.seeds))
        ended = saved.steps > steps or (directory / "summary.json").exists()
        if own & missing and not (ended and _last_step(directory) >= steps):
            yield directory, config | {"seed": saved.seed, "seeds": saved.seeds, "steps": max(steps, saved.steps)}
        missing -= own
    for first, count in _stretches(missing, block):
        yield folder / f"seeds{first}-{first + count - 1}", config | {"seed": first, "seeds": count}


def _blocks(folder: Path) -> Iterator[tuple[Path, Settings]]:
    """The blocks of a setting that have begun, with their settings."""
    for path in sorted(folder.glob("*/config.json")):
        if began(path.parent):
            yield path.parent, saved_settings(path.parent, read_saved)


def _check(where: Path, saved: Settings, config: Config, mend: str) -> None:
    """Only seeds of equal settings are put together.

    Raises:
        ConfigError: the settings `saved` in `where` are others.
    """
    # The environment, which chooses a critic that is not given, is not made for this; it is compared before the critic.
    expected = (Config(critic=saved.names["critic"]) | config.given).resolve().names
    for name, value in saved.names.items():
        if name not in _PER_BLOCK and value != expected[name]:
            raise ConfigError(f"{where} was run with {flag(name)} {value}, not {expected[name]}; "
                              f"give another {mend}, or move it away")  # fmt: skip


def _stretches(seeds: Iterable[int], most: int) -> Iterator[tuple[int, int]]:
    """(first, count) of consecutive seeds, at most `most` at a time."""
    for _, stretch in groupby(enumerate(sorted(seeds)), lambda pair: pair[1] - pair[0]):
        own = [seed for _, seed in stretch]
        for start in range(0, len(own), most):
            yield own[start], len(own[start : start + most])


def _last_step(directory: Path) -> int:
    rows = read_rows(directory)
    return rows[-1]["step"] if rows else 0


def _rows(folder: Path, seeds: range, steps: int) -> Rows:
    """The rows of a setting, of each seed once."""
    found = {}
    for path in sorted(folder.glob("*/metrics.jsonl")):
        for row in read_rows(path.parent, COLUMNS):
            if row["seed"] in seeds and row["step"] <= steps:
                found[row["seed"], row["step"]] = row
    return [found[key] for key in sorted(found)]
