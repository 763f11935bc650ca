"""A damaged file of a report is named in one sentence, and none is left half written."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import pytest

from mbrl_taskmet import ConfigError
from runs.report import read_csv, read_report, undamaged, write_csv

HEAD = "setting,seed,step,return,model_error\n"
DAMAGE = {
    "few cells": HEAD + "a,0,1000\n",
    "many cells": HEAD + "a,0,1000,1.0,0.5,9\n",
    "no number": HEAD + "a,zero,1000,1.0,0.5\n",
    "open quote": HEAD + 'a,0,1000,1.0,"0.5\n',
    "no column": "setting,seed\na,0\n",
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_curves_are_named(name: str, tmp_path: Path) -> None:
    (tmp_path / "curves.csv.gz").write_bytes(gzip.compress(DAMAGE[name].encode()))
    (tmp_path / "runs.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"curves\.csv\.gz is damaged .*; restore it"):
        read_report(tmp_path)


@pytest.mark.parametrize("text", ["[" * 100_000, "[]", "1", '{"a/seeds0-1": 1}'])
def test_damaged_runs_are_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "curves.csv.gz").write_bytes(gzip.compress(HEAD.encode()))
    (tmp_path / "runs.json").write_text(text)
    with pytest.raises(ConfigError, match=r"runs\.json is damaged .*; restore it"):
        read_report(tmp_path)


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
