"""A damaged file of a report is named in one sentence, and none is left half written."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mbrl_taskmet import ConfigError
from runs import distractors, provenance, solvers, speed
from runs.report import Rows, read_report, report
from runs.setting import Setting
from runs.tables import read_csv, undamaged, write_csv

HEAD = "setting,seed,step,return,model_error\n"
DAMAGE = {
    "few cells": HEAD + "a,0,1000\n",
    "many cells": HEAD + "a,0,1000,1.0,0.5,9\n",
    "no number": HEAD + "a,zero,1000,1.0,0.5\n",
    "open quote": HEAD + 'a,0,1000,1.0,"0.5\n',
    "no column": "setting,seed\na,0\n",
    "not finite": HEAD + "a,0,1000,inf,0.5\n",
    "no return": HEAD + "a,0,1000,nan,0.5\n",
    "negative seed": HEAD + "a,-1,1000,1.0,0.5\n",
    "twice": HEAD + "a,0,1000,1.0,0.5\na,0,2000,1.0,0.5\na,0,1000,1.0,0.5\n",
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_curves_are_named(name: str, tmp_path: Path) -> None:
    (tmp_path / "curves.csv.gz").write_bytes(gzip.compress(DAMAGE[name].encode()))
    (tmp_path / "runs.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"curves\.csv\.gz is damaged .*; restore it"):
        read_report(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        "[]",
        "1",
        '{"a/seeds0-1": 1}',
        '{"a/seeds0-1": {"device": 1}}',
        '{"a/seeds0-1": {"versions": {"jax": []}}}',
        '{"a/seeds0-1": {"wall_seconds": "x"}}',
    ],
)
def test_damaged_runs_are_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "curves.csv.gz").write_bytes(gzip.compress(HEAD.encode()))
    (tmp_path / "runs.json").write_text(text)
    with pytest.raises(ConfigError, match=r"runs\.json is damaged .*; restore it"):
        read_report(tmp_path)


GRADIENTS = "solver,products,residual,cosine,signal,ms\n"
WEIGHTS = "setting,seed,normalized,environment\n"
SIX = " ".join(["1.5"] * 6)


@pytest.mark.parametrize(
    ("read", "name", "text", "sentence"),
    [
        (solvers._read, "gradients.csv", GRADIENTS + "minres-5,5,0.1,inf,1.0,2.0\n", "inf is no finite number"),
        (solvers._read, "gradients.csv", GRADIENTS + "minres-5,5,0.1,0.9,1.0,nan\n", "nan is no finite number"),
        (solvers._read, "gradients.csv", GRADIENTS + 2 * "minres-5,5,0.1,0.9,1,2\n", "it has two lines of solver minres-5"),
        (distractors._read_weights, "weights.csv", WEIGHTS + f"taskmet-2,0,{SIX},{SIX} 1\n", "taskmet-2 has no 6 weights in"),
        (distractors._read_weights, "weights.csv", WEIGHTS + f"taskmet-2,0,{SIX[:-3]}nan,{SIX}\n", "nan is no finite number"),
        (distractors._read_weights, "weights.csv", WEIGHTS + f"taskmet-2,x,{SIX},{SIX}\n", "invalid literal"),
        (distractors._read_weights, "weights.csv", WEIGHTS + 2 * f"taskmet-2,0,{SIX},{SIX}\n", "two lines of setting, seed"),
        (speed._read, "speed-cpu.json", "[]", "it is no table of parts"),
        (speed._read, "speed-cpu.json", "{", "Expecting property name"),
    ],
)
def test_what_an_experiment_keeps_beside_its_report_is_named_where_it_is_damaged(
    read: Callable[[Path], object], name: str, text: str, sentence: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match=rf"{name} is damaged \(.*{sentence}.*\); restore it"):
        read(tmp_path / name)


def test_a_series_that_diverges_has_neither_cosine_nor_signal(tmp_path: Path) -> None:
    (tmp_path / "gradients.csv").write_text(GRADIENTS + "neumann-10,10,inf,0.000,nan,3.46\nminres-5,5,0.1,0.9,1.5,2.0\n")
    found = solvers._read(tmp_path / "gradients.csv")
    assert found["minres-5"] == (0.9, 1.5, 2.0)
    assert found["neumann-10"][0] == 0.0 and np.isnan(found["neumann-10"][1]) and found["neumann-10"][2] == 3.46


def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "weights.csv")
    with pytest.raises(ConfigError, match="it is no regular file"), undamaged(tmp_path / "weights.csv") as path:
        read_csv(path)


def test_a_cell_may_hold_any_character_and_a_kill_leaves_the_file_of_before(tmp_path: Path) -> None:
    lines = [{"name": "a \u2028 b", "text": 'two\nlines, "quoted"'}]
    for suffix in (".csv", ".csv.gz"):
        write_csv(tmp_path / f"x{suffix}", lines)
        assert read_csv(tmp_path / f"x{suffix}") == lines
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.csv", "x.csv.gz"]


def test_provenance_names_the_commands_that_make_the_results(tmp_path: Path) -> None:
    settings = [Setting(name) for name in ("mle-8", "mle-16", "omd-8", "omd-16")]
    rows = [{"seed": seed, "step": 2000, "eval/return": 1.0} for seed in (3, 4)]
    record = {"device": {"platform": "cpu", "kind": "cpu", "count": 2, "machine": "x86_64"}, "versions": {"jax": "0.10.2"},
              "wall_seconds": 90.0}  # fmt: skip
    results = {"mle-8": rows, "mle-16": rows, "omd-8": rows[:1]}
    page = provenance.of_experiment("capacity", settings, {"x64": True}, results, {"mle-8/seeds3-4": record})
    flags = "--first-seed 3 --steps 2000 --x64 --output runs/results/capacity"
    assert f"python -m runs.capacity --only 'mle-*' --seeds 2 {flags}\n" in page
    assert f"python -m runs.capacity --only 'omd-8' --seeds 1 {flags}\n" in page
    assert "- device: 2 × cpu (x86_64)\n- wall time: 90 seconds\n\n| package | version |\n|---|---|\n| jax | 0.10.2 |\n" in page


def test_provenance_of_single_runs_is_of_their_records(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = Path(__file__).parents[2] / "runs" / "results"
    for name in ("cartpole-8-distractors-normal-cg", "decision-tasks/budget-relu", "tabular"):
        (tmp_path / name).mkdir(parents=True)
        for record in (*(results / name).glob("summary.json"), *(results / name).glob("runs.json")):
            (tmp_path / name / record.name).write_bytes(record.read_bytes())
        assert provenance.main([str(tmp_path / name)]) == 0
        assert (tmp_path / name / "provenance.md").read_text() == (results / name / "provenance.md").read_text()
    assert "--solver normal_cg" in (tmp_path / "cartpole-8-distractors-normal-cg" / "provenance.md").read_text()
    assert provenance.main([str(tmp_path)]) == 2
    assert "has neither summary.json nor runs.json" in capsys.readouterr().err


def test_a_line_per_seed_has_its_returns(tmp_path: Path) -> None:
    rows: Rows = [
        {"seed": seed, "step": step, "eval/return": float(step + seed), "train/model_mse_state": None}
        for seed in (0, 7) for step in (10, 20, 30, 40)
    ]  # fmt: skip
    report([Setting("mle-8")], {"mle-8": rows}, {}, tmp_path)
    assert read_csv(tmp_path / "seeds.csv")[1] == {
        "setting": "mle-8", "seed": "7", "steps": "40", "final return": "47", "last 10 evaluations": "32",
        "second half": "42", "all evaluations": "32", "model error": "",
    }  # fmt: skip
