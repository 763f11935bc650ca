"""What the experiments share: settings × blocks of seeds, of which what is missing is run (`runs/blocks.py`).

Tables (`runs/report.py`) and pictures are made of the blocks that exist and, with `--output`, of the report there.

Settings on the command line hold for every line of the table: `python -m runs.capacity --seeds 2 --steps 2000 --x64`.
"""

from __future__ import annotations

import argparse
import fnmatch
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from mbrl_taskmet.core.run_axis import MOST_RUNS
from mbrl_taskmet.core.settings import ConfigError
from mbrl_taskmet.rl.settings import Settings
from mbrl_taskmet.runner.agent import run
from mbrl_taskmet.runner.command import Parser, check_counts, command, cores, start_jax
from mbrl_taskmet.runner.plotting import drawing
from mbrl_taskmet.runner.records import write_text
from runs import provenance
from runs.blocks import PER_BLOCK, blocks_of, check_block, planned, rows_of
from runs.report import Results, merged, read_report, read_runs, report, reported_settings
from runs.setting import Setting


@dataclass(frozen=True)
class Experiment:
    """Settings, the full size of the experiment, and what draws its results.

    Attributes:
        name: of its module.
        settings: the lines of its table.
        draw: (results, the directory to draw to, the blocks' directory).
        steps: environment steps of every seed.
        seeds: of every setting.
    """

    name: str
    settings: tuple[Setting, ...]
    draw: Callable[[Results, Path, Path], None]
    steps: int = 200_000
    seeds: int = 10


@command
def main(experiment: Experiment, argv: list[str] | None = None) -> int:
    """Run what is missing, then write the table and the pictures.

    The exit code is 0, 2 for bad input, and 128 + the signal's number for a block that was stopped: 130 after Ctrl-C.
    """
    given, rest = _parser(experiment).read(argv)
    options = argparse.Namespace(**rest)
    check_counts(options, "seeds", "steps", "block")
    if options.seeds > MOST_RUNS:
        raise ConfigError(f"--seeds is {options.seeds}; give {MOST_RUNS} or less")
    start_jax(min(options.seeds, options.block, cores()))
    chosen = _chosen(experiment, options.only)
    configs = {setting.name: setting.config | {**given, "steps": options.steps} for setting in chosen}
    earlier, runs = read_report(options.output) if options.output else ({}, {})
    if strange := earlier.keys() - {setting.name for setting in experiment.settings}:
        raise ConfigError(f"the report in {options.output} has a setting {min(strange)}, which runs.{experiment.name} does not "
                          "have; restore it, or give another --output")  # fmt: skip
    for setting in chosen:
        configs[setting.name].resolve()  # what cannot work is refused before anything is run
        for name in fnmatch.filter(runs, f"{setting.name}/*"):
            saved = reported_settings(options.output, runs[name], setting)
            check_block(options.output / name, saved, configs[setting.name], "--output")
        for directory, saved in blocks_of(options.logdir / setting.name):
            check_block(directory, saved, configs[setting.name], "--logdir")
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    for name, config in () if options.report else configs.items():
        from envs.make import environment_of  # here, because gymnax takes seconds, and a report needs none

        for block in planned(config, options.logdir / name, seeds, options.steps, options.block):
            if block.due:
                env = environment_of(block.config.resolve().environment)
                run(env, block.config, block.directory, go_on="give the same command again", say=partial(print, flush=True))
    found = {name: rows for name in configs if (rows := rows_of(options.logdir / name, seeds, options.steps))}
    if not found and not earlier:
        raise ConfigError(f"{options.logdir} holds no evaluation; leave out --report to run the experiment")
    output = options.output or options.logdir
    output.mkdir(parents=True, exist_ok=True)
    results = {s.name: merged(earlier.get(s.name, []), found.get(s.name, [])) for s in experiment.settings}
    results = {name: rows for name, rows in results.items() if rows}
    blocks = runs | read_runs(options.logdir, found)
    with drawing(output, "give the same command again, with --report"):  # first: a damaged file that it draws is refused
        experiment.draw(results, output, options.logdir)
    page = provenance.of_experiment(experiment.name, experiment.settings, given, results, blocks)
    report(experiment.settings, results, blocks, output)
    write_text(output / provenance.NAME, page)
    print((output / "table.md").read_text(encoding="utf-8"))
    return 0


def _parser(experiment: Experiment) -> Parser:
    parser = Parser(
        prog=f"python -m runs.{experiment.name}",
        epilog="A setting that is given holds for every line of the table; the defaults shown are the agents'.",
    )
    parser.add_argument("--seeds", type=int, default=experiment.seeds, help="seeds per setting (default: %(default)s)")
    parser.add_argument("--first-seed", type=int, default=0, help="number of the first seed (default: 0)")
    parser.add_argument("--steps", type=int, default=experiment.steps, help="environment steps per seed (default: %(default)s)")
    parser.add_argument("--block", type=int, default=10, help="most seeds per run (default: %(default)s)")
    parser.add_argument(
        "--only", action="extend", nargs="+", metavar="PATTERN", help="only the settings that match, such as 'taskmet-*'"
    )
    parser.add_argument("--report", action="store_true", help="run nothing; write the report of the finished runs")
    parser.add_argument("--logdir", type=Path, default=Path("runs/logs") / experiment.name, metavar="DIR",
                        help="directory of the runs (default: %(default)s)")  # fmt: skip
    parser.add_argument("--output", type=Path, metavar="DIR",
                        help="directory of the report, which is added to (default: the logdir)")  # fmt: skip
    parser.add_settings(Settings, leave_out=("suite", "env", *PER_BLOCK))
    return parser


def _chosen(experiment: Experiment, patterns: list[str] | None) -> list[Setting]:
    chosen = [s for s in experiment.settings if not patterns or any(fnmatch.fnmatch(s.name, p) for p in patterns)]
    if not chosen:
        names = ", ".join(setting.name for setting in experiment.settings)
        raise ConfigError(f"--only {' '.join(patterns or [])} is no setting; there are {names}")
    return chosen
