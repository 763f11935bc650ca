"""`python -m decision_tasks`: train the blocks of a configuration, with progress, records and checkpoints, or resume."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from decision_tasks.config import Block, Config
from decision_tasks.rundir import new_run, resumed_run
from mbrl_taskmet.config import ConfigError, flag, nearest

if TYPE_CHECKING:
    from decision_tasks.training import Trainer

_TYPES: dict[str, Any] = {"int": int, "float": float, "str": str}
_CHECKPOINT_SECONDS = 30.0
_MAX_CPU_DEVICES = 64


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; see --help")


def main(argv: list[str] | None = None) -> int:
    """Run the command; the exit code is 0, 2 for bad input, 130 after Ctrl-C."""
    try:
        options = _parse(argv)
        given = {field.name: getattr(options, field.name) for field in dataclasses.fields(Config) if field.name in options}
        if options.resume is not None:
            config, directory = resumed_run(options.resume, given, options.name, options.logdir)
        else:
            config, directory = new_run(given, options.name, options.logdir)
        return _run(config, directory)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = _Parser(
        prog="python -m decision_tasks",
        description="Train predictors for the decisions that are taken on them, and write Tables 2 and 3 of TaskMet.",
        allow_abbrev=False,
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=36, width=110),
    )
    for field in dataclasses.fields(Config):
        kind, choices = str(field.type).split(" ")[0], field.metadata.get("choices")
        default = "the task's own" if field.default is None else field.default
        help = f"{field.metadata['help']}{': ' + ', '.join(choices) if choices else ''} (default: {default})"
        metavar = {"int": "N", "float": "X"}.get(kind, "NAME")
        parser.add_argument(flag(field.name), type=_TYPES[kind], default=argparse.SUPPRESS, metavar=metavar, help=help)
    parser.add_argument("--name", help="name of the run's directory (default: made from the settings)")
    parser.add_argument("--logdir", metavar="DIR", help="where run directories go (default: runs/logs)")
    parser.add_argument("--resume", metavar="DIR", help="continue the run in DIR: finished blocks are kept, the others go on")
    options, unknown = parser.parse_known_args(argv)
    if unknown:
        flags = [name for action in parser._actions for name in action.option_strings]
        raise ConfigError(f"{unknown[0]!r} is no option; did you mean {nearest(unknown[0].split('=')[0], flags)}?")
    return options


def _run(config: Config, directory: Path) -> int:
    import jax

    # More devices than cores: runs stop at different times, and the operating system evens that out.
    with contextlib.suppress(RuntimeError):  # JAX has started already, in a program that calls this: use what it has
        jax.config.update("jax_num_cpu_devices", min(config.datasets * config.seeds, _MAX_CPU_DEVICES))
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str(Path.home() / ".cache" / "mbrl_taskmet"))

    from decision_tasks.make import make_method, make_task
    from decision_tasks.report import write_report
    from decision_tasks.training import Sizes, Trainer
    from mbrl_taskmet.recording import write_json

    tasks = {name: make_task(name, config) for name in dict.fromkeys(block.task for block in config.blocks)}
    try:
        directory.mkdir(parents=True, exist_ok=True)
        write_json(directory / "config.json", {"format": 1, "config": config.to_json()})
    except OSError as error:
        raise ConfigError(f"{directory} cannot be written ({error.strerror}); give another --logdir") from None
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
    from mbrl_taskmet.checkpoint import Snapshots
    from mbrl_taskmet.recording import Recorder, write_arrays, write_json

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
                carry = trainer.to_devices(host)
            recorder = Recorder(place, resume_at=done if snapshots.latest is not None else None)
            before = recorder.rows[-1]["wall_seconds"] if recorder.rows else 0.0
            bar.update(done)
            for iteration, after, report in trainer.run(carry, done):
                recorder.write(rows_of(report, iteration, trainer.sizes.seeds, before + time.monotonic() - begin))
                done, carry = iteration, after  # only now: an interruption saves what is on record
                if time.monotonic() - saved > _CHECKPOINT_SECONDS:
                    snapshots.save(done, trainer.only_runs(carry))
                    saved = time.monotonic()
                bar.set_postfix_str(f"{int(report.stopped.sum())} of {trainer.sizes.runs} runs stopped", refresh=False)
                bar.update(done - bar.n)
        recorder.close()
        result = trainer.finish(carry)
    except KeyboardInterrupt:
        if carry is not None:
            snapshots.save(done, trainer.only_runs(carry))
        return False
    write_arrays(place / "learned.npz", learned(trainer, result))
    write_json(place / "result.json", result_of(block, trainer, result, before + time.monotonic() - begin))
    return True
