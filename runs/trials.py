"""The flags and the output of programs that repeat random trials."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mbrl_taskmet.runner.command import Parser, check_counts
from mbrl_taskmet.runner.records import write_json, write_text

RESULTS = Path("runs/results")


def read(argv: list[str] | None, name: str, about: str, counted: str, default: int, seed_of: str) -> argparse.Namespace:
    """The options `--COUNTED`, `--seed` and `--output` of `python -m runs.NAME`.

    Args:
        argv: the command line.
        name: of the program.
        about: what it does; its first line is shown.
        counted: what is tried so many times.
        default: how many.
        seed_of: what the seed is of.

    Raises:
        ConfigError: a flag is unknown, or the number is below 1.
    """
    parser = Parser(prog=f"python -m runs.{name}", description=about.split("\n")[0])
    parser.add_argument(f"--{counted}", type=int, default=default, help=f"number of {counted} (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help=f"seed of the {seed_of} (default: %(default)s)")
    parser.add_argument(
        "--output", type=Path, default=RESULTS, metavar="DIR", help="directory of the results (default: %(default)s)"
    )
    options = argparse.Namespace(**parser.read(argv)[1])
    check_counts(options, counted)
    return options


def write(output: Path, name: str, found: dict[str, Any], told: Callable[[dict[str, Any]], str]) -> None:
    """Write what was found to NAME.json, and for a reader to NAME.md and the screen."""
    output.mkdir(parents=True, exist_ok=True)
    write_json(output / f"{name}.json", found)
    write_text(output / f"{name}.md", told(found))
    print(told(found))
