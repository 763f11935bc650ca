"""A run's directory belongs to one process: made whole before it has its name, and locked until that process ends."""

from __future__ import annotations

import os
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from mbrl_taskmet.core.settings import ConfigError
from mbrl_taskmet.runner.records import write_json
from mbrl_taskmet.runner.rundir import began, numbered

try:
    import fcntl
except ImportError:  # Windows has no locks that die with their process: there nobody is kept out
    fcntl = None  # type: ignore[assignment]

T = TypeVar("T")
LOCK = ".lock"
_ASIDE = ".new-"
_STALE_SECONDS = 3600
_FILES = (".json", ".jsonl", ".npz", ".png", ".gif", ".md")
"""What the names of a run's files end in, and of no directory in it."""


class Taken(ConfigError):
    """Another process has the directory."""


@contextmanager
def claimed(directory: Path, config: Mapping[str, Any]) -> Iterator[bool]:
    """Hold a run's directory, made with its `config.json` if it is not there; yields whether a run has begun in it.

    A directory made here is removed again if what follows is refused before anything has begun.

    Raises:
        Taken: another process has it, or was faster.
        ConfigError: it cannot be written, or what it holds is no run's.
    """
    try:
        new = not directory.exists()
        lock = _made(directory, config) if new else _locked(directory)
    except OSError as error:
        raise ConfigError(f"{directory} cannot be written ({error.strerror}); give another --logdir") from None
    try:
        _check_contents(directory)
        if not (directory / "config.json").exists():
            write_json(directory / "config.json", config)
        yield began(directory)
    except ConfigError:
        if new and not began(directory):
            shutil.rmtree(directory)
        raise
    finally:
        _release(directory, lock)


def is_held(directory: Path) -> bool:
    """Whether a process has a run's directory now; False where the file system has no locks, or does not share them."""
    if fcntl is None:
        return False
    try:
        lock = os.open(directory / LOCK, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(lock)
    return False


def in_first_free(directory: Path, named: bool, start: Callable[[Path], T]) -> T:
    """What `start` makes of a new run's directory, or of one with the next number if another process takes it first.

    Args:
        directory: was free when it was looked for.
        named: by the user, so that no other will do.
        start: begins the run; raises `Taken`.
    """
    while True:
        try:
            return start(directory)
        except Taken:
            if named:
                raise
            directory = numbered(directory)


def _made(directory: Path, config: Mapping[str, Any]) -> int | None:
    """Make a directory whole aside, so that nobody sees it without its settings or its lock, and give it its name."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    for left in directory.parent.glob(f"{_ASIDE}*"):  # by a kill in these very milliseconds
        with suppress(FileNotFoundError):  # another process has just given it its name
            if time.time() - left.stat().st_mtime > _STALE_SECONDS:
                shutil.rmtree(left, ignore_errors=True)
    aside = directory.parent / f"{_ASIDE}{secrets.token_hex(8)}"
    aside.mkdir()
    lock = None
    try:
        lock = _locked(aside)
        write_json(aside / "config.json", config)
        aside.rename(directory)
    except BaseException as error:
        _release(aside, lock)
        shutil.rmtree(aside, ignore_errors=True)
        if isinstance(error, OSError) and directory.exists():
            raise Taken(f"{directory} was made by another process just now; give another --name") from None
        raise
    return lock


def _locked(directory: Path) -> int | None:
    """The lock of a directory, an open file that gives it back when the process ends, however it does."""
    if fcntl is None:
        return None
    while True:
        lock = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            raise Taken(f"{directory} is a run that goes on in another process; wait for its end, or stop it") from None
        except OSError:  # a file system without locks: there nobody is kept out
            return lock
        if os.fstat(lock).st_nlink:  # else its holder ended, and removed it, between the two calls
            return lock
        os.close(lock)


def _release(directory: Path, lock: int | None) -> None:
    if lock is not None:
        with suppress(OSError):  # moved, or no longer writable
            (directory / LOCK).unlink()
        os.close(lock)


def _check_contents(directory: Path) -> None:
    """Raise ConfigError if a directory holds what no run leaves, and nothing may be written through or over."""
    for place, folders, files in os.walk(directory):
        for folder in folders:
            if os.path.islink(os.path.join(place, folder)):
                raise ConfigError(f"{os.path.join(place, folder)} is a symbolic link, which no run leaves; "
                                  "put what it names in its place")  # fmt: skip
            if os.path.splitext(folder)[1] in _FILES:
                raise ConfigError(f"{os.path.join(place, folder)} is a directory, where a run has a file; move it away")
        for file in files:
            if not _is_regular(os.path.join(place, file)):  # a pipe would be waited for
                raise ConfigError(f"{os.path.join(place, file)} is no regular file; restore it")
    if not (directory / "config.json").is_file() and began(directory):
        raise ConfigError(f"{directory} holds checkpoints or evaluations but no config.json; restore it, "
                          "or give another directory")  # fmt: skip


def _is_regular(path: str) -> bool:
    """Whether a file, or what a link names, is one, or is not there."""
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except OSError:
        return True
