"""`python -m mbrl_taskmet.plotting DIR…` draws the runs in the given directories side by side.

Those of equal settings are one group: return, model error and learned metric, mean ± standard error over seeds, to
`comparison.png` and `comparison.svg`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mbrl_taskmet.core.settings import ConfigError
from mbrl_taskmet.rl.settings import read_saved
from mbrl_taskmet.runner.command import Parser, command
from mbrl_taskmet.runner.plotting import Rows, plot_groups
from mbrl_taskmet.runner.records import read_rows
from mbrl_taskmet.runner.rundir import saved_settings

_FREE = ("seed", "seeds", "steps")
"""Settings in which the runs of a group may differ."""

_DRAWN = ("eval/return", "train/model_mse_state")


def read_groups(directories: Iterable[Path]) -> dict[str, Rows]:
    """The rows of the runs in `directories`, or directly below them, together where all settings but seeds and steps agree.

    A group is called by its method and by the settings in which it differs from another.

    Raises:
        ConfigError: a directory holds no run with an evaluation.
    """
    settings: list[dict[str, Any]] = []
    rows: list[Rows] = []
    for directory in directories:
        found = [path.parent for path in sorted({*directory.glob("config.json"), *directory.glob("*/config.json")})]
        found = [run for run in found if read_rows(run, _DRAWN)]
        if not found:
            raise ConfigError(f"{directory} holds no run with an evaluation; give directories of runs")
        for run in found:
            names = saved_settings(run, read_saved).names
            setting = {key: value for key, value in names.items() if key not in _FREE}
            if setting not in settings:
                settings.append(setting)
                rows.append([])
            rows[settings.index(setting)] += read_rows(run, _DRAWN)
    return {_name(setting, settings): found for setting, found in zip(settings, rows, strict=True)}


def _name(setting: Mapping[str, Any], settings: Iterable[Mapping[str, Any]]) -> str:
    def differs(key: str) -> bool:
        alike = [other for other in settings if other.get("method") == setting["method"] or key in ("env", "distractors")]
        return any(other.get(key) != setting[key] for other in alike)

    parts = [f"{key.replace('_', ' ')} {value}" for key, value in setting.items() if key != "method" and differs(key)]
    return ", ".join([setting["method"], *parts])


@command
def main(argv: list[str] | None = None) -> int:
    """Draw the runs named on the command line; 2 for bad input."""
    parser = Parser(prog="python -m mbrl_taskmet.plotting", description="Draw runs side by side.")
    parser.add_argument("directories", nargs="+", metavar="DIR", type=Path, help="directory of a run, or of several")
    parser.add_argument("--output", default="comparison.png", type=Path, metavar="FILE",
                        help="name of the PNG; an SVG is written beside it (default: comparison.png)")  # fmt: skip
    options = argparse.Namespace(**parser.read(argv)[1])
    if not options.output.name:
        raise ConfigError(f"--output {options.output} is no file; give the PNG's name")
    path, groups = options.output.with_suffix(".png"), read_groups(options.directories)
    try:
        plot_groups(groups, path)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written ({error.strerror or error}); give another --output") from None
    print(f"{path} and {path.with_suffix('.svg')}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
