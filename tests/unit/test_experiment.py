"""The experiments' runner: what is run, resumed, left alone and refused."""

from __future__ import annotations

import dataclasses
import json
import signal
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from mbrl_taskmet.core.settings import ConfigError
from mbrl_taskmet.rl.environment import Environment
from mbrl_taskmet.rl.settings import Config, Settings
from mbrl_taskmet.rl.training import resolved
from mbrl_taskmet.runner.rundir import began, to_json
from mbrl_taskmet.runner.signals import Stopped
from runs import experiment as runner
from runs.experiment import Experiment, main
from runs.report import final_returns
from runs.setting import Setting
from runs.tables import read_csv, write_csv

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
        resumed = directory.exists() and began(directory)
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
        made_by = {"device": {"kind": "cpu", "count": 1, "machine": "x86_64"}, "versions": {"jax": "0.10.2"}}
        (directory / "summary.json").write_text(json.dumps(dict.fromkeys(keys, 1) | made_by))


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
    assert "| a | 2 | 2000 | 7.00 ± 5.00 | 6.50 ± 5.00 |  |" in (tmp_path / "logs" / "table.md").read_text()
    table = (tmp_path / "logs" / "table.csv").read_text()
    # seeds 0 and 1 end at 2 and 12; against itself the rival is better half of the time
    assert "a,2,2000,7.00 ± 5.00,6.50 ± 5.00,6.50 ± 5.00,7.00,2.00 to 12.00,,,0.5," in table
    assert "b,2,2000,7.00 ± 5.00,6.50 ± 5.00,6.50 ± 5.00,7.00,2.00 to 12.00,0.50,0.50,0.5," in table
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


def test_settings_on_the_command_line_hold_for_every_line(tmp_path: Path, agent: Agent) -> None:
    assert run(tmp_path, "--x64", "--batch-size", "32", "--model-lr", ".1", "--distractors", "8") == 0
    assert len(agent.calls) == 2
    for call in agent.calls:
        names = call.settings.names
        assert (names["x64"], names["batch_size"], names["model_lr"], names["distractors"]) == (True, 32, 0.1, 8)
    assert agent.calls[0].settings.names["model_hidden"] == 4


def test_a_report_runs_nothing(tmp_path: Path, agent: Agent, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, "--report") == 2
    assert "holds no evaluation; leave out --report" in capsys.readouterr().err
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
    write_csv(tmp_path / "out" / "curves.csv.gz", [{"setting": "c", "seed": 0, "step": 1, "return": 1, "model_error": 1}])
    assert main(EXPERIMENT, argv) == 2
    assert "has a setting c, which runs.trial does not have; restore it" in capsys.readouterr().err
    (tmp_path / "out" / "curves.csv.gz").write_bytes(before)
    (tmp_path / "out" / "runs.json").write_text("{")
    assert main(EXPERIMENT, argv) == 2
    assert "runs.json is damaged" in capsys.readouterr().err
    assert len(agent.calls) == calls


def test_a_damaged_file_that_is_drawn_is_refused_before_anything_is_written(
    tmp_path: Path, agent: Agent, capsys: pytest.CaptureFixture[str]
) -> None:
    def draw(results: Any, output: Path, logdir: Path) -> None:
        raise ConfigError("weights.csv.gz is damaged; restore it")

    run(tmp_path, "--only", "a")
    argv = ["--report", "--only", "a", "--logdir", str(tmp_path / "logs"), "--output", str(tmp_path / "out")]
    assert main(dataclasses.replace(EXPERIMENT, draw=draw), argv) == 2
    assert capsys.readouterr().err == "error: weights.csv.gz is damaged; restore it\n"
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--only", "c*"], "--only c* is no setting; there are a, b"),
        (["--seeds", "0"], "--seeds is 0; give 1 or more"),
        (["--seeds", "2000000"], "--seeds is 2000000; give 1048576 or less"),
        (["--seeds", "9223372036854775808"], "--seeds is 9223372036854775808; give 2147483647 or less"),
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
