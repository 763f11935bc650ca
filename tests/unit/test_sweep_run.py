"""A sweep in a directory: one program, and for every combination the files of a run of its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agents.command import main, parse
from envs.probes import Walk
from mbrl_taskmet import Config, ConfigError, run, run_sweep
from mbrl_taskmet.rl.sweep import read_sweep
from mbrl_taskmet.runner.agent import Outcome, restored
from mbrl_taskmet.runner.records import read_rows
from tests.records import timeless

SIZES: dict[str, Any] = {"method": "mle", "steps": 200, "eval_every": 100, "eval_episodes": 1, "random_steps": 64,
                         "batch_size": 32, "seeds": 2, "seed": 3}  # fmt: skip
SWEEP = {"model_lr": [1e-3, 1e-2]}
FLAGS = ["--method", "mle", "--steps", "200", "--eval-every", "100", "--random-steps", "64", "--batch-size", "32"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Outcome]]:
    directory = tmp_path_factory.mktemp("sweeps") / "whole"
    said: list[str] = []
    outcomes = run_sweep(Walk(), Config(**SIZES), directory, SWEEP, say=said.append)
    assert "2 settings of mle on Walk, 2 seed(s), 200 steps" in said[0]
    return directory, outcomes


def test_every_combination_has_the_files_of_a_run(whole: tuple[Path, dict[str, Outcome]]) -> None:
    directory, outcomes = whole
    assert list(outcomes) == ["model_lr=0.001", "model_lr=0.01"]
    names = {path.name for path in directory.iterdir()}
    assert names == {"checkpoints", "config.json", "summary.json", "sweep.png", *outcomes}
    for (folder, outcome), rate in zip(outcomes.items(), SWEEP["model_lr"], strict=True):
        own = {path.name for path in (directory / folder).iterdir()}
        assert own == {"config.json", "curves.png", "metrics.jsonl", "summary.json", "tensorboard"}
        assert json.loads((directory / folder / "config.json").read_text())["settings"]["model_lr"] == rate
        assert outcome.rows == read_rows(directory / folder) and [row["seed"] for row in outcome.rows] == [3, 4, 3, 4]
        assert outcome.settings.names["model_lr"] == rate
    summary = json.loads((directory / "summary.json").read_text())
    assert summary["settings"]["model_lr=0.01"]["final_return"] == [
        row["eval/return"] for row in outcomes["model_lr=0.01"].rows[2:]
    ]


def test_a_combination_is_the_run_that_it_is_alone(whole: tuple[Path, dict[str, Outcome]], tmp_path: Path) -> None:
    alone = run(Walk(), Config(**SIZES, model_lr=1e-2), tmp_path / "alone")
    for row, other in zip(alone.rows, whole[1]["model_lr=0.01"].rows, strict=True):
        for key in ("eval/return", "train/model_mse", "train/q_loss"):
            np.testing.assert_allclose(row[key], other[key], rtol=1e-3)  # another program, in float32, over 136 updates


def test_it_goes_on_with_more_steps_to_the_same_end(whole: tuple[Path, dict[str, Outcome]], tmp_path: Path) -> None:
    run_sweep(Walk(), Config(**SIZES | {"steps": 100}), tmp_path / "sweep", SWEEP)
    step, carry = restored(Walk(), tmp_path / "sweep")[2:]
    assert step == 100 and carry.key.shape == (4,)
    outcomes = run_sweep(Walk(), Config(**SIZES), tmp_path / "sweep", SWEEP)
    for folder, outcome in outcomes.items():
        assert timeless(outcome.rows) == timeless(whole[1][folder].rows)


def test_what_is_there_has_to_be_the_same_sweep(whole: tuple[Path, dict[str, Outcome]]) -> None:
    directory = whole[0]
    with pytest.raises(
        ConfigError, match=r"is a sweep of model_lr=0\.001,0\.01, not a sweep of model_lr=0\.001,0\.1; give ano"
    ):
        run_sweep(Walk(), Config(**SIZES), directory, {"model_lr": [1e-3, 1e-1]})
    with pytest.raises(ConfigError, match=r"is a sweep of model_lr=0\.001,0\.01, not a single run"):
        run(Walk(), Config(**SIZES), directory)
    with pytest.raises(ConfigError, match=r"is one setting of the sweep in .*whole; give that directory"):
        parse(None, ["--resume", str(directory / "model_lr=0.01")])
    with pytest.raises(ConfigError, match="the sweep is empty"):
        run_sweep(Walk(), Config(**SIZES), directory, {})


def test_the_command_starts_and_resumes_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    env = ["--env", "envs.probes:Walk"]
    sweep = ["--sweep", "model-lr=0.001,0.01", "--sweep", "discount=0.9"]
    assert main(None, [*env, *FLAGS, *sweep, "--logdir", str(tmp_path), "--name", "sweep"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["setting", "final", "return", "95", "%", "interval"]
    assert [line.split()[0] for line in lines[2:4]] == ["model_lr=0.001,discount=0.9", "model_lr=0.01,discount=0.9"]
    assert main(None, [*env, "--resume", str(tmp_path / "sweep"), "--steps", "300"]) == 0
    assert read_rows(tmp_path / "sweep" / "model_lr=0.01,discount=0.9")[-1]["step"] == 300
    assert main(None, [*env, "--resume", str(tmp_path / "sweep"), *sweep[:2]]) == 2
    assert "is a sweep of model_lr=0.001,0.01 and discount=0.9, not a sweep of model_lr=0.001,0.01" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--sweep", "metric-lr"], "--sweep metric-lr is no setting and numbers; give them as in"),
        (["--sweep", "metric-lr=a,b"], "--sweep metric-lr=a,b is no setting and numbers"),
        (["--sweep", "metric-lr=0.1", "--sweep", "metric_lr=0.2"], "--sweep metric_lr is given twice"),
        (["--sweep", "metric-rate=0.1"], "--sweep metric_rate is no setting; did you mean --metric-lr?"),
        (["--sweep", "metric-lr=0.1", "--film"], "--film draws one run, and this is a sweep"),
        (["--sweep", "metric-lr=0.1", "--metric-lr", "1"], "--metric-lr 1.0 is given and swept"),
    ],
)
def test_a_sweep_that_cannot_work_is_refused(flags: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse("CartPole-v1", flags)


def test_a_sweep_is_read_with_dashes_or_without() -> None:
    assert read_sweep(["metric-lr=1e-3,3", "--l1=0"]) == {"metric_lr": [1e-3, 3], "l1": [0]}


def test_a_config_repeats_a_run_but_for_what_is_given(whole: tuple[Path, dict[str, Outcome]], tmp_path: Path) -> None:
    env, directory = ["--env", "envs.probes:Walk"], whole[0]
    saved = tmp_path / "config.json"
    text = (directory / "config.json").read_text().replace('"env": "Walk"', '"env": "envs.probes:Walk"')
    saved.write_text(text)
    same = parse(None, [*env, "--from-config", str(saved)])
    first = whole[1]["model_lr=0.001"].settings.names
    assert same.sweep == SWEEP
    assert {**same.config.resolve().names, "env": "Walk"} == {**first, "env": "Walk"}
    other = parse(None, [*env, "--from-config", str(saved), "--model-lr", "0.1", "--seeds", "7"])
    names = other.config.resolve().names
    assert other.sweep == {} and (names["model_lr"], names["seeds"], names["steps"]) == (0.1, 7, 200)
    assert parse(None, [*env, "--from-config", str(saved), "--sweep", "model-lr=1"]).sweep == {"model_lr": [1]}
    made = json.loads(text)
    assert made["versions"]["jax"] and made["device"]["platform"] and made["random_numbers"]["generator"] == "threefry2x32"
    for flags, message in (
        ([], "whose code runs only if you name it as well"),
        ([*env, "--resume", str(directory)], "--from-config .* starts a run; leave it out with --resume"),
        (["--env", "CartPole-v1"], "whose code runs only if you name it as well"),
    ):
        with pytest.raises(ConfigError, match=message):
            parse(None, ["--from-config", str(saved), *flags])
    with pytest.raises(ConfigError, match=r"--from-config .*nothing\.json is no file; give the config"):
        parse(None, ["--from-config", str(tmp_path / "nothing.json")])
