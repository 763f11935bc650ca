"""What the commands share: flags made from a configuration, one sentence for bad input, run directories, and JAX's start.

Nothing here imports JAX before it is to start: `--help` and bad input are answered without.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, ParamSpec, TypeVar

from mbrl_taskmet.config import ConfigError, flag, nearest

P = ParamSpec("P")
T = TypeVar("T")

_TYPES: dict[str, Any] = {"int": int, "float": float, "str": str, "tuple": lambda text: tuple(int(x) for x in text.split(","))}


def command(main: Callable[P, int]) -> Callable[P, int]:
    """`main`, but for a ConfigError, which becomes one sentence on the standard error and the exit code 2."""

    @functools.wraps(main)
    def run(*args: P.args, **kwargs: P.kwargs) -> int:
        try:
            return main(*args, **kwargs)
        except ConfigError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2

    return run


class Parser(argparse.ArgumentParser):
    """A parser whose errors are ConfigErrors; it knows no abbreviations."""

    def __init__(self, **words: Any):
        help = functools.partial(argparse.HelpFormatter, max_help_position=36, width=110)
        super().__init__(allow_abbrev=False, formatter_class=help, **words)

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; see --help")

    def add_config(self, config: type, unset: str) -> None:
        """A flag for every field of `config`, absent unless it is given; `unset` is what the help calls a default of None."""
        for field in dataclasses.fields(config):
            kind, choices = str(field.type).split(" ")[0].split("[")[0], field.metadata.get("choices")
            default = unset if field.default is None else field.default
            help = f"{field.metadata['help']}{': ' + ', '.join(choices) if choices else ''} (default: {default})"
            how: dict[str, Any] = {"action": argparse.BooleanOptionalAction}
            if kind != "bool":
                how = {"type": _TYPES[kind], "metavar": {"int": "N", "float": "X", "tuple": "N,N"}.get(kind, "NAME")}
            self.add_argument(flag(field.name), default=argparse.SUPPRESS, help=help.replace("%", "%%"), **how)

    def add_directory(self, resume: str) -> None:
        """The flags that say where a run is; `resume` is the help of --resume."""
        self.add_argument("--name", help="name of the run's directory (default: made from the settings)")
        self.add_argument("--logdir", metavar="DIR", help="where run directories go (default: runs/logs)")
        self.add_argument("--resume", metavar="DIR", help=resume)

    def read(self, argv: list[str] | None, config: type) -> tuple[dict[str, Any], dict[str, Any]]:
        """The fields of `config` that were given, and all other values.

        Raises:
            ConfigError: an unknown flag or a value of the wrong type.
        """
        values, unknown = self.parse_known_args(argv)
        if unknown:
            flags = [name for action in self._actions for name in action.option_strings]
            raise ConfigError(f"{unknown[0]!r} is no option; did you mean {nearest(unknown[0].split('=')[0], flags)}?")
        names = {field.name for field in dataclasses.fields(config)}
        given = {name: value for name, value in vars(values).items() if name in names}
        return given, {name: value for name, value in vars(values).items() if name not in names}


def check_counts(options: argparse.Namespace, *names: str) -> None:
    """Raise ConfigError unless the options `names` are 1 or more."""
    for name in names:
        if getattr(options, name) < 1:
            raise ConfigError(f"{flag(name)} is {getattr(options, name)}; give 1 or more")


def free_directory(name: str | None, logdir: str | None, parts: list[str], said: dict[str, Any]) -> Path:
    """The directory of a new run, not made: `name`, or one made of `parts` and the settings `said`, with a number if taken.

    Raises:
        ConfigError: `name` is taken or cannot be a name.
    """
    settings = [f"{key.replace('_', '-')}-{value}" for key, value in sorted(said.items())]
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


def make_directory(directory: Path, resumed: bool) -> None:
    """Make a run's directory, or raise ConfigError if it cannot be written."""
    try:
        directory.mkdir(parents=True, exist_ok=resumed)
        probe = directory / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ConfigError(f"{directory} cannot be written ({error.strerror}); give another --logdir") from None


def saved_run(
    resume: str, name: str | None, logdir: str | None, newest: int, read: Callable[[dict[str, Any]], T]
) -> tuple[Path, T]:
    """The run in the directory `resume`, and what `read` makes of its `config.json`, whose format is 1 to `newest`.

    Raises:
        ConfigError: no run, a damaged one, one of newer code, or a `name` or `logdir` beside it.
    """
    directory = Path(resume)
    path = directory / "config.json"
    if not resume or not path.is_file():
        raise ConfigError(f"{resume or '--resume'} holds no run (no config.json in it); give a run's directory to --resume")
    for option, value in (("name", name), ("logdir", logdir)):
        if value is not None:
            raise ConfigError(f"--{option} {value} cannot change what {directory} is called; leave it out with --resume")
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
        if saved["format"] > newest:
            raise ConfigError(f"{path} is of format {saved['format']}, from newer code than this; update to resume it")
        if saved["format"] < 1:
            raise ValueError(f"there is no format {saved['format']}")
        return directory, read(saved)
    except ConfigError:
        raise
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{path} is damaged or from newer code ({type(error).__name__}: {error}); restore it to resume"
        ) from None


def check_same(directory: Path, given: dict[str, Any], config: Any) -> None:
    """Raise ConfigError if a setting that was given is another in the configuration of the run in `directory`."""
    for name, value in given.items():
        if value != getattr(config, name):
            raise ConfigError(f"{directory} has {flag(name)} {getattr(config, name)}, not {value}; leave it out to resume")


def cores() -> int:
    """CPU cores that this process may use: not all of the machine's under `taskset` or a batch queue."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def start_jax(cpu_devices: int) -> None:
    """Set the number of CPU devices, and the compilation cache's directory unless the environment names one."""
    import jax

    with contextlib.suppress(RuntimeError):  # JAX has started already, in a program that calls this: use what it has
        jax.config.update("jax_num_cpu_devices", cpu_devices)
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str(Path.home() / ".cache" / "mbrl_taskmet"))
