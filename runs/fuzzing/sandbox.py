"""Where cases happen: a directory with runs to damage, files that nobody may touch, and a library that stops before training.

    cwd/      the working directory
    canary/   files beside it
    base/     a finished and an interrupted run of an agent, the same of a decision task, a report, files of data
    case/     the copies that a case mutates, emptied before the next

A run of the settings of one in `base` is driven to its end, by the programs that were compiled for that. Any other ends where
it would be driven: after all checks, with its directory made, but nothing restored. What the program of a chunk needs beyond
the carry is left out where memory is checked, for tracing takes a second. Pictures are laid out, not rendered.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import resource
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from mbrl_taskmet.runner.records import write_json
from mbrl_taskmet.runner.rundir import to_json
from runs.fuzzing.judging import Cut

AGENT = ["--env", "Walk", "--distractors", "2", "--steps", "300", "--eval-every", "100", "--eval-episodes", "1",
         "--random-steps", "40", "--batch-size", "16", "--metric-warmup", "40", "--model-hidden", "4", "--q-hidden",
         "4"]  # fmt: skip
CELL = ["--task", "cubic", "--method", "dfl", "--items", "4", "--datasets", "2", "--seeds", "1", "--train", "8",
        "--validation", "4", "--test", "4", "--steps", "20"]  # fmt: skip
CLOCK = ("wall_time", "wall_seconds", "time/steps_per_second")
DAYS = 90
SPARE_BYTES = 8_000_000_000
"""What cases may take beyond what the process has."""


class Sandbox:
    """The directory of all cases; see the module.

    Args:
        root: empty.

    Attributes:
        case: where a case may write.
        base: what it may copy.
        canary: nobody's.
        cwd: the working directory.
    """

    def __init__(self, root: Path):
        self.root, self.case, self.canary, self.cwd, self.base = (
            root, root / "case", root / "canary", root / "cwd", root / "base",
        )  # fmt: skip
        for folder in (self.case, self.canary, self.cwd, self.base):
            folder.mkdir()
        for folder in (self.canary, self.cwd):
            (folder / "keep").write_text("nobody's\n")
        self._programs: dict[str, Any] = {}
        self._complete = False

    def fresh(self) -> None:
        """Remove what the last case has left."""
        for folder in (self.case, self.cwd):
            shutil.rmtree(folder)
            folder.mkdir()
        (self.cwd / "keep").write_text("nobody's\n")
        os.chdir(self.cwd)

    def copy(self, name: str) -> Path:
        """A copy of something in `base`, to mutate."""
        source, target = self.base / name, self.case / name
        return Path(shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target))

    @contextlib.contextmanager
    def entered(self) -> Iterator[Sandbox]:
        """Be in the sandbox, with the library that does not train for long, and everything there to be mutated."""
        where = Path.cwd()
        with contextlib.ExitStack() as stack:
            for patch in self._patches():
                stack.enter_context(patch)
            stack.callback(os.chdir, where)
            self.fresh()
            self._make()
            stack.enter_context(_bounded_memory())
            yield self

    def _patches(self) -> Iterator[Any]:
        """Programs are compiled once, pictures are not rendered, and memory is predicted from the carry alone."""
        from decision_tasks import job
        from decision_tasks.training import CellTrainer
        from mbrl_taskmet.rl.training import Trainer
        from mbrl_taskmet.runner import agent, memory, plotting
        from mbrl_taskmet.runner.loop import drive

        class Kept(Trainer):
            def compile(self) -> float:
                return 0.0 if self.compiled else super().compile()

        class KeptCell(CellTrainer):
            ready = False

            def compile(self) -> None:
                if not self.ready:
                    super().compile()
                self.ready = True

        def kept(key: str, make: Callable[[], Any]) -> Any:
            if self._complete:
                return self._programs.get(key) or make()
            return self._programs.setdefault(key, make())

        def trainer(env: Any, method: Any, settings: Any, over: Any) -> Any:
            named = repr((env.name, type(method), dict(settings.names), over.axes))
            return kept(named, lambda: Kept(env, method, settings, over=over))

        def cell_trainer(cell: Any, common: Any = None) -> Any:
            return kept(repr((cell.names, cell.task.inputs)), lambda: KeptCell(cell, common))

        def driven(job: Any, *args: Any, **options: Any) -> Any:
            if not any(job.trainer is program for program in self._programs.values()):
                raise Cut
            return drive(job, *args, **options)

        yield mock.patch.object(agent, "Trainer", trainer)
        yield mock.patch.object(job, "CellTrainer", cell_trainer)
        yield mock.patch.object(agent, "drive", driven)
        yield mock.patch.object(job, "drive", driven)
        yield mock.patch.object(memory, "least_bytes", lambda trainer: 0)
        yield mock.patch.object(plotting, "save", lambda figure, path: path.touch())

    def _make(self) -> None:
        """What cases mutate."""
        from agents.command import main
        from decision_tasks.command import main as decide
        from mbrl_taskmet.runner.checkpoint import Checkpoints

        place = ["--logdir", str(self.base), "--name"]
        every = mock.patch.object(Checkpoints, "due", lambda checkpoints: True)
        with every, _silence() as said:
            codes = main(None, [*AGENT, *place, "agent"]), decide([*CELL, *place, "cell"])
        if any(codes):
            raise RuntimeError(f"the runs to be mutated end with {codes}: {said.getvalue()}")
        shutil.copytree(self.base / "agent", self.base / "interrupted")
        for path in ("state/300", "replay/200-300"):
            shutil.rmtree(self.base / "interrupted" / "checkpoints" / path)
        shutil.copytree(self.base / "cell", self.base / "undecided")
        for name in ("result.json", "learned.npz"):
            next((self.base / "undecided").glob(f"*/{name}")).unlink()
        self._make_data()
        self._make_report()
        self._complete = True

    def _make_data(self) -> None:
        import numpy as np

        random = np.random.default_rng(0)
        prices = 100 * np.exp(np.cumsum(0.01 * random.standard_normal((DAYS, 3)), axis=0))
        dates = np.datetime64("2024-01-01") + np.arange(DAYS)
        lines = [f"{date},{','.join(f'{price:.2f}' for price in row)}" for date, row in zip(dates, prices, strict=True)]
        (self.base / "prices.csv").write_text("\n".join(["date,AAA,BBB,CCC", *lines]) + "\n")
        rates = random.uniform(0, 0.2, (6, 12))
        np.savetxt(self.base / "rates.csv", rates, delimiter=",", fmt="%.4f")
        np.savez(self.base / "rates.npz", rates=rates)

    def _make_report(self) -> None:
        """Blocks of two experiments, and the reports that they give."""
        from runs import distractors, solvers

        for experiment, name in ((distractors.EXPERIMENT, "taskmet-16"), (solvers.EXPERIMENT, "minres-5")):
            setting = next(one for one in experiment.settings if one.name == name)
            settings = (setting.config | {"steps": 2000, "seeds": 2}).resolve()
            block = self.base / "logs" / experiment.name / name / "seeds0-1"
            block.mkdir(parents=True)
            write_json(block / "config.json", to_json(settings.names))
            rows = [{"step": step, "seed": seed, "eval/return": 10.0 * seed + step / 100, "train/model_mse_state": 0.5,
                     "metric/diagonal": [1.0] * (4 + setting.distractors)}
                    for step in (1000, 2000) for seed in (0, 1)]  # fmt: skip
            (block / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
            keys = ("seeds", "env_steps", "wall_seconds", "steps_per_second", "device", "versions", "failures")
            made_by = {"device": {"kind": "cpu", "count": 1, "machine": "x86_64"}, "versions": {"jax": "0.10.2"}}
            write_json(block / "summary.json", dict.fromkeys(keys, 1) | made_by)
            output = self.base / "reports" / experiment.name
            output.mkdir(parents=True)
            _write_extra(output, experiment.name)
            with _silence():
                from runs.experiment import main

                logdir = self.base / "logs" / experiment.name
                if main(experiment, ["--report", "--logdir", str(logdir), "--output", str(output)]):
                    raise RuntimeError(f"the report of {experiment.name} to be mutated fails")


@contextlib.contextmanager
def _bounded_memory() -> Iterator[None]:
    """What would take all of the machine's memory is a MemoryError of the case's instead of the end of this process."""
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (now + SPARE_BYTES, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


@contextlib.contextmanager
def _silence() -> Iterator[io.StringIO]:
    """What is said instead of saying it."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        yield said


def _write_extra(output: Path, name: str) -> None:
    """The file of measurements that an experiment keeps beside its report."""
    from runs import distractors, solvers
    from runs.tables import write_csv

    if name == "solvers":
        lines = [{"solver": solver, "products": 5, "residual": "0.1", "cosine": "0.9", "signal": "1.5", "ms": "2.0"}
                 for solver in solvers.SOLVERS]  # fmt: skip
        write_csv(output / "gradients.csv", lines)
    else:
        weights = " ".join(["1.5"] * 20)
        units = dict.fromkeys(distractors.UNITS, weights)
        write_csv(output / "weights.csv.gz", [{"setting": "taskmet-16", "seed": seed, **units} for seed in (0, 1)])
