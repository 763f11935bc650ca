"""The directory of a run: its name, its `config.json`, and what may be resumed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from decision_tasks.config import Config
from mbrl_taskmet.command import check_same, free_directory, saved_run

FORMAT = 1
"""Raised when the files of a run change their meaning."""


def new_run(given: dict[str, Any], name: str | None, logdir: str | None) -> tuple[Config, Path]:
    """A run to start, and its directory, chosen but not made.

    Raises:
        ConfigError: a bad setting, or a name that is taken.
    """
    config = Config(**given).check()
    parts = ["decision", config.task, config.method, f"{config.datasets}x{config.seeds}"]
    said = {key: value for key, value in given.items() if key not in ("task", "method", "datasets", "seeds")}
    return config, free_directory(name, logdir, parts, said)


def resumed_run(resume: str, given: dict[str, Any], name: str | None, logdir: str | None) -> tuple[Config, Path]:
    """The run in `resume`; any setting given must agree with it.

    Raises:
        ConfigError: no run, a damaged one, one of newer code or of other settings.
    """
    directory, config = saved_run(resume, name, logdir, FORMAT, lambda saved: Config(**saved["config"]).check())
    check_same(directory, given, config)
    return config, directory
