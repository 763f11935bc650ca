"""What the experiments share: settings × blocks of seeds, each block one run directory of the agents' command.

A block that is there is not run again; one that was interrupted, or is to have more steps, is resumed; seeds that are missing
are added. Tables (`runs/report.py`) and pictures are made of the blocks that exist and, with `--output`, of the report there.

Flags that an experiment does not know go to the agents' command: `python -m runs.capacity --seeds 2 --steps 2000 --x64`.
"""

from __future__ import annotations

import fnmatch
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

from agents.command import main as agent
from agents.options import parse
from mbrl_taskmet.runner.command import Parser, check_counts, command
from mbrl_taskmet.config import Config, ConfigError, flag
from runs.report import Results, Rows, merged, read_report, read_runs, report


@dataclass(frozen=True)
class Setting:
    """One line of the table.

    name: of its directory.
    given: fields of `Config` that are not left to the preset.
    rival: the setting it is compared with, in the probability that the rival is better.
    published: the published final return, as it is printed.
    """

    name: str
    environment: str = "CartPole-v1"
    distractors: int = 0
    given: Mapping[str, Any] = field(default_factory=dict)
    rival: str | None = None
    published: str = ""


@dataclass(frozen=True)
class Experiment:
    """Settings, the full size of the experiment, and what draws its results.

    draw: (results, the directory to draw to, the blocks' directory).
    """

    name: str
    settings: tuple[Setting, ...]
    draw: Callable[[Results, Path, Path], None]
    steps: int = 200_000
    seeds: int = 10


@command
def main(experiment: Experiment, argv: list[str] | None = None) -> int:
    """Run what is missing, then write the table and the pictures. 2 for bad input, 130 after Ctrl-C."""
    options, extra = _parser(experiment).parse_known_args(argv)
    check_counts(options, "seeds", "steps", "block")
    settings = _chosen(experiment, options.only)
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    extra += ["--steps", str(options.steps)]
    earlier, runs = read_report(options.output) if options.output else ({}, {})
    for setting in settings:
        for name in fnmatch.filter(runs, f"{setting.name}/*"):
            _check(options.output / name, runs[name]["config"], setting, extra, "--output")
        for path in sorted((options.logdir / setting.name).glob("*/config.json")):
            _check(path.parent, json.loads(path.read_text(encoding="utf-8"))["config"], setting, extra, "--logdir")
    for setting in () if options.report else settings:
        code = _run(setting, options.logdir / setting.name, seeds, options.steps, options.block, extra)
        if code:
            return code
    names = [setting.name for setting in settings]
    found = {name: rows for name in names if (rows := _rows(options.logdir / name, seeds, options.steps))}
    if not found and not earlier:
        raise ConfigError(f"{options.logdir} holds no evaluation; leave --report out to make some")
    output = options.output or options.logdir
    output.mkdir(parents=True, exist_ok=True)
    results = {s.name: merged(earlier.get(s.name, []), found.get(s.name, [])) for s in experiment.settings}
    results = {name: rows for name, rows in results.items() if rows}
    report(experiment.settings, results, runs | read_runs(options.logdir, found), output)
    experiment.draw(results, output, options.logdir)
    print((output / "table.md").read_text(encoding="utf-8"))
    return 0


def _parser(experiment: Experiment) -> Parser:
    parser = Parser(prog=f"python -m runs.{experiment.name}", epilog="Other flags go to the agents' command.")
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
    return parser


def _chosen(experiment: Experiment, patterns: list[str] | None) -> list[Setting]:
    chosen = [s for s in experiment.settings if not patterns or any(fnmatch.fnmatch(s.name, p) for p in patterns)]
    if not chosen:
        names = ", ".join(setting.name for setting in experiment.settings)
        raise ConfigError(f"--only {' '.join(patterns or [])} is no setting; there are {names}")
    return chosen


def _run(setting: Setting, folder: Path, seeds: range, steps: int, block: int, extra: list[str]) -> int:
    """Resume the blocks that are unfinished, then run those that are missing; the first exit code that is not 0."""
    missing = set(seeds)
    for directory, config in _blocks(folder):
        own = set(range(config.seed, config.seed + config.seeds))
        if not own & missing:
            continue
        missing -= own
        if _last_step(directory) < steps or (config.steps <= steps and not (directory / "summary.json").exists()):
            code = agent(setting.environment, ["--resume", str(directory), "--steps", str(max(steps, config.steps))])
            if code:
                return code
    for first, count in _stretches(missing, block):
        name = f"seeds{first}-{first + count - 1}"
        if (folder / name).exists() and _empty(folder / name):
            shutil.rmtree(folder / name)
        where = ["--seed", str(first), "--seeds", str(count), "--logdir", str(folder), "--name", name]
        code = agent(setting.environment, [*_setting_flags(setting, extra), *where])
        if code:
            return code
    return 0


def _blocks(folder: Path) -> Iterator[tuple[Path, Config]]:
    """The blocks of a setting that hold something, with their configurations."""
    for path in sorted(folder.glob("*/config.json")):
        if not _empty(path.parent):
            yield path.parent, Config.from_json(json.loads(path.read_text(encoding="utf-8"))["config"])


def _empty(directory: Path) -> bool:
    """Whether a run was killed before its first checkpoint, or has only begun."""
    return not any((directory / "checkpoints" / "state").glob("[0-9]*")) and not _last_step(directory)


def _check(where: Path, saved: dict[str, Any], setting: Setting, extra: list[str], mend: str) -> None:
    """Only seeds of equal settings are put together.

    Raises:
        ConfigError: the settings `saved` in `where` are others.
    """
    options = parse(setting.environment, _setting_flags(setting, extra))
    expected = Config(**options.given).resolve(noisy=setting.distractors > 0).to_json()
    for name, value in Config.from_json(saved).to_json().items():
        if name not in ("seed", "seeds", "steps") and value != expected[name]:
            raise ConfigError(f"{where} was run with {flag(name)} {value}, not {expected[name]}; "
                              f"give another {mend}, or move it away")  # fmt: skip


def _stretches(seeds: Iterable[int], most: int) -> Iterator[tuple[int, int]]:
    """(first, count) of consecutive seeds, at most `most` at a time."""
    for _, stretch in groupby(enumerate(sorted(seeds)), lambda pair: pair[1] - pair[0]):
        own = [seed for _, seed in stretch]
        for start in range(0, len(own), most):
            yield own[start], len(own[start : start + most])


def _setting_flags(setting: Setting, extra: list[str]) -> list[str]:
    return ["--distractors", str(setting.distractors), *_flags(setting.given), *extra]


def _flags(given: Mapping[str, Any]) -> Iterator[str]:
    for name, value in given.items():
        if isinstance(value, bool):
            yield flag(name) if value else flag(f"no_{name}")
        else:
            yield from (flag(name), ",".join(map(str, value)) if isinstance(value, tuple) else str(value))


def _last_step(directory: Path) -> int:
    from mbrl_taskmet.runner.records import read_rows

    rows = read_rows(directory)
    return rows[-1]["step"] if rows else 0


def _rows(folder: Path, seeds: range, steps: int) -> Rows:
    """The rows of a setting, of each seed once."""
    from mbrl_taskmet.runner.records import read_rows

    found = {}
    for path in sorted(folder.glob("*/metrics.jsonl")):
        for row in read_rows(path.parent):
            if row["seed"] in seeds and row["step"] <= steps:
                found[row["seed"], row["step"]] = row
    return [found[key] for key in sorted(found)]
