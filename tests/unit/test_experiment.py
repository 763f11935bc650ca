"""The experiments' runner: what is run, resumed and left alone, and one experiment from nothing to its picture."""

from __future__ import annotations

import dataclasses
import fnmatch
import importlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from mbrl_taskmet.core.settings import ConfigError
from mbrl_taskmet.rl.environment import Environment
from mbrl_taskmet.rl.settings import Config, Settings
from mbrl_taskmet.rl.training import resolved
from mbrl_taskmet.runner.records import read_rows
from mbrl_taskmet.runner.rundir import to_json
from mbrl_taskmet.runner.signals import Stopped
from runs import distractors, solvers
from runs import experiment as runner
from runs.experiment import Experiment, Setting, main
from runs.report import final_returns, read_csv, reported_settings, write_csv

EXPERIMENTS = ("distractors", "capacity", "solvers", "environments")
EXPERIMENT = Experiment(
    "trial",
    (Setting("a", given={"method": "mle", "model_hidden": 4}), Setting("b", given={"normalize": False}, rival="a")),
    draw=lambda results, output, logdir: None,
    steps=2000,
    seeds=2,
)


class Call(NamedTuple):
    """What a run was asked for."""

    config: Config
    settings: Settings
    directory: Path
    resumed: bool


class Agent:
    """Stands for `run`: notes what it is asked for, and leaves what a finished run would."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.interrupted_at: int | None = None

    def __call__(self, env: Environment, config: Config, directory: Path, *, go_on: str, say: Any) -> None:
        resumed = (directory / "config.json").exists()
        settings = resolved(env, config)
        self.calls.append(Call(config, settings, directory, resumed))
        (directory / "checkpoints" / "state" / "0").mkdir(parents=True, exist_ok=True)
        (directory / "config.json").write_text(json.dumps(to_json(settings.names)))
        end = self.interrupted_at or settings.steps
        rows = [
            {"step": step, "seed": seed, "eval/return": 10.0 * seed + step / 1000, "train/model_mse_state": 0.5}
            for step in range(settings.eval_every, end + 1, settings.eval_every)
            for seed in range(settings.seed, settings.seed + settings.seeds)
        ]
        (directory / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        if self.interrupted_at:
            raise Stopped(f"stopped at step {end}; to go on: {go_on}", signal.SIGINT)
        keys = ("seeds", "env_steps", "wall_seconds", "steps_per_second", "device", "versions", "failures")
        (directory / "summary.json").write_text(json.dumps(dict.fromkeys(keys, 1)))


@pytest.fixture
def agent(monkeypatch: pytest.MonkeyPatch) -> Agent:
    fake = Agent()
    monkeypatch.setattr(runner, "run", fake)
    return fake


def run(tmp_path: Path, *argv: str) -> int:
    return main(EXPERIMENT, ["--logdir", str(tmp_path / "logs"), *argv])


def test_every_setting_is_run_with_what_it_is_given_and_reported(tmp_path: Path, agent: Agent) -> None:
    assert run(tmp_path) == 0
    shared = {"env": "CartPole-v1", "distractors": 0, "steps": 2000, "seed": 0, "seeds": 2}
    assert agent.calls[0].config.given == {"method": "mle", "model_hidden": 4, **shared}
    assert agent.calls[1].config.given == {"normalize": False, **shared}
    names = agent.calls[0].settings.names
    assert (names["distractors"], names["method"], names["model_hidden"]) == (0, "mle", 4)
    names = agent.calls[1].settings.names
    assert (names["distractors"], names["normalize"]) == (0, False)
    assert [call.directory.name for call in agent.calls] == ["seeds0-1"] * 2
    table = (tmp_path / "logs" / "table.md").read_text()
    # seeds 0 and 1 end at 2 and 12; against itself the rival is better half of the time
    assert "| a | 2 | 2000 | 7.00 ± 5.00 | 6.50 ± 5.00 | 6.50 ± 5.00 | 7.00 | 2.00 to 12.00 |  |  | 0.5 |  |" in table
    assert "| b | 2 | 2000 | 7.00 ± 5.00 | 6.50 ± 5.00 | 6.50 ± 5.00 | 7.00 | 2.00 to 12.00 | 0.50 | 0.50 | 0.5 |  |" in table
    curves = read_csv(tmp_path / "logs" / "curves.csv.gz")
    assert len(curves) == 8
    assert curves[0] == {"setting": "a", "seed": "0", "step": "1000", "return": "1", "model_error": "0.5"}
    runs = json.loads((tmp_path / "logs" / "runs.json").read_text())
    assert set(runs) == {"a/seeds0-1", "b/seeds0-1"}
    assert runs["a/seeds0-1"]["settings"] == dict(agent.calls[0].settings.names)


def test_what_is_done_is_not_repeated_and_missing_seeds_are_added_in_blocks(tmp_path: Path, agent: Agent) -> None:
    run(tmp_path, "--only", "a")
    run(tmp_path, "--only", "a", "--seeds", "7", "--block", "3")
    assert [call.directory.name for call in agent.calls] == ["seeds0-1", "seeds2-4", "seeds5-6"]
    assert [(call.settings.seed, call.settings.seeds) for call in agent.calls] == [(0, 2), (2, 3), (5, 2)]
    run(tmp_path, "--only", "a", "--seeds", "7", "--block", "3")
    assert len(agent.calls) == 3


def test_more_steps_resume_what_is_there(tmp_path: Path, agent: Agent) -> None:
    run(tmp_path, "--only", "a")
    assert run(tmp_path, "--only", "a", "--steps", "3000") == 0
    assert agent.calls[1].resumed and agent.calls[1].directory == tmp_path / "logs" / "a" / "seeds0-1"
    assert agent.calls[1].settings == dataclasses.replace(agent.calls[0].settings, steps=3000)
    assert "| a | 2 | 3000 | 8.0" in (tmp_path / "logs" / "table.md").read_text()
    assert run(tmp_path, "--only", "a", "--steps", "2000") == 0  # fewer: reports what was reached by then
    assert len(agent.calls) == 2
    assert "| a | 2 | 2000 | 7.0" in (tmp_path / "logs" / "table.md").read_text()


def test_an_interrupted_block_is_resumed(tmp_path: Path, agent: Agent, capsys: pytest.CaptureFixture[str]) -> None:
    agent.interrupted_at = 1000
    assert run(tmp_path) == 130
    assert len(agent.calls) == 1
    assert capsys.readouterr().err == "stopped at step 1000; to go on: give the same command again\n"
    agent.interrupted_at = None
    assert run(tmp_path) == 0
    assert agent.calls[1].resumed and agent.calls[1].directory == tmp_path / "logs" / "a" / "seeds0-1"
    assert agent.calls[1].settings == agent.calls[0].settings
    assert len(agent.calls) == 3


def test_a_block_with_more_steps_than_are_asked_for_keeps_them_when_it_goes_on(tmp_path: Path, agent: Agent) -> None:
    agent.interrupted_at = 1000
    run(tmp_path, "--only", "a", "--steps", "3000")
    agent.interrupted_at = None
    run(tmp_path, "--only", "a", "--steps", "1000")  # is there
    assert len(agent.calls) == 1
    run(tmp_path, "--only", "a", "--steps", "2000", "--seeds", "1")
    assert agent.calls[1].resumed and agent.calls[1].settings == agent.calls[0].settings


def test_a_block_killed_before_its_first_checkpoint_is_started_again(tmp_path: Path, agent: Agent) -> None:
    run(tmp_path, "--only", "a")
    directory = tmp_path / "logs" / "a" / "seeds0-1"
    for path in ("metrics.jsonl", "summary.json"):
        (directory / path).unlink()
    (directory / "checkpoints" / "state" / "0").rmdir()
    assert run(tmp_path, "--only", "a", "--first-seed", "2") == 0
    assert directory.exists()  # it might be running: other seeds do not touch it
    assert run(tmp_path, "--only", "a") == 0
    assert agent.calls[2].directory == directory and not agent.calls[2].resumed


def test_a_block_of_other_settings_is_refused(tmp_path: Path, agent: Agent, capsys: pytest.CaptureFixture[str]) -> None:
    run(tmp_path, "--only", "a")
    assert run(tmp_path, "--only", "a", "--model-lr", "0.1") == 2
    assert "was run with --model-lr 0.001, not 0.1; give another --logdir" in capsys.readouterr().err


def test_a_block_that_is_older_than_a_field_is_known_by_what_it_did(tmp_path: Path, agent: Agent) -> None:
    run(tmp_path, "--only", "b")
    path = tmp_path / "logs" / "b" / "seeds0-1" / "config.json"
    saved = json.loads(path.read_text())
    del saved["settings"]["metric_activation"]
    path.write_text(json.dumps(saved))
    assert run(tmp_path, "--only", "b") == 0
    assert run(tmp_path, "--only", "b", "--metric-activation", "exp") == 2
    assert len(agent.calls) == 1


def test_blocks_and_reports_of_the_format_before_are_read_and_checked(
    tmp_path: Path, agent: Agent, capsys: pytest.CaptureFixture[str]
) -> None:
    run(tmp_path, "--only", "b", "--output", str(tmp_path / "out"))
    path, reported = tmp_path / "logs" / "b" / "seeds0-1" / "config.json", tmp_path / "out" / "runs.json"
    names = json.loads(path.read_text())["settings"]
    where = {"environment": names.pop("env"), "distractors": names.pop("distractors")}
    old = {name: value for name, value in names.items() if name not in ("disturbance", "critic")} | {"metric_hidden": None}
    path.write_text(json.dumps({"format": 1, "config": old, **where}))
    assert run(tmp_path, "--only", "b", "--steps", "3000") == 0
    assert agent.calls[1].resumed and agent.calls[1].settings == dataclasses.replace(agent.calls[0].settings, steps=3000)

    runs = json.loads(reported.read_text())
    del runs["b/seeds0-1"]["settings"]
    runs["b/seeds0-1"]["config"] = old
    before = json.dumps(runs, indent=1) + "\n"
    reported.write_text(before)
    elsewhere = ["--logdir", str(tmp_path / "none"), "--output", str(tmp_path / "out"), "--report"]
    assert main(EXPERIMENT, elsewhere) == 0
    assert reported.read_text() == before
    for flags, message in (
        (["--model-lr", "0.1"], "b/seeds0-1 was run with --model-lr 0.001, not 0.1; give another --output"),
        (["--distractors", "8"], "b/seeds0-1 was run with --distractors 0, not 8; give another --output"),
    ):
        assert main(EXPERIMENT, [*elsewhere, *flags]) == 2
        assert message in capsys.readouterr().err
    del runs["b/seeds0-1"]["config"]
    reported.write_text(json.dumps(runs))
    assert main(EXPERIMENT, elsewhere) == 2
    assert "runs.json is damaged ('config'); restore it" in capsys.readouterr().err


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_the_committed_reports_are_of_todays_settings(name: str) -> None:
    experiment: Experiment = importlib.import_module(f"runs.{name}").EXPERIMENT
    output = Path(__file__).parents[2] / "runs" / "results" / name
    blocks = json.loads((output / "runs.json").read_text())
    for setting in experiment.settings:
        for block in fnmatch.filter(list(blocks), f"{setting.name}/*"):
            saved = reported_settings(output, blocks.pop(block), setting)
            given = setting.config | {key: getattr(saved, key) for key in ("steps", "seed", "seeds")}
            assert saved == given.resolve()
    assert not blocks


def test_settings_on_the_command_line_hold_for_every_line(tmp_path: Path, agent: Agent) -> None:
    assert run(tmp_path, "--x64", "--batch-size", "32", "--model-lr", ".1", "--distractors", "8") == 0
    assert len(agent.calls) == 2
    for call in agent.calls:
        names = call.settings.names
        assert (names["x64"], names["batch_size"], names["model_lr"], names["distractors"]) == (True, 32, 0.1, 8)
    assert agent.calls[0].settings.names["model_hidden"] == 4


def test_a_report_runs_nothing(tmp_path: Path, agent: Agent, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, "--report") == 2
    assert "holds no evaluation; leave --report out" in capsys.readouterr().err
    run(tmp_path, "--only", "b")
    assert run(tmp_path, "--report", "--output", str(tmp_path / "out")) == 0
    assert len(agent.calls) == 1
    assert "| b |" in (tmp_path / "out" / "table.md").read_text()


def test_a_report_elsewhere_is_added_to(tmp_path: Path, agent: Agent, capsys: pytest.CaptureFixture[str]) -> None:
    def report(logs: str, *argv: str) -> str:
        assert main(EXPERIMENT, ["--logdir", str(tmp_path / logs), "--output", str(tmp_path / "out"), *argv]) == 0
        return (tmp_path / "out" / "table.md").read_text()

    report("one", "--only", "a", "--steps", "3000")
    table = report("two", "--seeds", "3", "--first-seed", "1")  # shorter, of another machine: seed 1 is there already
    # seeds 0 and 1 end at 3 and 13 as before, 2 and 3 at 22 and 32
    assert "| a | 4 | 2000 to 3000 | 17.50 ±" in table and "| b | 3 | 2000 | 22.00 ±" in table
    assert set(json.loads((tmp_path / "out" / "runs.json").read_text())) == {"a/seeds0-1", "a/seeds1-3", "b/seeds1-3"}
    before = (tmp_path / "out" / "curves.csv.gz").read_bytes()
    assert "| a | 4 | 2000 to 3000 | 17.50 ±" in report("two", "--report", "--only", "b")  # what is not chosen stays
    assert "| a | 4 | 2000 to 3000 | 17.50 ±" in report("none", "--report")  # of the report alone, where no block is
    assert (tmp_path / "out" / "curves.csv.gz").read_bytes() == before

    calls = len(agent.calls)
    argv = ["--logdir", str(tmp_path / "three"), "--output", str(tmp_path / "out")]
    assert main(EXPERIMENT, [*argv, "--model-lr", "0.1"]) == 2
    assert "a/seeds0-1 was run with --model-lr 0.001, not 0.1; give another --output" in capsys.readouterr().err
    (tmp_path / "out" / "curves.csv.gz").write_bytes(before[:-40])
    assert main(EXPERIMENT, argv) == 2
    assert "curves.csv.gz is damaged" in capsys.readouterr().err
    (tmp_path / "out" / "curves.csv.gz").write_bytes(before)
    (tmp_path / "out" / "runs.json").write_text("{")
    assert main(EXPERIMENT, argv) == 2
    assert "runs.json is damaged" in capsys.readouterr().err
    assert len(agent.calls) == calls


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--only", "c*"], "--only c* is no setting; there are a, b"),
        (["--seeds", "0"], "--seeds is 0; give 1 or more"),
        (["--model-rl", ".1"], "'--model-rl' is no option; did you mean --model-lr?"),
        (["--env", "Acrobot-v1"], "'--env' is no option; did you mean"),
        (["--seed", "3"], "'--seed' is no option; did you mean --seeds?"),
        (["--solver", "minres"], "--solver minres does nothing for --method mle; leave it out, or use --method taskmet"),
        (["--steps", "2500"], "--steps 2500 is no multiple of --eval-every 1000"),
    ],
)
def test_bad_input_is_refused(
    argv: list[str], message: str, tmp_path: Path, agent: Agent, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, *argv) == 2
    assert message in capsys.readouterr().err and not agent.calls


def test_a_final_return_is_the_mean_of_each_seeds_last_known_evaluations() -> None:
    rows = [{"seed": s, "step": t, "eval/return": s + t if (s, t) != (1, 3) else None} for s in (0, 1) for t in (1, 2, 3)]
    assert final_returns(rows).tolist() == [3.0]
    assert final_returns(rows, 2).tolist() == [2.5, 3.0]
    assert final_returns(rows, None).tolist() == [2.0, 2.5]


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_setting_of_an_experiment_can_be_run_and_its_rival_is_there(name: str) -> None:
    experiment: Experiment = importlib.import_module(f"runs.{name}").EXPERIMENT
    names = [setting.name for setting in experiment.settings]
    assert experiment.name == name and len(set(names)) == len(names)
    for setting in experiment.settings:
        assert setting.rival is None or setting.rival in names
        settings = (setting.config | {"steps": experiment.steps}).resolve()
        assert settings.environment.name == setting.environment
        assert settings.environment.distractors == setting.distractors


@pytest.mark.parametrize("name", ("distractors", "capacity", "environments"))
def test_an_experiment_draws_what_it_has(name: str, tmp_path: Path) -> None:
    experiment: Experiment = importlib.import_module(f"runs.{name}").EXPERIMENT
    chosen = [setting for setting in experiment.settings if "taskmet" in setting.name][:2]
    row: dict[str, Any] = {"eval/return": 9.0, "train/model_mse_state": 0.5, "metric/diagonal": [1.0] * 20}
    rows = [{**row, "step": step, "seed": seed} for step in (1000, 2000) for seed in (0, 1)]
    experiment.draw({setting.name: rows for setting in chosen}, tmp_path, tmp_path)
    drawn = {path.suffix for path in tmp_path.iterdir()}
    assert drawn == {".png", ".svg"} and all(path.stat().st_size > 10_000 for path in tmp_path.iterdir())


def test_figure_7_keeps_the_weights_of_runs_that_are_elsewhere(tmp_path: Path) -> None:
    weights = {"normalized": "1 2 3 4 " + "0.5 " * 16, "environment": "10 20 30 40 " + "0.5 " * 16}
    lines = [{"setting": name, "seed": seed, **weights} for name in ("taskmet-16", "taskmet_exp-16") for seed in (0, 1)]
    write_csv(tmp_path / "weights.csv.gz", lines)
    kept = (tmp_path / "weights.csv.gz").read_bytes()
    rows = [{"seed": 0, "step": 1000, "eval/return": 9.0}]
    distractors.draw({"taskmet-16": rows}, tmp_path, tmp_path / "logs")
    assert (tmp_path / "weights.csv.gz").read_bytes() == kept
    svg = (tmp_path / "figure7.svg").read_text()
    assert svg.count("<!-- pole angle -->") == 1  # in one legend, of four panels
    assert svg.count("errors in standard deviations") == 2
    (tmp_path / "weights.csv.gz").write_bytes(kept[:-40])
    with pytest.raises(ConfigError, match=r"weights\.csv\.gz is damaged .* restore it"):
        distractors.draw({"taskmet-16": rows}, tmp_path, tmp_path / "logs")


def test_the_solvers_picture_keeps_the_gradients_measured_elsewhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = {"identity": [{"seed": 0, "step": 1000, "eval/return": 9.0}]}
    solvers.draw(results, tmp_path, tmp_path / "logs")
    assert "holds no checkpoint" in capsys.readouterr().err and not any(tmp_path.iterdir())
    head = "solver,products,residual,cosine,signal,ms\n"
    (tmp_path / "gradients.csv").write_text(head + "identity,0,616.0,0.05,0.21,1.20\n")
    solvers.draw(results, tmp_path, tmp_path / "logs")
    assert "<!-- identity -->" in (tmp_path / "figure.svg").read_text()
    (tmp_path / "gradients.csv").write_text(head + "identity,0\n")
    with pytest.raises(ConfigError, match=r"gradients\.csv is damaged .* restore it"):
        solvers.draw(results, tmp_path, tmp_path / "logs")


SIZES = ["--seeds", "2", "--eval-every", "100", "--eval-episodes", "2", "--random-steps", "64", "--batch-size", "32",
         "--replay-capacity", "200"]  # fmt: skip


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the processes of an experiment find in their environment."""
    cache = str(tmp_path_factory.mktemp("cache"))
    return os.environ | {"JAX_COMPILATION_CACHE_DIR": cache, "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}


def test_an_experiment_runs_from_nothing_to_its_table_and_pictures(tmp_path: Path, compiled: dict[str, str]) -> None:
    sizes = [*SIZES, "--steps", "200"]
    command = [sys.executable, "-m", "runs.capacity", "--only", "mle-3", *sizes, "--logdir", str(tmp_path / "logs")]
    done = subprocess.run(command, env=compiled, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "| mle-3 | 2 | 200 |" in done.stdout and "166 ± 44" in done.stdout
    names = {path.name for path in (tmp_path / "logs").iterdir()}
    assert names == {"mle-3", "table.md", "table.csv", "curves.csv.gz", "runs.json", "figure8.png", "figure8.svg"}
    again = subprocess.run(command, env=compiled, capture_output=True, text=True, timeout=300)
    assert (again.returncode, again.stderr) == (0, "") and "needs about" not in again.stdout  # nothing was run again


def test_an_experiment_that_was_ended_goes_on_with_the_same_command(tmp_path: Path, compiled: dict[str, str]) -> None:
    steps, block = 4000, tmp_path / "logs" / "mle-3" / "seeds0-1"
    sizes = [*SIZES, "--steps", str(steps)]
    command = [sys.executable, "-m", "runs.capacity", "--only", "mle-3", *sizes, "--logdir", str(tmp_path / "logs")]
    begun = subprocess.Popen(command, env=compiled, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        while begun.poll() is None and not read_rows(block):
            time.sleep(0.02)
        begun.send_signal(signal.SIGTERM)
        error = begun.communicate(timeout=300)[1]
    finally:
        begun.kill()
    reached = read_rows(block)[-1]["step"]
    assert begun.returncode == 128 + signal.SIGTERM and 0 < reached < steps
    assert error.splitlines()[-1] == f"stopped at step {reached}; to go on: give the same command again"
    assert not (block / "summary.json").exists() and not (tmp_path / "logs" / "table.md").exists()

    done = subprocess.run(command, env=compiled, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert f"| mle-3 | 2 | {steps} |" in done.stdout
    assert [(row["step"], row["seed"]) for row in read_rows(block)] == [
        (step, seed) for step in range(100, steps + 1, 100) for seed in (0, 1)
    ]
