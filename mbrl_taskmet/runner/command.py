"""What the commands share: flags made from settings, one sentence for bad input, exit codes, and JAX's start."""

from __future__ import annotations

import argparse
import contextlib
import functools
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn, ParamSpec, get_args, get_origin

from mbrl_taskmet.core.settings import MOST, ConfigError, Option, flag, nearest, options, shown
from mbrl_taskmet.runner.signals import Stopped, StopSignal

P = ParamSpec("P")
_WORDS = {int: ("N", int), float: ("X", float)}


def command(main: Callable[P, int]) -> Callable[P, int]:
    """`main`, with errors and signals reported in one sentence on the standard error.

    The exit code is 2 for bad input, 128 + the signal's number for what was stopped, 141 (as of SIGPIPE) where nobody reads the
    output any more, and 1 where the machine fails: no room, no permission, a directory that was moved.
    """

    @functools.wraps(main)
    def run(*args: P.args, **kwargs: P.kwargs) -> int:
        _write_as_can_be()
        with _in_sentences():
            try:
                with StopSignal("stopped; to go on, give the command again, or --resume its directory if it has one"):
                    try:
                        return main(*args, **kwargs)
                    finally:
                        sys.stdout.flush()
            except ConfigError as error:
                return _say(f"error: {error}", 2)
            except Stopped as stopped:
                return _say(str(stopped), 128 + stopped.signal)
            except KeyboardInterrupt:
                return _say("interrupted", 130)
            except BrokenPipeError:
                _drop_output()
                return 141
            except OSError as error:
                return _say(f"error: {_failure(error)}; what is written stays, and --resume goes on from there", 1)

    return run


@contextlib.contextmanager
def _in_sentences() -> Iterator[None]:
    """Print each warning on one line, and keep orbax' threads from logging tracebacks of errors that are raised as well."""

    def unraisable(hooked: Any) -> None:
        if "Event loop is closed" not in str(hooked.exc_value):  # its storage still calls back after it has failed
            before(hooked)

    log, before = logging.getLogger("absl"), sys.unraisablehook
    disabled, log.disabled, sys.unraisablehook = log.disabled, True, unraisable
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            yield
    finally:
        log.disabled, sys.unraisablehook = disabled, before


def _write_as_can_be() -> None:
    """Escape characters that the standard output's encoding lacks."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")


def _drop_output() -> None:
    """Redirect the standard output to nothing, so that Python's flush at exit does not fail on a closed pipe."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _say(sentence: str, code: int) -> int:
    """Print a sentence, on one line whatever it quotes; the exit code."""
    with contextlib.suppress(OSError):  # nobody may be reading that either
        print(" ".join(sentence.splitlines()), file=sys.stderr, flush=True)
    return code


def _failure(error: OSError) -> str:
    where = f" ({error.filename})" if error.filename else ""
    return f"{error.strerror or error}{where}"


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    _say(f"warning: {message}", 0)


class Parser(argparse.ArgumentParser):
    """A parser whose errors are ConfigErrors; it knows no abbreviations."""

    def __init__(self, **words: Any):
        help = functools.partial(argparse.HelpFormatter, max_help_position=36, width=110)
        super().__init__(allow_abbrev=False, formatter_class=help, **words)
        self._settings: set[str] = set()

    def error(self, message: str) -> NoReturn:
        """Raise a ConfigError."""
        raise ConfigError(f"{message}; see --help")

    def add_settings(self, record: type, leave_out: tuple[str, ...] = ()) -> None:
        """A flag for every setting in a tree of records, absent unless it is given."""
        places: dict[str, list[Option]] = {}
        for option in options(record):
            places.setdefault(option.name, []).append(option)
        for name, found in places.items():
            if name in leave_out:
                continue
            self._settings.add(name)
            how: dict[str, Any] = {"action": argparse.BooleanOptionalAction}
            if found[0].hint is not bool:
                how = _words(found[0].hint)
            self.add_argument(flag(name), default=argparse.SUPPRESS, help=_help(found).replace("%", "%%"), **how)

    def add_directory(self, resume: str) -> None:
        """The flags that say where a run is; `resume` is the help of --resume."""
        self.add_argument("--name", help="name of the run's directory (default: made from the settings)")
        self.add_argument("--logdir", metavar="DIR", help="where run directories go (default: runs/logs)")
        self.add_argument("--resume", metavar="DIR", help=resume)

    def read(self, argv: list[str] | None) -> tuple[dict[str, Any], dict[str, Any]]:
        """The settings that were given, and all other values.

        Raises:
            ConfigError: an unknown flag or a value of the wrong type.
        """
        values, unknown = self.parse_known_args(argv)
        if unknown:
            flags = [name for action in self._actions for name in action.option_strings]
            raise ConfigError(f"{unknown[0]!r} is no option; did you mean {nearest(unknown[0].split('=')[0], flags)}?")
        given = {name: value for name, value in vars(values).items() if name in self._settings}
        return given, {name: value for name, value in vars(values).items() if name not in self._settings}


def check_counts(options: argparse.Namespace, *names: str) -> None:
    """Raise ConfigError unless the options `names` are 1 or more, and 32 bits hold them."""
    for name in names:
        value = getattr(options, name)
        if not 1 <= value <= MOST:
            raise ConfigError(f"{flag(name)} is {shown(value)}; give {'1 or more' if value < 1 else f'{MOST} or less'}")


def cores() -> int:
    """CPU cores that this process may use: not all of the machine's under `taskset` or a batch queue."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def start_jax(cpu_devices: int) -> None:
    """Set the number of CPU devices, and the compilation cache's directory unless the environment names one."""
    import jax

    with contextlib.suppress(RuntimeError):  # JAX has started already, in a program that calls this: use what it has
        jax.config.update("jax_num_cpu_devices", cpu_devices)
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        try:
            jax.config.update("jax_compilation_cache_dir", str(Path.home() / ".cache" / "mbrl_taskmet"))
        except RuntimeError:
            warnings.warn("there is no home directory to keep compiled programs in, so they are compiled again each time; "
                          "set JAX_COMPILATION_CACHE_DIR to keep them", stacklevel=2)  # fmt: skip
    if jax.config.jax_debug_nans:  # type: ignore[attr-defined]
        jax.config.update("jax_debug_nans", False)
        warnings.warn("JAX_DEBUG_NANS is left out, for NaN stands for what is not measured; --debug-nans names the operation "
                      "that is not finite in training", stacklevel=2)  # fmt: skip


def module() -> str:
    """The module that was started by `python -m`."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return spec.name if spec else "agents.cartpole"


def _words(hint: Any) -> dict[str, Any]:
    """The arguments by which argparse reads values of a type."""
    kinds = [part for part in (get_args(hint) or (hint,)) if part in _WORDS]
    if get_origin(hint) is tuple:
        metavar, kind = _WORDS[get_args(hint)[0]]
        return {"type": _numbers if kind is int else _reals, "metavar": f"{metavar},{metavar}"}
    metavar, kind = _WORDS[kinds[0]] if kinds else ("NAME", str)
    return {"type": kind, "metavar": metavar}


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in text.split(","))


def _reals(text: str) -> tuple[float, ...]:
    return tuple(float(number) for number in text.split(","))


def _help(places: list[Option]) -> str:
    """The help line of a setting: its meaning, its choices and its defaults."""
    first = places[0]
    meaning = "; ".join(dict.fromkeys(option.field.metadata["help"] for option in places))
    names = f": {', '.join(first.choices)}" if first.choices else ""
    defaults = dict.fromkeys(str(option.default) for option in places)
    if len(defaults) == 1:
        default = next(iter(defaults))
        return f"{meaning}{names}" + ("" if default == "None" else f" (default: {default})")
    each = dict.fromkeys(f"{option.where[-1][1]} {option.default}" for option in places if option.default is not None)
    return f"{meaning}{names} (default: {', '.join(each)})"
