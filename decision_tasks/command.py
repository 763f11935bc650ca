"""`python -m decision_tasks`: train the blocks of a configuration, with progress, records and checkpoints, or resume."""

from __future__ import annotations

import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from decision_tasks.config import Block, Config
from mbrl_taskmet.runner.command import Parser, check_same, command, free_directory, make_directory, saved_run, start_jax

if TYPE_CHECKING:
    from decision_tasks.training import Trainer

FORMAT = 1
"""Raised when the files of a run change their meaning."""
_CHECKPOINT_SECONDS = 30.0
_MAX_CPU_DEVICES = 64


@command
def main(argv: list[str] | None = None) -> int:
    """Run the command; the exit code is 0, 2 for bad input, 130 after Ctrl-C."""
    parser = Parser(
        prog="python -m decision_tasks",
        description="Train predictors for the decisions that are taken on them, and write Tables 2 and 3 of TaskMet.",
    )
    parser.add_config(Config, unset="the task's own")
    parser.add_directory(resume="continue the run in DIR: finished blocks are kept, the others go on")
    given, options = parser.read(argv, Config)
    directory, config = _open(given, **options)
    # More devices than cores: runs stop at different times, and the operating system evens that out.
    start_jax(min(config.datasets * config.seeds, _MAX_CPU_DEVICES))
    import jax

    with jax.enable_x64(config.x64):
        return _run(config, directory)


def _open(given: dict[str, Any], name: str | None, logdir: str | None, resume: str | None) -> tuple[Path, Config]:
    """The run's directory, which a new one has not made yet, and its configuration."""
    if resume is None:
        config = Config(**given).check()
        parts = ["decision", config.task, config.method, f"{config.datasets}x{config.seeds}"]
        said = {key: value for key, value in given.items() if key not in ("task", "method", "datasets", "seeds")}
        return free_directory(name, logdir, parts, said), config
    directory, config = saved_run(resume, name, logdir, FORMAT, lambda saved: Config(**saved["config"]).check())
    check_same(directory, given, config)
    return directory, config


def _run(config: Config, directory: Path) -> int:
    from decision_tasks.make import make_method, make_task
    from decision_tasks.report import write_report
    from decision_tasks.training import Sizes, Trainer
    from mbrl_taskmet.runner.records import write_json

    tasks = {name: make_task(name, config) for name in dict.fromkeys(block.task for block in config.blocks)}
    make_directory(directory, resumed=True)
    write_json(directory / "config.json", {"format": FORMAT, "config": config.to_json()})
    print(f"{directory}: {len(config.blocks)} block(s) of {config.datasets} data sets × {config.seeds} seeds", flush=True)
    sizes = Sizes(config.datasets, config.seeds, config.seed, config.steps)
    prepared: dict[tuple[str, str], Any] = {}  # by task and method: α changes nothing of it
    for block in config.blocks:
        place = directory / block.directory
        if (place / "result.json").exists():
            continue
        same = (block.task, block.method)
        trainer = Trainer(tasks[block.task], make_method(block, config), sizes, prepared.get(same))
        if not _train(block, trainer, place):
            print(f"to go on: python -m decision_tasks --resume {shlex.quote(str(directory))}", file=sys.stderr)
            return 130
        prepared = {same: trainer.common}
    print(write_report(config, directory))
    return 0


def _train(block: Block, trainer: Trainer, place: Path) -> bool:
    """Train a block to its `result.json`; False if it was interrupted, after a checkpoint."""
    from tqdm import tqdm

    from decision_tasks.report import learned, result_of, rows_of
    from mbrl_taskmet.runner.checkpoint import Snapshots
    from mbrl_taskmet.runner.records import Recorder, write_arrays, write_json

    place.mkdir(exist_ok=True)
    snapshots = Snapshots(place / "checkpoints")
    begin = saved = time.monotonic()
    done, before, carry = 0, 0.0, None
    try:
        with tqdm(total=trainer.iterations, unit="iteration", desc=f"{block.task} {block.label}", disable=None) as bar:
            if snapshots.latest is None:
                carry = trainer.init()
            else:
                done, host = snapshots.restore(trainer.shapes())
                carry = trainer.spread.to_devices(host)
            recorder = Recorder(place, resume_at=done if snapshots.latest is not None else None)
            before = recorder.rows[-1]["wall_seconds"] if recorder.rows else 0.0
            bar.update(done)
            for iteration, after, report in trainer.run(carry, done):
                recorder.write(rows_of(report, iteration, trainer.sizes.seeds, before + time.monotonic() - begin))
                done, carry = iteration, after  # only now: an interruption saves what is on record
                if time.monotonic() - saved > _CHECKPOINT_SECONDS:
                    snapshots.save(done, trainer.spread.to_host(carry))
                    saved = time.monotonic()
                bar.set_postfix_str(f"{int(report.stopped.sum())} of {trainer.sizes.runs} runs stopped", refresh=False)
                bar.update(done - bar.n)
        recorder.close()
        result = trainer.finish(carry)
    except KeyboardInterrupt:
        if carry is not None:
            snapshots.save(done, trainer.spread.to_host(carry))
        return False
    write_arrays(place / "learned.npz", learned(trainer, result))
    write_json(place / "result.json", result_of(block, trainer, result, before + time.monotonic() - begin))
    return True
