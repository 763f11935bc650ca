"""Checkpoints of a job, with orbax: the whole carry, and what only grows in blocks that are each written once.

    checkpoints/state/<step>/       everything but the rows of the ring, an agent's replay; the last few are kept
    checkpoints/replay/<a>-<b>/     the ring's rows of steps a … b − 1

Orbax writes a directory aside and renames it, so a kill in the middle leaves the previous checkpoint whole. Runs that only
fill up a device are not saved: a job may go on with another number of devices.
"""

from __future__ import annotations

import re
import shutil
import time
from functools import partial
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from mbrl_taskmet.core.run_axis import RunAxis
from mbrl_taskmet.core.settings import ConfigError
from mbrl_taskmet.runner.rundir import CHECKPOINT_SHARE
from mbrl_taskmet.runner.snapshots import Arrays, PyTree, Snapshots, read, with_checksum, writing

Ring = dict[str, jax.Array]
"""Arrays (runs, rows, …) whose row of step t is t modulo the number of rows, which is one more than are kept."""
PIECE = 1024
"""Rows of the ring that are taken from a device at once."""
_UNFINISHED = "*.orbax-checkpoint-tmp*"


@runtime_checkable
class Trainer(Protocol):
    """What makes the carry of a job, which is all that a checkpoint holds."""

    @property
    def axis(self) -> RunAxis:
        """The runs of the carry, over devices."""

    @property
    def x64(self) -> bool:
        """Whether it computes in float64."""

    def init(self) -> Any:
        """A carry at the start, on its devices."""

    def blank(self) -> Any:
        """A carry of the same shapes, types and devices, whose numbers count for nothing."""

    def split(self, carry: Any) -> tuple[PyTree, Ring]:
        """What changes as a whole from step to step, and what only grows by a row each step; {} where nothing does."""

    def join(self, state: PyTree, ring: Ring, step: int) -> Any:
        """The inverse of `split`, at a step."""

    def upgrade(self, arrays: Arrays) -> Arrays:
        """The arrays of a checkpoint or a block that an earlier version wrote, by name, as today's."""


class Checkpoints:
    """The checkpoints of one job.

    Args:
        directory: where they are, created if need be.
        trainer: of the job they belong to.
        share: the largest part of the job's time that `due` lets checkpoints take.
        keep: how many are kept.
    """

    def __init__(self, directory: Path, trainer: Trainer, share: float = CHECKPOINT_SHARE, keep: int = 3):
        import orbax.checkpoint as ocp

        self._trainer, self._share = trainer, share
        self._blocks = directory.absolute() / "replay"
        self._state = Snapshots(directory / "state", keep)
        self._saved_steps = [_span(block)[1] for block in self._find_blocks()]
        mesh = trainer.axis.sharding.mesh
        self._here = {"devices": mesh.size, "platform": mesh.devices.flat[0].platform}
        self._checkpointer = ocp.StandardCheckpointer()
        self._cost, self._last = 0.0, time.monotonic()

    @property
    def latest(self) -> int | None:
        """The step of the newest checkpoint, or None."""
        return self._state.latest

    def due(self) -> bool:
        """Whether enough time has passed since the last checkpoint to pay for another."""
        return time.monotonic() - self._last >= self._cost / self._share

    def save(self, step: int, carry: Any) -> None:
        """Write the carry after `step` steps, and the ring's rows since the last checkpoint."""
        if step == self.latest:
            return
        begin = time.monotonic()
        with jax.enable_x64(self._trainer.x64):
            state, ring = self._trainer.split(carry)
            if ring:
                self._save_rows(step, ring)
            self._state.save(step, self._to_host(state), self._here)
        if ring:
            self._drop_blocks(step, _length(ring))
        self._last = time.monotonic()
        self._cost = self._last - begin

    def restore(self, with_ring: bool = True) -> tuple[int, Any]:
        """The newest checkpoint: (steps done, carry on its devices), whose ring is that of a new one unless `with_ring`.

        Removes nothing: the run may still be going on.

        Raises:
            ConfigError: there is none, it is damaged, or it belongs to another configuration.
        """
        if self.latest is None:
            raise ConfigError(f"{self._blocks.parent} holds no checkpoint; give the directory of a run to --resume")
        trainer = self._trainer
        with jax.enable_x64(trainer.x64):
            like, ring = trainer.split(trainer.blank())
            step, saved = self._state.restore(self._to_host(like), trainer.upgrade)
            placed = trainer.axis.to_devices(saved)
            state = jax.tree.map(lambda x, old: jax.random.wrap_key_data(x) if _is_key(old) else x, placed, like)
            self._saved_steps = [saved for saved in self._saved_steps if saved <= step]
            return step, trainer.join(state, self._fill(ring, step) if ring and with_ring else ring, step)

    def moved(self) -> str | None:
        """A sentence if the newest checkpoint was written on other devices; None if not, or if that is not known."""
        there = self._state.about(self.latest or 0)
        if not there.keys() >= self._here.keys() or there == self._here:
            return None
        was, now = (f"{known['devices']} {known['platform']} device(s)" for known in (there, self._here))
        return (
            f"so far the run was on {was}, now on {now}: its numbers may differ in the last digits from an uninterrupted run's"
        )

    def remove_unfinished(self) -> None:
        """Remove what a kill has left of checkpoints that were being written; no other process may be writing any."""
        for left in [*self._blocks.parent.glob(_UNFINISHED), *self._blocks.parent.glob(f"*/{_UNFINISHED}")]:
            shutil.rmtree(left)

    def _save_rows(self, step: int, ring: Ring) -> None:
        rows = _length(ring)
        first = max(self._saved_steps[-1] if self._saved_steps else 0, step - rows + 1)
        if first >= step:
            return
        for unfinished in self._find_blocks():  # of a run that stopped before it could write the state
            if _span(unfinished)[1] > first:
                shutil.rmtree(unfinished)
        pieces = [self._to_host(_piece(ring, jnp.int32(start))) for start in range(first, step, PIECE)]
        block = jax.tree.map(lambda *arrays: np.concatenate(arrays, axis=1)[:, : step - first], *pieces)
        self._write_block(f"{first}-{step}", with_checksum(block))

    def _fill(self, ring: Ring, step: int) -> Ring:
        """The ring before `step`, from its blocks one at a time."""
        rows = _length(ring)
        write = jax.jit(_set_rows, donate_argnums=0)
        done = oldest = max(0, step - rows + 1)
        for block in self._find_blocks():
            first, last = _span(block)
            if first > done or last > step or last <= oldest:
                continue
            arrays = self._trainer.upgrade(read(
                f"the replay block {block}", "restore it from a copy or start the run again",
                partial(self._checkpointer.restore, block),
            ))  # fmt: skip
            self._check_block(block, arrays, ring)
            keep = max(first, oldest)
            new = self._trainer.axis.to_devices({name: array[:, keep - first :] for name, array in arrays.items()})
            ring, done = write(ring, jnp.arange(keep, last) % rows, new), last
        if done < step:
            raise ConfigError(
                f"{self._blocks} lacks the replay of steps {done} to {step}; restore it from a copy or start the run again"
            )
        return ring

    def _check_block(self, block: Path, arrays: Arrays, ring: Ring) -> None:
        """Raise ConfigError unless a block holds the rows that its name says."""
        first, last = _span(block)
        wanted = {name: (self._trainer.axis.count, last - first, *row.shape[2:]) for name, row in ring.items()}
        if wanted != {name: array.shape for name, array in arrays.items()}:
            raise ConfigError(f"the replay block {block} does not hold the steps that its name says, or those of another run; "
                              "restore it from a copy or start the run again")  # fmt: skip

    def _to_host(self, tree: PyTree) -> PyTree:
        """The leaves without the runs that fill up a device, random keys as the integers they are."""
        return self._trainer.axis.to_host(jax.tree.map(lambda x: jax.random.key_data(x) if _is_key(x) else x, tree))

    def _find_blocks(self) -> list[Path]:
        found = self._blocks.iterdir() if self._blocks.exists() else ()
        done = [block for block in found if re.fullmatch("[0-9]+-[0-9]+", block.name)]
        return sorted(done, key=_span)

    def _write_block(self, name: str, arrays: Arrays) -> None:
        with writing(self._blocks / name):
            self._checkpointer.save(self._blocks / name, arrays, force=True)
            self._checkpointer.wait_until_finished()
        self._saved_steps.append(_span(self._blocks / name)[1])

    def _drop_blocks(self, step: int, rows: int) -> None:
        """Remove the blocks that no kept checkpoint needs any more."""
        oldest = min([*self._state.steps, step])
        for block in self._find_blocks():
            if _span(block)[1] <= oldest - rows + 1:
                shutil.rmtree(block)


def _span(block: Path) -> tuple[int, int]:
    first, last = block.name.split("-")
    return int(first), int(last)


def _length(ring: Ring) -> int:
    return int(next(iter(ring.values())).shape[1])


@jax.jit
def _piece(ring: Ring, start: jax.Array) -> Ring:
    """The `PIECE` rows from a step on: always as many, so that it compiles once."""
    rows = (start + jnp.arange(PIECE)) % _length(ring)
    return {name: array[:, rows] for name, array in ring.items()}


def _set_rows(ring: Ring, rows: jax.Array, values: Ring) -> Ring:
    return {name: array.at[:, rows].set(values[name]) for name, array in ring.items()}


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
