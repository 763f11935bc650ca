"""A sweep over many processes or machines: `python -m runs.sweep --grid grid.yaml`.

The grid's combinations × blocks of seeds (`runs/blocks.py`) are trained in processes of this machine, by Ray on this one or
on a cluster, or as jobs of Slurm. A block that fails goes on from its last checkpoint, and the same command trains only what
is missing. At the end the table is made of the blocks' records.
"""

from __future__ import annotations

import argparse
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from mbrl_taskmet.core.settings import ConfigError
from mbrl_taskmet.runner.command import Parser, check_counts, command
from mbrl_taskmet.runner.signals import Stopped, StopSignal
from runs.sweeping.status import status, write_plan

if TYPE_CHECKING:
    from mbrl_taskmet.rl.environment import Environment, EnvironmentSettings
    from mbrl_taskmet.rl.settings import Config, Settings
    from runs.blocks import Block
    from runs.sweeping.grid import Grid


@command
def main(argv: list[str] | None = None) -> int:
    """Train what is missing of a grid and write the table, or show its progress.

    The exit code is 0, 1 if a block failed, 2 for bad input, and 128 + the signal's number if the sweep was stopped.
    """
    options = _read(argv)
    if options.status is not None:
        print(status(options.status))
        return 0
    from runs.sweeping.driver import train_all
    from runs.sweeping.engines import ENGINES, Ask
    from runs.sweeping.grid import read_grid

    grid = read_grid(options.grid, _resolve)
    directory = options.logdir or Path("runs/logs") / options.grid.stem
    blocks = _planned(grid, directory, options.block or (len(grid.seeds) if options.gpus else 5 * options.cpus))
    due = [block for block in blocks if block.due]
    print(f"{len(grid.combinations)} combinations × {len(grid.seeds)} seeds in {directory}: {len(due)} of {len(blocks)} blocks "
          "are to be trained", flush=True)  # fmt: skip
    failed: dict[Path, str] = {}
    if due:
        ask = Ask(directory.absolute(), options.workers, options.cpus, options.gpus, options.address)
        with ENGINES[options.engine](ask) as engine, StopSignal("stopped; to go on, give the same command again") as stop:
            with stop.patient():
                failed = train_all(due, engine, options.cpus, options.gpus, options.retries, stop)
            if stop:
                raise Stopped("stopped; to go on, give the same command again", stop.number)
    _report(grid, directory)
    for block, reason in failed.items():
        print(f"{block} failed: {reason}", file=sys.stderr)
    return 1 if failed else 0


def _read(argv: list[str] | None) -> argparse.Namespace:
    """The options, checked."""
    parser = Parser(
        prog="python -m runs.sweep",
        description="Train every combination of a grid's settings with every seed, in many processes or on many machines.",
        epilog="A grid file is YAML: {settings: {steps: 20000}, grid: {method: [mle, taskmet], metric_lr: [1e-3, 3e-3]}, "
               "seeds: 10}, settings for all, values of which every combination is trained, and the seeds of each. "
               "Give the same command again to go on with what is missing. On Slurm, partition and time limit are "
               "SBATCH_PARTITION and SBATCH_TIMELIMIT.",
    )  # fmt: skip
    parser.add_argument("--grid", type=Path, metavar="FILE", help="the grid file")
    parser.add_argument("--status", type=Path, metavar="DIR", help="show the progress of the sweep in DIR, without training")
    parser.add_argument("--logdir", type=Path, metavar="DIR",
                        help="directory of the runs and the table, shared by all machines (default: runs/logs/NAME of the "
                             "grid's file)")  # fmt: skip
    parser.add_argument("--engine", choices=("processes", "ray", "slurm"),
                        help="what starts the processes (default: processes; ray with --address)")  # fmt: skip
    parser.add_argument("--address", metavar="HOST:PORT", help="address of a running Ray cluster, as ray start prints it")
    parser.add_argument("--workers", type=int, metavar="N", help="most blocks at a time (default: as many as fit)")
    parser.add_argument("--cpus", type=int, default=1, metavar="N", help="CPU cores per block (default: %(default)s)")
    parser.add_argument("--gpus", type=float, default=0, metavar="X", help="GPUs per block, such as 1 or 0.5 (default: 0)")
    parser.add_argument("--block", type=int, metavar="N",
                        help="most seeds per block (default: 5 for each of its cores; on a GPU all of them)")  # fmt: skip
    parser.add_argument("--retries", type=int, default=2, metavar="N",
                        help="retries of a block that fails, each from its last checkpoint (default: 2)")  # fmt: skip
    options = argparse.Namespace(**parser.read(argv)[1])
    if (options.grid is None) == (options.status is None):
        raise ConfigError("--grid or --status is missing; give a grid file to train, or the directory of a sweep to look at"
                          if options.grid is None else "--status trains nothing; leave --grid or --status out")  # fmt: skip
    check_counts(options, *(name for name in ("workers", "cpus", "block") if getattr(options, name) is not None))
    if not 0 <= options.retries <= 1000:
        raise ConfigError(f"--retries is {options.retries}; give a number from 0 to 1000")
    if not 0 <= options.gpus <= 1024 or (options.gpus > 1 and options.gpus % 1):
        raise ConfigError(f"--gpus is {options.gpus}; give a whole number, or a part of one GPU")
    options.engine = options.engine or ("ray" if options.address else "processes")
    if options.address and options.engine != "ray":
        raise ConfigError(f"--address {options.address} does nothing for --engine {options.engine}; leave it out")
    if options.gpus and options.engine == "processes":
        raise ConfigError(f"--gpus {options.gpus:g} does nothing for --engine processes; use --engine ray, which divides GPUs")
    if options.gpus % 1 and options.engine == "slurm":
        raise ConfigError(f"--gpus is {options.gpus}; give a whole number to --engine slurm")
    return options


def _resolve(config: Config) -> Settings:
    """The complete settings of a configuration; the actions of its environment choose the critic."""
    from mbrl_taskmet.rl.training import resolved
    from runs.sweeping.worker import take_device

    take_device(cpus=1, gpus=0)  # the accelerators are for the blocks
    return resolved(_environment(config.resolve().environment), config)


@cache
def _environment(settings: EnvironmentSettings) -> Environment:
    from envs.make import environment_of

    return environment_of(settings)


def _planned(grid: Grid, directory: Path, most: int) -> list[Block]:
    """All blocks of a grid, noted in the sweep's directory for `--status`.

    Raises:
        ConfigError: a block that is there has other settings, or the directory cannot be written.
    """
    from runs.blocks import blocks_of, check_block, planned

    blocks: list[Block] = []
    for combination in grid.combinations:
        folder, config = directory / combination.name, combination.config
        for path, saved in blocks_of(folder):
            check_block(path, saved, config, "--logdir")
        blocks += planned(config, folder, grid.seeds, config.resolve().steps, most)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        write_plan(directory, {str(b.directory.relative_to(directory)): b.config.given["steps"] for b in blocks})
    except OSError as error:
        raise ConfigError(f"{directory} cannot be written ({error.strerror}); give another --logdir") from None
    return blocks


def _report(grid: Grid, directory: Path) -> None:
    """Write and show the table, of what is there."""
    from runs.blocks import rows_of
    from runs.report import read_runs, report

    steps = {combination.name: combination.config.resolve().steps for combination in grid.combinations}
    results = {name: rows for name in steps if (rows := rows_of(directory / name, grid.seeds, steps[name]))}
    if results:
        report(grid.combinations, results, read_runs(directory, results), directory)
        print((directory / "table.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    sys.exit(main())
