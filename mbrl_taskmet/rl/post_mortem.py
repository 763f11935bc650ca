"""What was not finite in an update that a run stopped at: step and seed repeat it, with every operation checked."""

from __future__ import annotations

import traceback
from typing import Any

import jax
from jax.experimental import checkify

from mbrl_taskmet.rl.single_run import Carry
from mbrl_taskmet.rl.training import Trainer


def failed_operation(trainer: Trainer, carry: Carry, index: int, step: int) -> str:
    """The first operation that gave NaN in the update at which a run failed, and its line, in a sentence.

    Args:
        trainer: of the runs.
        carry: where they are now.
        index: of the run that failed, among all.
        step: where they are now.
    """
    with jax.enable_x64(trainer.x64):
        one, numbers = jax.tree.map(lambda leaf: leaf[index], (carry, trainer.numbers))
        if step > one.replay.reward.shape[0] and one.failed_step + 1 < step:
            return "the replay of the update is overwritten, so it cannot be repeated; give a larger --replay-capacity"
        checked = checkify.checkify(trainer.run_with(numbers).failed_update, errors=checkify.float_checks)
        error, _ = jax.jit(checked)(one)
    if (found := error.get_exception()) is None:
        return "no operation gives NaN when the update is repeated: its numbers overflow"
    return f"first not a number: {getattr(found, 'prim', 'a division')} in {_line(found)}"


def _line(found: Any) -> str:
    """Where in code of ours or the user's an operation stands, the innermost line."""
    frames = traceback.extract_tb(found.traceback_info.as_python_traceback())
    own = [frame for frame in frames if "site-packages" not in frame.filename] or frames
    return f"{own[-1].name}, {own[-1].filename}:{own[-1].lineno}" if own else "a line that is not known"
