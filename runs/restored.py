"""What a run had learned, from its last checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agents.rundir import Run
    from mbrl_taskmet.rl.training import Carry


def restored(directory: Path, with_replay: bool = True) -> tuple[Run, Any, int, Carry]:
    """(run, method, step, carry) of a run's directory; the carry's leaves lead with the seeds, its replay may be left out.

    Raises:
        ConfigError: it holds no run, no checkpoint, or a damaged one.
    """
    from agents.options import parse
    from agents.rundir import resumed_run
    from envs.make import make_environment
    from mbrl_taskmet.runner.checkpoint import Checkpoints
    from mbrl_taskmet.rl.make import make_method
    from mbrl_taskmet.rl.training import Trainer

    run = resumed_run(parse(None, ["--resume", str(directory)]))
    env = make_environment(run.environment, run.distractors)
    method = make_method(env, run.config)
    return run, method, *Checkpoints(directory / "checkpoints", Trainer(env, method, run.config)).restore(with_replay)
