"""The directory of a run: its name, its `config.json`, and what may be resumed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from mbrl_taskmet.core.settings import ConfigError, flag
from mbrl_taskmet.runner.records import read_json

T = TypeVar("T")
LONGEST = 150
"""Characters of a directory's name that is made of settings."""
FORMAT = 2
"""Raised when the files of a run change their meaning."""
CHECKPOINT_SHARE = 0.02
"""The largest part of a run's time that checkpoints take by default: with the record they stay under 3 %."""


def to_json(names: Mapping[str, Any], sweep: Mapping[str, list[Any]] | None = None) -> dict[str, Any]:
    """The contents of `config.json` for settings by name: a run's, or the first combination's of a sweep and its values."""
    return {"format": FORMAT, "settings": dict(names)} | ({"sweep": dict(sweep)} if sweep else {})


def free_directory(name: str | None, logdir: str | None, parts: list[str], given: Mapping[str, Any]) -> Path:
    """The directory of a new run, not made: `name`, or one made of `parts` and `given` settings, with a number if taken.

    Raises:
        ConfigError: `name` is taken or cannot be a name.
    """
    named = parts + [f"{key.replace('_', '-')}-{value}" for key, value in sorted(given.items())]
    while len("_".join(named)) > LONGEST and len(named) > len(parts):
        named.pop()  # `config.json` has all
    made = "_".join(named).replace("/", "-").replace(":", "-").replace(" ", "")[:LONGEST]
    directory = Path(logdir or "runs/logs") / (name or made)
    try:
        if name and directory.exists() and (began(directory) or not (directory / "config.json").is_file()):
            raise ConfigError(f"{directory} exists; give another --name, or --resume {directory}")
        return directory if name else numbered(directory)
    except OSError as error:
        raise ConfigError(f"{directory} cannot be a directory ({error.strerror}); give another --name or --logdir") from None


def numbered(directory: Path) -> Path:
    """A directory that is not there: `directory`, or the first of those with a number from 2 on."""
    count, free = 1, directory
    while free.exists():
        count += 1
        free = directory.with_name(f"{directory.name}_{count}")
    return free


def began(directory: Path) -> bool:
    """Whether a run has left a checkpoint or an evaluation in a directory or, of a cell, in one below it."""
    places = [directory, *(path for path in directory.iterdir() if path.is_dir())]
    files = (place / name for place in places for name in ("metrics.jsonl", "result.json"))
    return any(path.exists() and path.stat().st_size for path in files) or any(map(has_checkpoint, places))


def has_checkpoint(place: Path) -> bool:
    """Whether a job has left a whole checkpoint in a directory; cells of format 1 have them one directory higher."""
    found = [*place.glob("checkpoints/state/*"), *place.glob("checkpoints/*")]
    return any(path.name.isdigit() for path in found)


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


def check_code(directory: Path, environment: str, given: str | None) -> None:
    """Raise ConfigError if the run in `directory` is on a class of a module that the user has not named too.

    What a file says may not decide what code runs.
    """
    if ":" in environment and given != environment:
        raise ConfigError(f"{directory} is a run on {environment}, whose code runs only if you name it as well; "
                          f"add --env {environment}")  # fmt: skip


def saved_settings(directory: Path, read: Callable[[dict[str, Any]], T]) -> T:
    """What `read` makes of the `config.json` in a run's directory.

    Raises:
        ConfigError: it is damaged, or of newer code.
    """
    return read_config(directory / "config.json", read)


def read_config(path: Path, read: Callable[[dict[str, Any]], T]) -> T:
    """What `read` makes of a `config.json`, whose format is 1 to `FORMAT`, or of the one in a `summary.json`.

    Raises:
        ConfigError: it is damaged, or of newer code.
    """
    try:
        saved = read_json(path)
        if "format" not in saved:
            saved = saved["config"]
        number = saved["format"]
        if type(number) is not int:
            raise TypeError(f"the format is {number!r}")
        if number > FORMAT:
            raise ConfigError(f"{path} is of format {number}, from newer code than this; update to resume it")
        if number < 1:
            raise ValueError(f"there is no format {number}")
    except ConfigError:
        raise
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _damaged(path, error) from None
    try:
        return read(saved)
    except ConfigError as error:  # one value of it
        raise ConfigError(f"{path}: {error}") from None
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise _damaged(path, error) from None


def saved_sweep(directory: Path) -> dict[str, list[Any]]:
    """The values by name of the sweep in a directory; {} where it holds a single run.

    Raises:
        ConfigError: its `config.json` is damaged.
    """
    return saved_settings(directory, read_axes)


def read_axes(saved: Mapping[str, Any]) -> dict[str, list[Any]]:
    """The values by name of the sweep in the contents of a `config.json`; {} in a single run's.

    Raises:
        TypeError: it is not what any version writes.
    """
    sweep = saved.get("sweep", {})
    if not isinstance(sweep, dict) or not all(isinstance(values, list) for values in sweep.values()):
        raise TypeError("the sweep is no values by name")
    return sweep


def check_same_sweep(directory: Path, sweep: Mapping[str, list[Any]]) -> None:
    """Raise ConfigError if another sweep than this, or none, is in a directory."""
    saved = saved_sweep(directory)
    if saved != sweep:
        raise ConfigError(f"{directory} is {_swept(saved)}, not {_swept(sweep)}; give another directory")


def check_whole(directory: Path) -> None:
    """Raise ConfigError if a directory is the folder of one combination of a sweep, whose checkpoints are the sweep's."""
    above = directory.absolute().parent
    if "=" in directory.name and (above / "config.json").is_file() and saved_sweep(above):
        raise ConfigError(f"{directory} is one setting of the sweep in {directory.parent}; give that directory")


def _swept(sweep: Mapping[str, list[Any]]) -> str:
    if not sweep:
        return "a single run"
    return "a sweep of " + " and ".join(f"{name}={','.join(map(str, values))}" for name, values in sweep.items())


def _damaged(path: Path, error: Exception) -> ConfigError:
    reason = " ".join(str(error).split())[:120]
    return ConfigError(f"{path} is damaged or from newer code ({type(error).__name__}: {reason}); restore it to resume")


def check_same(directory: Path, given: Mapping[str, Any], saved: Mapping[str, Any]) -> None:
    """Raise ConfigError if a setting that was given is another in the run in `directory`."""
    for name, value in given.items():
        if value != saved.get(name):
            raise ConfigError(f"{directory} has {flag(name)} {saved.get(name)}, not {value}; leave it out to resume")
