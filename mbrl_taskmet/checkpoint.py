"""Checkpoints of a run, with orbax: the whole carry, and the replay in blocks that are each written once.

    checkpoints/state/<step>/       everything but the replay's rows; the last few are kept
    checkpoints/replay/<a>-<b>/     the replay's rows of environment steps a … b − 1

Orbax writes a directory aside and renames it, so a kill in the middle leaves the previous checkpoint whole. Seeds that only
fill up a device are not saved: a run may go on with another number of devices.
"""

from __future__ import annotations

import shutil
import time
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mbrl_taskmet import replay
from mbrl_taskmet.config import ConfigError
from mbrl_taskmet.replay import Replay
from mbrl_taskmet.training import Carry, Trainer

PyTree = Any
_CHECKSUM = "crc32"


class Snapshots:
    """Checkpoints of a pytree of host arrays, by step; the last `keep` are kept.

    Args:
        directory: where they are, created if need be.
    """

    def __init__(self, directory: Path, keep: int = 2):
        import orbax.checkpoint as ocp  # here, because importing it takes long

        options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=True, enable_async_checkpointing=False)
        self._directory, self._args = directory.absolute(), ocp.args
        self._manager = ocp.CheckpointManager(self._directory, options=options)

    @property
    def steps(self) -> list[int]:
        """The steps of the checkpoints there are."""
        return list(self._manager.all_steps())

    @property
    def latest(self) -> int | None:
        """The step of the newest checkpoint, or None."""
        return self._manager.latest_step()

    def save(self, step: int, tree: PyTree) -> None:
        """Write `tree` as it is after `step`."""
        if step != self.latest:
            self._manager.save(step, args=self._args.StandardSave(_with_checksum(_named(tree))))

    def restore(self, like: PyTree) -> tuple[int, PyTree]:
        """The newest checkpoint: (its step, a pytree with the structure, shapes and types of `like`).

        Raises:
            ConfigError: it is damaged, or belongs to another configuration.
        """
        step = self.latest
        saved = _read(f"the checkpoint at step {step}", f"remove {self._directory / str(step)} to go on from the one before",
                      lambda: self._manager.restore(step, args=self._args.StandardRestore()))  # fmt: skip
        names = _named(like)
        for name in saved | names:
            old, new = saved.get(name), names.get(name)
            if old is None or new is None or old.shape != new.shape or old.dtype != new.dtype:
                raise ConfigError(f"the checkpoint in {self._directory} does not fit its configuration at {name}; "
                                  "resume it with the config.json and the version it was written with")  # fmt: skip
        return int(step or 0), jax.tree.unflatten(jax.tree.structure(like), [saved[name] for name in names])


class Checkpoints:
    """The checkpoints of one run.

    Args:
        directory: where they are, created if need be.
        trainer: the run they belong to.
        share: the largest part of the run's time that `due` lets checkpoints take.
        keep: how many are kept.
    """

    def __init__(self, directory: Path, trainer: Trainer, share: float = 0.03, keep: int = 3):
        import orbax.checkpoint as ocp

        self._trainer, self._share = trainer, share
        self._blocks = directory.absolute() / "replay"
        self._blocks.mkdir(parents=True, exist_ok=True)
        self._state = Snapshots(directory / "state", keep)
        self._saved_steps = [_span(block)[1] for block in self._find_blocks()]
        self._checkpointer = ocp.StandardCheckpointer()
        self._cost, self._last = 0.0, time.monotonic()

    def due(self) -> bool:
        """Whether enough time has passed since the last checkpoint to pay for another."""
        return time.monotonic() - self._last >= self._cost / self._share

    def save(self, step: int, carry: Carry) -> None:
        """Write the carry after `step` environment steps, and the replay's rows since the last checkpoint."""
        if step == self._state.latest:
            return
        begin = time.monotonic()
        rows = carry.replay.reward.shape[1]
        first = max(self._saved_steps[-1] if self._saved_steps else 0, step - rows + 1)
        with jax.enable_x64(self._trainer.config.x64):
            if first < step:
                for unfinished in self._find_blocks():  # of a run that stopped before it could write the state
                    if _span(unfinished)[1] > first:
                        shutil.rmtree(unfinished)
                block = _rows(carry.replay, jnp.arange(first, step) % rows)
                arrays = {name: array for name, array in block._asdict().items() if array is not None}
                self._write_block(f"{first}-{step}", _with_checksum(self._to_host(arrays)))
            self._state.save(step, self._to_host(_without_replay(carry)))
        self._drop_blocks(step, rows)
        self._last = time.monotonic()
        self._cost = self._last - begin

    def restore(self, with_replay: bool = True) -> tuple[int, Carry]:
        """The newest checkpoint: (environment steps done, carry on its devices), whose replay stays empty unless `with_replay`.

        Removes nothing: the run may still be going on.

        Raises:
            ConfigError: there is none, it is damaged, or it belongs to another configuration.
        """
        if self._state.latest is None:
            raise ConfigError(f"{self._blocks.parent} holds no checkpoint; give the directory of a run to --resume")
        with jax.enable_x64(self._trainer.config.x64):
            carry = self._trainer.init()
            step, saved = self._state.restore(self._to_host(_without_replay(carry)))
            placed, like = self._trainer.spread.to_devices(saved), _without_replay(carry)
            restored = jax.tree.map(lambda x, old: jax.random.wrap_key_data(x) if _is_key(old) else x, placed, like)
            memory = self._fill(carry.replay, restored.observation, step) if with_replay else carry.replay
        self._saved_steps = [last for _, last in map(_span, self._find_blocks()) if last <= step]
        return step, restored._replace(replay=memory)

    def _fill(self, memory: Replay, observation: jax.Array, step: int) -> Replay:
        """The replay before `step`, from its blocks one at a time, and `observation`, the next step's."""
        rows = memory.reward.shape[1]
        write = jax.jit(_set_rows, donate_argnums=0)
        done = oldest = max(0, step - rows + 1)
        for block in self._find_blocks():
            first, last = _span(block)
            if first > done or last > step or last <= oldest:
                continue
            arrays = _read(
                f"the replay block {block}", "restore it from a copy or start the run again",
                partial(self._checkpointer.restore, block),
            )  # fmt: skip
            keep = max(first, oldest)
            new = self._trainer.spread.to_devices({name: array[:, keep - first :] for name, array in arrays.items()})
            memory, done = write(memory, jnp.arange(keep, last) % rows, Replay(**new)), last
        if done < step:
            raise ConfigError(
                f"{self._blocks} lacks the replay of steps {done} to {step}; restore it from a copy or start the run again"
            )
        current = jax.jit(jax.vmap(replay.set_observation, in_axes=(0, None, 0)), donate_argnums=0)
        return jax.device_put(current(memory, jnp.int32(step), observation), self._trainer.spread.sharding)

    def _to_host(self, tree: PyTree) -> PyTree:
        """The leaves without the seeds that fill up a device, random keys as the integers they are."""
        return self._trainer.spread.to_host(jax.tree.map(lambda x: jax.random.key_data(x) if _is_key(x) else x, tree))

    def _find_blocks(self) -> list[Path]:
        done = [block for block in self._blocks.iterdir() if block.name.replace("-", "").isdigit()]
        return sorted(done, key=_span)

    def _write_block(self, name: str, arrays: dict[str, np.ndarray]) -> None:
        self._checkpointer.save(self._blocks / name, arrays, force=True)
        self._checkpointer.wait_until_finished()
        self._saved_steps.append(_span(self._blocks / name)[1])

    def _drop_blocks(self, step: int, rows: int) -> None:
        """Remove the blocks that no kept checkpoint needs any more."""
        oldest = min([*self._state.steps, step])
        for block in self._find_blocks():
            if _span(block)[1] <= oldest - rows + 1:
                shutil.rmtree(block)


def _read(what: str, mend: str, read: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """What `read` gives, without its checksum, or a ConfigError that names the damage."""
    try:
        arrays = dict(read())
        checksum = arrays.pop(_CHECKSUM)
    except Exception as error:  # orbax raises whatever its storage does
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise ConfigError(f"{what} is damaged ({reason}); {mend}") from None
    if int(checksum[0]) != _checksum(arrays):
        raise ConfigError(f"{what} is damaged (its checksum differs); {mend}")
    return arrays


def _with_checksum(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return arrays | {_CHECKSUM: np.array([_checksum(arrays)], np.uint32)}


def _checksum(arrays: dict[str, np.ndarray]) -> int:
    total = 0
    for name in sorted(arrays):
        total = zlib.crc32(arrays[name].tobytes(), zlib.crc32(name.encode(), total))
    return total


def _without_replay(carry: Carry) -> Any:
    return carry._replace(replay=())  # type: ignore[arg-type]


def _span(block: Path) -> tuple[int, int]:
    first, last = block.name.split("-")
    return int(first), int(last)


@jax.jit
def _rows(memory: Replay, rows: jax.Array) -> Replay:
    return jax.tree.map(lambda x: x[:, rows], memory)


def _set_rows(memory: Replay, rows: jax.Array, values: Replay) -> Replay:
    return jax.tree.map(lambda x, new: x.at[:, rows].set(new), memory, values)


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _named(tree: PyTree) -> dict[str, Any]:
    """Leaves by their path."""
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]}
