"""Checkpoints of a pytree with orbax, each with a checksum of its own."""

from __future__ import annotations

import errno
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mbrl_taskmet.core.settings import ConfigError
from mbrl_taskmet.runner.records import shortened

PyTree = Any
Arrays = dict[str, np.ndarray]
_CHECKSUM, _STEP = "crc32", "step"


class Snapshots:
    """Checkpoints of a pytree of host arrays, by step.

    Args:
        directory: where they are, created if need be.
        keep: how many are kept.

    Raises:
        ConfigError: what is there is damaged.
    """

    def __init__(self, directory: Path, keep: int):
        import orbax.checkpoint as ocp  # here, because importing it takes long

        options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=True, enable_async_checkpointing=False)
        self._directory, self._args = directory.absolute(), ocp.args
        there = self._directory.is_dir() and any(self._directory.iterdir())
        try:
            self._manager = ocp.CheckpointManager(self._directory, options=options)
        except Exception as error:  # orbax reads what is there, and raises whatever that brings about
            if not there:
                raise
            raise ConfigError(
                f"{self._directory} holds a checkpoint that is damaged ({shortened(error)}); restore it, or remove it"
            ) from None

    @property
    def steps(self) -> list[int]:
        """The steps of the checkpoints there are."""
        return list(self._manager.all_steps())

    @property
    def latest(self) -> int | None:
        """The step of the newest checkpoint, or None."""
        return self._manager.latest_step()

    def save(self, step: int, tree: PyTree, about: dict[str, Any]) -> None:
        """Write `tree` as of `step`, and `about` beside it, in JSON.

        Raises:
            OSError: it cannot be written.
        """
        if step != self.latest:
            args = self._args.StandardSave(with_checksum({name: leaf for name, leaf in _named(tree).items() if leaf.size}))
            with writing(self._directory / str(step)):
                self._manager.save(step, args=args, custom_metadata={**about, _STEP: step})

    def about(self, step: int) -> dict[str, Any]:
        """The `about` that `save` was given for a checkpoint; {} if it is not known."""
        return {name: value for name, value in self._known(step).items() if name != _STEP}

    def restore(self, like: PyTree, upgrade: Callable[[Arrays], Arrays]) -> tuple[int, PyTree]:
        """The newest checkpoint: (its step, a pytree with the structure, shapes and types of `like`).

        Args:
            like: a pytree of arrays.
            upgrade: what makes today's arrays of saved ones.

        Raises:
            ConfigError: it is damaged, or belongs to another configuration.
        """
        step = self.latest
        saved = read(f"the checkpoint at step {step}", f"remove {self._directory / str(step)} to go on from the one before",
                      lambda: self._manager.restore(step, args=self._args.StandardRestore()))  # fmt: skip
        if (written := self._known(step).get(_STEP, step)) != step:
            raise ConfigError(f"{self._directory / str(step)} is the checkpoint of step {written}; give it its name back, or "
                              "remove it")  # fmt: skip
        names = _named(like)
        saved = upgrade(saved) | {name: leaf for name, leaf in names.items() if not leaf.size}  # which orbax cannot write
        for name in saved | names:
            old, new = saved.get(name), names.get(name)
            if old is None or new is None or old.shape != new.shape or old.dtype != new.dtype:
                raise ConfigError(f"the checkpoint in {self._directory} does not fit its configuration at {name}; "
                                  "resume it with the config.json and the version it was written with")  # fmt: skip
        return int(step or 0), jax.tree.unflatten(jax.tree.structure(like), [saved[name] for name in names])

    def _known(self, step: int | None) -> dict[str, Any]:
        """The contents of the JSON file beside a checkpoint."""
        with suppress(Exception):  # of an earlier version, or damaged: it is worth no more than a sentence
            return dict(self._manager.metadata(step).custom_metadata)
        return {}


def read(what: str, remedy: str, load: Callable[[], Arrays]) -> Arrays:
    """The result of `load` without its checksum, or a ConfigError that names the damage."""
    try:
        arrays = dict(load())
        checksum = int(arrays.pop(_CHECKSUM)[0])
        differs = checksum != _checksum(arrays)
    except Exception as error:  # orbax raises whatever its storage does
        raise ConfigError(f"{what} is damaged ({shortened(error)}); {remedy}") from None
    if differs:
        raise ConfigError(f"{what} is damaged (its checksum differs); {remedy}")
    return arrays


def with_checksum(arrays: Arrays) -> Arrays:
    """The arrays and one that tells whether they are the same when they are read."""
    return arrays | {_CHECKSUM: np.array([_checksum(arrays)], np.uint32)}


def _checksum(arrays: Arrays) -> int:
    total = 0
    for name in sorted(arrays):
        total = zlib.crc32(arrays[name].tobytes(), zlib.crc32(name.encode(), total))
    return total


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Context in which orbax writes: any error of its storage becomes an OSError of one line."""
    try:
        yield
    except Exception as error:
        reason = "No space left on device" if "No space left" in str(error) else shortened(error)
        raise OSError(errno.EIO, f"the checkpoint cannot be written: {reason}", str(path)) from None


def _named(tree: PyTree) -> dict[str, Any]:
    """Leaves by their path."""
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]}
