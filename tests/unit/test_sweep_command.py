"""`python -m runs.sweep`: grid files, the loop over blocks, the status, and workers and sweeps that are killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from mbrl_taskmet import Config
from mbrl_taskmet.core.settings import ConfigError
from mbrl_taskmet.runner.claim import claimed, is_held
from mbrl_taskmet.runner.records import read_rows
from mbrl_taskmet.runner.rundir import to_json
from mbrl_taskmet.runner.signals import StopSignal
from runs.blocks import Block
from runs.sweep import _resolve, main
from runs.sweeping import engines
from runs.sweeping.driver import train_all
from runs.sweeping.engines import Ask, Engine, Order, processes
from runs.sweeping.grid import Grid, read_grid
from runs.sweeping.status import failure_of, status, write_plan
from runs.sweeping.worker import train_block
from tests.records import timeless

TINY = {"env": "Walk", "method": "mle", "steps": 1500, "eval_every": 50, "eval_episodes": 1, "random_steps": 64,
        "batch_size": 32}  # fmt: skip
TABLE = """settings: {env: Walk, steps: 2000}
grid: {method: [mle, taskmet], metric_lr: [0.1]}
seeds: 3
"""


def grid(tmp_path: Path, text: str) -> Grid:
    path = tmp_path / "grid.yaml"
    path.write_text(text)
    return read_grid(path, lambda config: config.resolve())


def test_a_swept_setting_is_left_out_where_it_does_nothing_and_what_is_the_same_is_one(tmp_path: Path) -> None:
    found = grid(
        tmp_path,
        """
settings: {env: Acrobot-v1, steps: 2000, --distractors: 8, seed: 5}
grid: {method: [mle, taskmet], metric-lr: [1e-3, 0.003, 0.0030], metric_input: [state], metric_hidden: [[4, 4], null]}
seeds: 3
""",
    )
    assert found.seeds == range(5, 8)
    assert [combination.name for combination in found.combinations] == [
        "method-mle",
        "method-taskmet_metric-lr-0.001_metric-input-state_metric-hidden-4,4",
        "method-taskmet_metric-lr-0.001_metric-input-state_metric-hidden-default",
        "method-taskmet_metric-lr-0.003_metric-input-state_metric-hidden-4,4",
        "method-taskmet_metric-lr-0.003_metric-input-state_metric-hidden-default",
    ]
    shared = {"env": "Acrobot-v1", "distractors": 8, "steps": 2000}
    assert found.combinations[0].config.given == shared | {"method": "mle"}
    metric = {"method": "taskmet", "metric_lr": 1e-3, "metric_input": "state", "metric_hidden": [4, 4]}
    assert found.combinations[1].config.given == shared | metric


def test_the_actions_of_the_environment_say_what_has_a_place(tmp_path: Path) -> None:
    (tmp_path / "grid.yaml").write_text("grid: {env: [CartPole-v1, Pendulum-v1], method: [mle], temperature_lr: [0.1]}")
    names = [combination.name for combination in read_grid(tmp_path / "grid.yaml", _resolve).combinations]
    assert names == ["env-CartPole-v1_method-mle", "env-Pendulum-v1_method-mle_temperature-lr-0.1"]


def test_settings_alone_are_one_combination_and_long_names_are_cut_and_differ(tmp_path: Path) -> None:
    found = grid(tmp_path, "settings: {steps: 2000}")
    assert [combination.name for combination in found.combinations] == ["all"] and found.seeds == range(10)
    long = ", ".join(["4"] * 100)
    names = [
        c.name
        for c in grid(tmp_path, f"grid: {{metric_input: [state], metric_hidden: [[{long}, 5], [{long}, 6]]}}").combinations
    ]
    assert len(set(names)) == 2 and all(len(name) < 200 for name in names)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "it is no YAML in line 1 ("),
        ("a: \x00", "it is no YAML ("),
        ("[" * 5000, "it is no YAML"),
        ("- 1", "the file is [1]; give names with values"),
        ("", "the file is None; give names with values"),
        ("grids: {}", "'grids' is no part of a grid; did you mean 'grid'?"),
        ("settings: 3", "settings is 3; give names with values"),
        ("settings: {1: 2}", "settings is {1: 2}; give names with values"),
        ("settings: {metric_rl: 1}", "'metric_rl' is no setting; did you mean 'metric_lr'?"),
        ("settings: {steps: 2000, steps: 1000}", "it is no YAML in line 1 ('steps' stands there twice)"),
        ("grid: {metric-lr: [1], metric_lr: [2]}", "metric_lr is given twice in grid"),
        ("settings: {metric_lr: 1}\ngrid: {metric_lr: [2]}", "metric_lr is in both settings and grid"),
        ("grid: {metric_lr: 1}", "metric_lr in grid is 1; give a list of values"),
        ("grid: {metric_lr: []}", "metric_lr in grid is []; give a list of values"),
        ("grid: {metric_lr: [fast]}", "--metric-lr is 'fast'; give a number"),
        ("grid: {metric_lr: [.inf]}", "--metric-lr is inf; give "),
        ("grid: {method: [mle, omdd]}", "--method 'omdd' is unknown; did you mean 'omd'?"),
        ("grid: {method: [2020-01-01]}", "--method datetime.date(2020, 1, 1) is unknown"),
        ("grid: {method: [mle], metric_lr: [1]}", "--metric-lr 1 does nothing for --method mle"),
        ("settings: {metric_lr: 1}\ngrid: {method: [mle, taskmet]}", "or move it to grid, as a list"),
        ("settings: {steps: 2500}", "--steps 2500 is no multiple of --eval-every 1000"),
        ("settings: {env: 'os:system'}", "os:system is code of a module, and a file does not decide what code runs"),
        ("grid: {env: ['os:system']}", "os:system is code of a module"),
        ("x: !!python/object/apply:os.getpid []", "it is no YAML in line 1 (could not determine a constructor"),
        ("seeds: 0", "seeds is 0; give a whole number from 1 to 1048576"),
        ("seeds: [1]", "seeds is [1]; give a whole number"),
        ("settings: {seed: -1}", "--seed is -1; give 0 or more"),
        ("settings: {seeds: 2}", "give seeds: N beside them"),
        ("grid: {seed: [1, 2]}", "give seeds: N beside them"),
        (f"grid: {{metric_lr: {list(range(101))}, model_lr: {list(range(101))}}}", "the grid has 10201 combinations"),
    ],
)
def test_a_grid_that_cannot_work_is_refused_in_a_sentence(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        grid(tmp_path, text)
    assert message in str(refused.value) and str(refused.value).startswith(str(tmp_path / "grid.yaml"))


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "--grid or --status is missing"),
        (["--grid", "a", "--status", "b"], "--status trains nothing; leave --grid or --status out"),
        (["--grid", "none.yaml"], "none.yaml: it is no YAML (it is no regular file)"),
        (["--status", "none"], "none holds no sweep"),
        (["--grid", "a", "--workers", "0"], "--workers is 0; give 1 or more"),
        (["--grid", "a", "--retries", "-1"], "--retries is -1; give a number from 0 to 1000"),
        (["--grid", "a", "--gpus", "1.5"], "--gpus is 1.5; give a whole number, or a part of one GPU"),
        (["--grid", "a", "--gpus", "nan"], "--gpus is nan; give a whole number"),
        (["--grid", "a", "--gpus", "1"], "--gpus 1 does nothing for --engine processes"),
        (["--grid", "a", "--gpus", "0.5", "--engine", "slurm"], "--gpus is 0.5; give a whole number to --engine slurm"),
        (["--grid", "a", "--engine", "slurm", "--address", "b"], "--address b does nothing for --engine slurm"),
        (["--grid", "a", "--engine", "dask"], "invalid choice: 'dask'"),
    ],
)
def test_a_command_that_cannot_work_is_refused(argv: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_without_its_extra_an_engine_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, library in (("ray", "ray"), ("slurm", "submitit")):
        monkeypatch.setitem(sys.modules, library, None)
        refused = pytest.raises(ConfigError, match=f"--engine {name} needs .*; install the extra: pip install '.\\[{name}]'")
        with refused, engines.ENGINES[name](Ask(tmp_path)):
            pass


@pytest.mark.parametrize("address", ["here", "auto", "ray://here:1", "here:", "here:0", ":1", "127.0.0.1:1"])
def test_an_address_that_is_none_is_refused_at_once(address: str) -> None:
    with pytest.raises(ConfigError, match=r"give HOST:PORT|127\.0\.0\.1:1 does not answer"):
        engines._check_answers(address)


def row(step: int, seconds: float) -> str:
    return json.dumps({"step": step, "seed": 0, "wall_seconds": seconds}) + "\n"


def test_the_status_is_made_of_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    blocks = {name: tmp_path / "a" / name for name in ("done", "more", "failed", "running", "cut", "new", "damaged")}
    for name, directory in blocks.items():
        if name != "new":
            directory.mkdir(parents=True)
            (directory / "config.json").write_text("{}")
            (directory / "metrics.jsonl").write_text(row(100, 10.0) + row(200, 20.0))
    write_plan(tmp_path, {f"a/{name}": 1000 for name in blocks})
    for name, steps in (("done", 1000), ("more", 500)):
        (blocks[name] / "summary.json").write_text(json.dumps({"env_steps": steps, "wall_seconds": steps / 10}))
    (blocks["damaged"] / "metrics.jsonl").write_text("{}\n{}\n")
    failure_of(blocks["failed"]).write_text("OSError: no room\n\nTraceback\n")
    (blocks["cut"] / ".lock").touch()  # of a process that was killed, long ago
    os.utime(blocks["cut"] / "metrics.jsonl", (0, 0))
    with claimed(blocks["running"], {}):
        assert main(["--status", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    # 800 steps are left of three blocks, and 1000 of one, at a tenth of a second each, and one block runs at a time
    assert lines[0] == "7 blocks: 1 done, 1 running, 2 failed, 3 waiting; about 6 minutes left"
    assert lines[1] == "running  a/running, step 200 of 1000"
    assert lines[2] == "failed   a/failed, step 200 of 1000: OSError: no room"
    assert lines[3].startswith(f"failed   a/damaged, step 0 of 1000: {blocks['damaged']}/metrics.jsonl is damaged in line 1")
    assert lines[4:] == ["waiting  a/more, step 200 of 1000", "waiting  a/cut, step 200 of 1000"]
    assert "4 waiting; nothing runs; give the command of the sweep again" in status(tmp_path)
    (blocks["cut"] / "metrics.jsonl").touch()  # a machine whose locks are not seen here
    assert "running  a/cut, step 200 of 1000" in status(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", '{"blocks": []}', '{"blocks": {"a": 0}}', '{"blocks": {"a": "1"}}'])
def test_a_damaged_plan_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "sweep.json").write_text(text)
    with pytest.raises(ConfigError, match=r"sweep\.json is damaged \(.*give the command of the sweep again"):
        status(tmp_path)


class Scripted:
    """A task that ends as it is told, when it is looked at a second time."""

    def __init__(self, reason: str):
        self.reason, self.looks, self.cancelled = reason, 0, False

    def done(self) -> bool:
        self.looks += 1
        return self.looks > 1

    def result(self) -> str:
        return self.reason

    def cancel(self) -> None:
        self.cancelled = True


def drive(tmp_path: Path, reasons: dict[str, list[str]], stop: Any = False) -> tuple[dict[Path, str], list[str], int]:
    """(what failed, what was started in order, the most at a time) where blocks end for the given reasons, one a try."""
    blocks = [Block(tmp_path / "a" / name, Config(steps=1000), True) for name in reasons]
    started: list[str] = []
    tasks: list[Scripted] = []
    most = 0

    def start(order: Order) -> Scripted:
        nonlocal most
        name = Path(order[0]).name
        assert order == (str(tmp_path / "a" / name), {"steps": 1000}, 2, 0.5)
        started.append(name)
        tasks.append(Scripted(reasons[name].pop(0)))
        most = max(most, sum(task.looks < 2 for task in tasks))
        return tasks[-1]

    return train_all(blocks, Engine(start, 2), 2, 0.5, retries=1, stop=stop), started, most


def test_blocks_that_fail_are_tried_again_and_those_that_go_on_failing_are_told(tmp_path: Path) -> None:
    reasons = {"good": [""], "once": ["lost", ""], "bad": ["lost", "OSError: no room\n\nTraceback"], "last": [""]}
    (tmp_path / "a").mkdir()
    failure_of(tmp_path / "a" / "good").write_text("of an earlier time")
    failed, started, most = drive(tmp_path, reasons)
    assert failed == {tmp_path / "a" / "bad": "OSError: no room"}
    assert started == ["good", "once", "bad", "last", "once", "bad"] and most == 2
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["bad.failed"]
    assert failure_of(tmp_path / "a" / "bad").read_text() == "OSError: no room\n\nTraceback\n"


def test_a_sweep_that_is_stopped_starts_nothing_more_and_nothing_has_failed(tmp_path: Path) -> None:
    stop: list[int] = []  # true once it is not empty

    class Stop(list):
        def __bool__(self) -> bool:
            return bool(stop)

    reasons = {"one": ["stopped at step 10"], "two": ["stopped at step 20"], "three": [""]}
    blocks = [Block(tmp_path / name, Config(), True) for name in reasons]
    tasks: list[Scripted] = []

    def start(order: Order) -> Scripted:
        tasks.append(Scripted(reasons[Path(order[0]).name].pop(0)))
        if len(tasks) == 2:
            stop.append(1)
        return tasks[-1]

    assert train_all(blocks, Engine(start, 2), 1, 0, retries=1, stop=Stop()) == {}  # type: ignore[arg-type]
    assert len(tasks) == 2 and all(task.cancelled for task in tasks) and not list(tmp_path.iterdir())


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The blocks that an engine started which leaves what finished runs would; with a file `bad`, later seeds fail."""
    names: list[str] = []

    def start(order: Order) -> Scripted:
        directory, settings = Path(order[0]), Config(**order[1]).resolve()
        names.append("/".join(directory.parts[-2:]))
        if (directory.parents[1] / "bad").exists() and settings.seed:
            return Scripted("no luck")
        directory.mkdir(parents=True)
        seeds = range(settings.seed, settings.seed + settings.seeds)
        rows = [{"step": 2000, "seed": seed, "eval/return": 10.0 * seed, "train/model_mse_state": 0.5} for seed in seeds]
        (directory / "config.json").write_text(json.dumps(to_json(settings.names)))
        (directory / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        known = dict.fromkeys(("seeds", "wall_seconds", "steps_per_second", "failures"), 1) | {"env_steps": 2000}
        made_by = {"device": {"kind": "cpu", "count": 1, "machine": "x86_64"}, "versions": {"jax": "0.10.2"}}
        (directory / "summary.json").write_text(json.dumps({**known, **made_by}))
        return Scripted("")

    @contextmanager
    def engine(ask: Ask) -> Iterator[Engine]:
        yield Engine(start, ask.workers)

    monkeypatch.setitem(engines.ENGINES, "processes", engine)
    return names


def test_the_table_is_made_of_all_blocks_and_only_what_is_missing_is_trained(
    tmp_path: Path, started: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "grid.yaml").write_text(TABLE)
    logs = tmp_path / "logs"
    argv = ["--grid", str(tmp_path / "grid.yaml"), "--logdir", str(logs), "--block", "2", "--retries", "0"]
    logs.mkdir()
    (logs / "bad").touch()
    names = ["method-mle", "method-taskmet_metric-lr-0.1"]
    assert main(argv) == 1
    printed = capsys.readouterr()
    assert "2 combinations × 3 seeds" in printed.out and "4 of 4 blocks are to be trained" in printed.out
    assert printed.err.splitlines() == [f"{logs}/{name}/seeds2-2 failed: no luck" for name in names]
    assert "| method-mle | 2 | 2000 | 5.00 ± 5.00 |" in (logs / "table.md").read_text()
    told = status(logs).splitlines()
    assert told[0] == "4 blocks: 2 done, 0 running, 2 failed, 0 waiting; nothing runs"
    assert told[1:] == [f"failed   {name}/seeds2-2, step 0 of 2000: no luck" for name in names]

    (logs / "bad").unlink()
    started.clear()
    assert main(argv) == 0
    assert started == [f"{name}/seeds2-2" for name in names]
    assert "| method-taskmet_metric-lr-0.1 | 3 | 2000 | 10.00 ±" in (logs / "table.md").read_text()
    assert status(logs) == "4 blocks: 4 done, 0 running, 0 failed, 0 waiting; nothing is left"
    assert main(argv) == 0 and len(started) == 2

    (tmp_path / "grid.yaml").write_text(TABLE.replace("steps: 2000", "steps: 2000, model_lr: 0.1"))
    assert main(argv) == 2
    assert "seeds0-1 was run with --model-lr 0.001, not 0.1; give another --logdir" in capsys.readouterr().err
    (tmp_path / "grid.yaml").write_text(TABLE.replace("Walk", "Wolk"))
    assert main(argv) == 2 and len(started) == 2
    assert "Wolk" in capsys.readouterr().err


def test_what_goes_wrong_in_a_block_is_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reason = train_block(str(tmp_path / "a"), TINY | {"steps": 1}, 1, 0)
    assert reason == "--batch-size 32 is more than --steps 1; give more steps"

    def run(*_: Any, **__: Any) -> None:
        raise ValueError("no\nluck")

    monkeypatch.setattr("mbrl_taskmet.runner.agent.run", run)
    lines = train_block(str(tmp_path / "a"), TINY, 1, 0).splitlines()
    assert lines[:3] == ["ValueError: no luck", "", "Traceback (most recent call last):"]


def test_a_directory_that_is_taken_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runs.sweeping.worker._PATIENCE", 0.5)
    with claimed(tmp_path / "a", {}):
        assert "is a run that goes on in another process" in train_block(str(tmp_path / "a"), TINY, 1, 0)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Workers compile quickly rather than well, and each program once."""
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path_factory.getbasetemp() / "jax_cache"))
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")


@pytest.mark.slow
def test_a_block_whose_workers_are_lost_ends_as_if_nothing_had_happened_and_ends_no_other(
    tmp_path: Path, quick: None, capsys: pytest.CaptureFixture[str]
) -> None:
    blocks = [Block(tmp_path / name / "seeds0-0", Config(**TINY), True) for name in ("disturbed", "alone")]
    lost: list[Callable[[subprocess.Popen[bytes]], None]] = [
        lambda worker: worker.kill(),
        lambda worker: worker.stdin.close() if worker.stdin else None,  # as when the sweep's own process is killed
    ]

    class Watched:
        """A task whose process is lost once it has trained."""

        def __init__(self, task: Any, directory: Path):
            self.task, self.result, self.cancel = task, task.result, task.cancel
            self.directory, self.before = directory, read_rows(directory)

        def done(self) -> bool:
            trains = is_held(self.directory) and read_rows(self.directory) not in ([], self.before)
            if lost and trains and self.directory == blocks[0].directory:
                lost.pop(0)(self.task._process)
                self.directory = tmp_path  # once
            return bool(self.task.done())

    with processes(Ask(tmp_path, workers=2)) as engine, StopSignal("") as stop:
        watched = Engine(lambda order: Watched(engine.start(order), Path(order[0])), engine.most)
        assert train_all(blocks, watched, 1, 0, retries=2, stop=stop) == {}
    printed = capsys.readouterr().out
    assert "disturbed/seeds0-0: its process ended with SIGKILL; it goes on from its last checkpoint, try 2 of 3" in printed
    assert "disturbed/seeds0-0: stopped at step " in printed and printed.count("is done") == 2
    disturbed, alone = (timeless(read_rows(block.directory)) for block in blocks)
    assert disturbed == alone and len(alone) == 30


def test_a_sweep_that_is_stopped_leaves_no_process_and_a_checkpoint(tmp_path: Path, quick: None) -> None:
    (tmp_path / "grid.yaml").write_text(json.dumps({"settings": TINY | {"steps": 30_000}, "seeds": 1}))
    argv = ["--grid", str(tmp_path / "grid.yaml"), "--logdir", str(tmp_path / "logs")]
    block = tmp_path / "logs" / "all" / "seeds0-0"
    sweep = subprocess.Popen([sys.executable, "-m", "runs.sweep", *argv], text=True, stdout=-3, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while not read_rows(block):
        assert sweep.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    sweep.send_signal(signal.SIGTERM)
    error = sweep.communicate(timeout=60)[1]
    assert sweep.returncode == 143
    assert error.splitlines()[-1] == "stopped; to go on, give the same command again" and "Traceback" not in error
    step = read_rows(block)[-1]["step"]
    assert not is_held(block) and (block / "checkpoints" / "state" / str(step)).is_dir()
    assert status(tmp_path / "logs").endswith(f"waiting  all/seeds0-0, step {step} of 30000")
