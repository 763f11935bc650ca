"""The directory of a run: its name, its `config.json`, and what may be resumed."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from mbrl_taskmet.core.settings import ConfigError, flag

T = TypeVar("T")
FORMAT = 2
"""Raised when the files of a run change their meaning."""


def to_json(names: Mapping[str, Any]) -> dict[str, Any]:
    """The contents of `config.json` for settings by name."""
    return {"format": FORMAT, "settings": dict(names)}


def free_directory(name: str | None, logdir: str | None, parts: list[str], given: Mapping[str, Any]) -> Path:
    """The directory of a new run, not made: `name`, or one made of `parts` and `given` settings, with a number if taken.

    Raises:
        ConfigError: `name` is taken or cannot be a name.
    """
    settings = [f"{key.replace('_', '-')}-{value}" for key, value in sorted(given.items())]
    made = "_".join(parts + settings).replace("/", "-").replace(":", "-").replace(" ", "")[:150]
    root, count = Path(logdir or "runs/logs"), 1
    directory = root / (name or made)
    try:
        if name and directory.exists():
            raise ConfigError(f"{directory} exists; give another --name, or --resume {directory}")
        while directory.exists():
            count += 1
            directory = root / f"{made}_{count}"
    except OSError as error:
        raise ConfigError(f"{directory} cannot be a directory ({error.strerror}); give another --name or --logdir") from None
    return directory


def make_directory(directory: Path) -> None:
    """Make a run's directory if it is not there, or raise ConfigError if it cannot be written."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        probe = directory / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ConfigError(f"{directory} cannot be written ({error.strerror}); give another --logdir") from None


def resumed_directory(resume: str, name: str | None, logdir: str | None) -> Path:
    """The directory that `--resume` names.

    Raises:
        ConfigError: it holds no run, or a `name` or `logdir` is given beside it.
    """
    directory = Path(resume)
    if not resume or not (directory / "config.json").is_file():
        raise ConfigError(f"{resume or '--resume'} holds no run (no config.json in it); give a run's directory to --resume")
    for option, value in (("name", name), ("logdir", logdir)):
        if value is not None:
            raise ConfigError(f"--{option} {value} cannot change what {directory} is called; leave it out with --resume")
    return directory


def saved_settings(directory: Path, read: Callable[[dict[str, Any]], T]) -> T:
    """What `read` makes of the `config.json` in a run's directory, whose format is 1 to `FORMAT`.

    Raises:
        ConfigError: it is damaged, or of newer code.
    """
    path = directory / "config.json"
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
        if saved["format"] > FORMAT:
            raise ConfigError(f"{path} is of format {saved['format']}, from newer code than this; update to resume it")
        if saved["format"] < 1:
            raise ValueError(f"there is no format {saved['format']}")
        return read(saved)
    except ConfigError:
        raise
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{path} is damaged or from newer code ({type(error).__name__}: {error}); restore it to resume"
        ) from None


def check_same(directory: Path, given: Mapping[str, Any], saved: Mapping[str, Any]) -> None:
    """Raise ConfigError if a setting that was given is another in the run in `directory`."""
    for name, value in given.items():
        if value != saved.get(name):
            raise ConfigError(f"{directory} has {flag(name)} {saved.get(name)}, not {value}; leave it out to resume")
