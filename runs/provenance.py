"""What made a result, as a page beside it: `provenance.md`, written from the records and not by hand.

The experiments write theirs with their report. `python -m runs.provenance DIRECTORY…` writes that of single runs from the
`summary.json` or `runs.json` that lies there.
"""

from __future__ import annotations

import fnmatch
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mbrl_taskmet.core.settings import ConfigError, flag
from mbrl_taskmet.rl.settings import Config, read_saved
from mbrl_taskmet.runner.command import Parser, command
from mbrl_taskmet.runner.records import read_json, write_text
from runs.report import Results, Runs
from runs.setting import Setting
from runs.tables import markdown, undamaged

NAME = "provenance.md"
UNITS = ((3600, "hours"), (60, "minutes"), (1, "seconds"))


def of_experiment(name: str, settings: Iterable[Setting], given: Mapping[str, Any], results: Results, runs: Runs) -> str:
    """The page of an experiment: a command for every group of settings with the same seeds and steps, then what ran them.

    Args:
        name: of the experiment's module in `runs`.
        settings: all lines of its table.
        given: settings from the command line, which hold for every line.
        results: the rows of the lines that were run.
        runs: what is known of their blocks.
    """
    every = [setting.name for setting in settings]
    groups: dict[tuple[tuple[int, ...], int], list[str]] = {}
    for setting, rows in results.items():
        seeds = tuple(sorted({row["seed"] for row in rows}))
        groups.setdefault((seeds, max(row["step"] for row in rows)), []).append(setting)
    flags = "".join(f" {_given(key, value)}" for key, value in given.items())
    output = f"--output runs/results/{name}"
    commands = [
        f"python -m runs.{name}{_only(own, every)} --seeds {len(seeds)} --first-seed {seeds[0]} --steps {steps}{flags} {output}"
        for (seeds, steps), own in groups.items()
    ]
    return _page([command.replace(" --first-seed 0", "") for command in commands], list(runs.values()))


def of_run(command_line: str, record: Mapping[str, Any]) -> str:
    """The page of one run, from what its record holds of the device, the versions and the wall time."""
    return _page([command_line], [record])


def _only(own: list[str], every: list[str]) -> str:
    """The flag that chooses `own` and nothing else of `every`, by patterns where they do; none for all of them."""
    if set(own) == set(every):
        return ""
    found: list[str] = []
    for name in own:
        if not any(fnmatch.fnmatch(name, pattern) for pattern in found):
            pattern = f"{name.rpartition('-')[0]}-*"
            several = {other for other in every if fnmatch.fnmatch(other, pattern)}
            found.append(pattern if len(several) > 1 and several <= set(own) else name)
    return f" --only {' '.join(repr(pattern) for pattern in found)}"


def _page(commands: list[str], records: list[Mapping[str, Any]]) -> str:
    lines = ["# Provenance", "", "Written by the program from the records of the runs.", "", "```sh", *commands, "```", ""]
    devices = sorted({_device(record["device"]) for record in records if "device" in record})
    lines += [f"- device: {text}" for text in devices]
    seconds = [record["wall_seconds"] for record in records if record.get("wall_seconds")]
    if seconds:
        lines.append(f"- wall time: {_time(sum(seconds))}" + f", the sum over {len(seconds)} runs" * (len(seconds) > 1))
    for versions in sorted({tuple(record["versions"].items()) for record in records if "versions" in record}, key=str):
        lines += ["", markdown([{"package": name, "version": number} for name, number in versions if number]).rstrip()]
    return "\n".join(lines) + "\n"


def _device(device: Mapping[str, Any]) -> str:
    return f"{device['count']} × {device['kind']} ({device['machine']})"


def _time(seconds: float) -> str:
    size, unit = next((size, unit) for size, unit in UNITS if seconds >= 2 * size or size == 1)
    return f"{seconds / size:.0f} {unit}"


def _given(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return flag(name) if value else flag(name).replace("--", "--no-", 1)
    return f"{flag(name)} {value}"


def command_of(name: str, record: Mapping[str, Any]) -> str:
    """The command of a run: an agent's, with what its preset does not say; a decision task's; or an experiment's."""
    config = record.get("config", {})
    if not config:
        named = {key: record[key] for key in ("seeds", "steps", "norm") if key in record}
        return " ".join([f"python -m runs.{name}", *(_given(*each) for each in named.items()), f"--output runs/results/{name}"])
    if "task" in config:
        given = [_given(key, value) for key, value in config.items() if value is not None]
        return " ".join(["python -m decision_tasks", *given])
    names = dict(read_saved(config).names)
    basic = ("env", "distractors", "preset", "method", "steps", "seeds", "seed")
    named = {key: names[key] for key in basic if names[key] is not None}
    expected = Config(**named).resolve().names
    named |= {key: value for key, value in names.items() if value != expected[key]}
    return " ".join(["python -m agents.gymnax", *(_given(key, value) for key, value in named.items())])


@command
def main(argv: list[str] | None = None) -> int:
    """Write the page of each directory."""
    parser = Parser(prog="python -m runs.provenance", description=__doc__)
    parser.add_argument("directories", nargs="+", type=Path, metavar="DIRECTORY", help="what holds the record of a run")
    for directory in parser.parse_args(argv).directories:
        paths = [path for path in (directory / "summary.json", directory / "runs.json") if path.exists()]
        if not paths:
            raise ConfigError(f"{directory} has neither summary.json nor runs.json; give the directory of a run")
        with undamaged(paths[0]):
            record = read_json(paths[0])
            text = of_run(command_of(directory.name, record), record)
        write_text(directory / NAME, text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
