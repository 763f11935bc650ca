"""Every experiment: its settings, its committed report, its pictures; and one from nothing to its table, ended on the way."""

from __future__ import annotations

import fnmatch
import importlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from mbrl_taskmet.core.settings import ConfigError
from mbrl_taskmet.runner.records import read_rows
from runs import distractors, solvers
from runs.experiment import Experiment
from runs.report import reported_settings
from runs.tables import write_csv

EXPERIMENTS = ("distractors", "capacity", "solvers", "environments", "continuous", "horizon")


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_the_committed_reports_are_of_todays_settings(name: str) -> None:
    experiment: Experiment = importlib.import_module(f"runs.{name}").EXPERIMENT
    output = Path(__file__).parents[2] / "runs" / "results" / name
    blocks = json.loads((output / "runs.json").read_text())
    for setting in experiment.settings:
        for block in fnmatch.filter(list(blocks), f"{setting.name}/*"):
            saved = reported_settings(output, blocks.pop(block), setting)
            given = setting.config | {key: getattr(saved, key) for key in ("steps", "seed", "seeds")}
            given |= {"critic": saved.names["critic"]}  # which the environment chooses
            assert saved == given.resolve()
    assert not blocks


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


@pytest.mark.parametrize("name", ("distractors", "capacity", "environments", "continuous", "horizon"))
def test_an_experiment_draws_what_it_has(name: str, tmp_path: Path) -> None:
    experiment: Experiment = importlib.import_module(f"runs.{name}").EXPERIMENT
    chosen = [setting for setting in experiment.settings if "taskmet" in setting.name][:2]
    row: dict[str, Any] = {"eval/return": 9.0, "train/model_mse_state": 0.5, "metric/diagonal": [1.0] * 20}
    rows = [{**row, "step": step, "seed": seed} for step in (1000, 2000) for seed in (0, 1)]
    experiment.draw({setting.name: rows for setting in chosen}, tmp_path, tmp_path)
    drawn = {path.suffix for path in tmp_path.iterdir()}
    assert drawn - {".csv", ".md"} == {".png", ".svg"}
    assert all(path.stat().st_size > 10_000 for path in tmp_path.iterdir() if path.suffix in (".png", ".svg"))


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
    assert names == {
        "mle-3",
        "table.md",
        "table.csv",
        "curves.csv.gz",
        "runs.json",
        "figure8.png",
        "figure8.svg",
        "provenance.md",
        "seeds.csv",
    }
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
