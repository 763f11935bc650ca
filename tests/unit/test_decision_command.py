"""The command of the decision tasks: what it refuses, what it leaves, and that it goes on where it was stopped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from decision_tasks import METHODS, Cubic, Task, train
from decision_tasks import config as names
from decision_tasks.command import main
from decision_tasks.prices import parse_prices
from mbrl_taskmet.core.settings import ConfigError
from mbrl_taskmet.runner.records import read_rows

HEAD = "date,A,B\n"
DAYS = "".join(f"2024-01-{day:02},{10 + day},{20 + day}\n" for day in range(1, 29))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("--task cubi", "--task 'cubi' is unknown; did you mean 'cubic'?"),
        ("--method dfl --alpha -1", "--alpha is -1.0; give a finite number, 0 or more"),
        ("--method dfl --alpha nan", "--alpha is nan; give a finite number, 0 or more"),
        ("--method taskmet --alpha 1", "--alpha 1.0 does nothing for --method taskmet"),
        ("--choose 51", "--choose is 51; give a number from 1 to the 50 items there are"),
        ("--task budget --choose 6", "--choose is 6; give a number from 1 to the 5 items there are"),
        ("--prices x.csv", "--prices x.csv does nothing for the task cubic"),
        ("--output relu", "--output relu does nothing for the task cubic; leave it out, or use --task budget"),
        ("--task budget --output tanh", "--output 'tanh' is unknown; did you mean"),
        ("--datasets 0", "--datasets is 0; give 1 or more"),
        ("--seed 2147483648", "--seed is 2147483648; give one under 2147483648"),
        ("--steps many", "argument --steps: invalid int value: 'many'"),
        ("--stesp 5", "'--stesp' is no option; did you mean --steps?"),
        ("--task portfolio --items 21", "--items is 21; give a number from 2 to the 20 tickers there are"),
        ("--task portfolio --train 9000", "the prices are of 8313 days and a data set needs 9669; give more days"),
        ("--task portfolio --prices none.csv", "--prices none.csv cannot be read (No such file or directory)"),
        ("--task budget --rates none.csv", "--rates none.csv cannot be read"),
        ("--resume nowhere", "nowhere holds no run (no config.json in it)"),
    ],
)
def test_bad_options_are_one_sentence(
    arguments: str, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logdir = [] if "--resume" in arguments else ["--logdir", str(tmp_path)]
    assert main([*arguments.split(), *logdir]) == 2
    output = capsys.readouterr()
    assert output.err.startswith("error: ") and sentence in output.err and output.err.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (HEAD + DAYS + "2024-01-29,ten,3\n", "prices.csv has 'ten' for A in row 30; give a number"),
        (HEAD + DAYS + "2024-01-28,1,3\n", "prices.csv has the date 2024-01-28 twice, again in row 30"),
        (HEAD + DAYS + "29.1.2024,1,3\n", "prices.csv has '29.1.2024' for a date in row 30; write it as 2024-01-31"),
        (HEAD + DAYS + "2024-01-29,1\n", "prices.csv has 2 cells in row 30 and 3 in its header"),
        (HEAD + DAYS + "2024-01-29,-1,3\n", "prices.csv has the price -1 for A in row 30; give a number above 0"),
        (
            HEAD + DAYS + "2024-01-29,,3\n2024-01-30,,3\n",
            "lacks prices on 2 of 30 days, most of them of A (from 2024-01-29 on)",
        ),
        ("date,A\n" + "".join(f"2024-01-{d:02},1\n" for d in range(1, 9)), "prices.csv has one ticker, A; give two or more"),
        ("date,A,A\n" + DAYS, "prices.csv has two columns A; give each ticker one"),
        ("date,ticker,price\n2024-01-01,A,1\n2024-01-01,A,2\n2024-01-01,B,2\n", "has A on 2024-01-01 twice, again in row 3"),
        ("", "prices.csv holds 0 days"),
    ],
)
def test_bad_prices_are_one_sentence(text: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse_prices(text, "prices.csv")
    assert sentence in str(refused.value)


def test_wide_and_long_prices_are_the_same_and_a_missing_day_is_left_out() -> None:
    wide = parse_prices(HEAD + DAYS + "2024-01-29,,3\n", "wide")
    cells = [line.split(",") for line in DAYS.splitlines()]
    long = parse_prices("date,ticker,price\n" + "".join(f"{d},A,{a}\n{d},B,{b}\n" for d, a, b in reversed(cells)), "long")
    np.testing.assert_array_equal(wide.values, long.values)
    assert (wide.tickers, wide.dates, wide.dropped, long.dropped) == (("A", "B"), long.dates, 1, 0)


@pytest.mark.parametrize(
    ("write", "sentence"),
    [
        (
            lambda path: path.write_text("0.1,0.2\n0.3,1.5\n"),
            "the click rate in row 2, column 2 is 1.5; give rates from 0 to 1",
        ),
        (lambda path: path.write_text("0.1,x\n"), "cannot be read"),
        (lambda path: path.write_text("0.1,0.2\n"), "the click rates have the shape (1, 2); give at least 5 rows"),
        (lambda path: np.savez(path, np.array([object()])), "cannot be read"),  # a pickle: never executed
    ],
)
def test_bad_rates_are_one_sentence(write: Any, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / (
        "rates.npz" if "npz" in str(write.__code__.co_names) or "savez" in write.__code__.co_names else "rates.csv"
    )
    write(path)
    assert main(["--task", "budget", "--rates", str(path), "--logdir", str(tmp_path / "logs")]) == 2
    assert sentence in capsys.readouterr().err


def test_a_task_without_a_relaxation_is_refused_by_the_methods_that_need_one() -> None:
    class Hard(Cubic):
        relax = Task.relax

    for method in ("dfl", "taskmet"):
        with pytest.raises(ConfigError, match="the task cubic has no relaxed decision and"):
            train(Hard(), method)
    assert np.isfinite(train(Hard(train=20, validation=5, test=5), "mse", datasets=1, seeds=1, steps=100).test_mse).all()


def test_names_are_those_of_the_code() -> None:
    assert tuple(METHODS) == names.METHODS
    assert [block.label for block in names.Config(method="all").check().blocks] == [
        "mse", "dfl α=0", "dfl α=10", "lodl α=0", "lodl α=10", "taskmet",
    ]  # fmt: skip


SMALL = ["--datasets", "2", "--seeds", "2", "--train", "20", "--validation", "10", "--test", "10", "--steps", "3000"]


def test_a_run_leaves_its_files_and_an_interrupted_one_ends_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*SMALL, "--logdir", str(tmp_path), "--name", "whole"]) == 0
    assert "| taskmet | " in capsys.readouterr().out
    whole = json.loads((tmp_path / "whole" / "summary.json").read_text())
    assert np.shape(whole["normalized_dq"]) == np.shape(whole["test_mse"]) == (4,)
    assert {path.name for path in (tmp_path / "whole").iterdir()} == {
        "config.json", "summary.json", "tables.md", "cubic.png", "cubic-taskmet",
    }  # fmt: skip

    from decision_tasks import report

    rows_of, calls = report.rows_of, []

    def interrupt(*args: Any) -> Any:
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return rows_of(*args)

    monkeypatch.setattr(report, "rows_of", interrupt)
    cut = tmp_path / "cut"
    assert main([*SMALL, "--logdir", str(tmp_path), "--name", "cut"]) == 130
    assert f"python -m decision_tasks --resume {cut}" in capsys.readouterr().err
    monkeypatch.setattr(report, "rows_of", rows_of)
    assert main(["--resume", str(cut), "--seeds", "3"]) == 2
    assert main(["--resume", str(cut)]) == 0
    resumed = json.loads((cut / "summary.json").read_text())
    for key in ("normalized_dq", "test_mse"):
        assert resumed[key] == whole[key]
    rows = [[row["validation/score"] for row in read_rows(tmp_path / name / "cubic-taskmet")] for name in ("whole", "cut")]
    assert rows[0] == rows[1] and len(rows[0]) == 4 * 3

    (cut / "cubic-taskmet" / "metrics.jsonl").unlink()  # a finished block is not trained again
    assert main(["--resume", str(cut)]) == 0
    assert not (cut / "cubic-taskmet" / "metrics.jsonl").exists()


@pytest.mark.parametrize(
    ("saved", "sentence"),
    [
        ({"format": 2}, "is of format 2, from newer code than this; update to resume it"),
        ({"format": 0}, "is damaged or from newer code (ValueError: there is no format 0)"),
        ({}, "is damaged or from newer code (KeyError: 'format')"),
        ({"format": 1, "config": {"attention": True}}, "is damaged or from newer code (TypeError"),
    ],
)
def test_a_run_of_another_format_is_not_resumed(
    saved: dict[str, Any], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"config": {}, **saved}))
    assert main(["--resume", str(tmp_path)]) == 2
    output = capsys.readouterr()
    assert output.err.startswith(f"error: {tmp_path / 'config.json'} {sentence}") and output.err.count("\n") == 1


def test_a_run_in_float64_trains_parameters_in_float64_and_goes_on_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from decision_tasks import report

    learned, carries = report.learned, []
    monkeypatch.setattr(report, "learned", lambda trainer, result: carries.append(result.carry) or learned(trainer, result))
    tiny = ["--datasets", "1", "--seeds", "1", "--train", "20", "--validation", "5", "--test", "5", "--steps", "100"]
    assert main([*tiny, "--method", "mse", "--x64", "--logdir", str(tmp_path), "--name", "wide"]) == 0
    floats = {leaf.dtype for leaf in jax.tree.leaves(carries) if np.issubdtype(leaf.dtype, np.floating)}
    assert floats == {np.dtype(np.float64)} and jax.tree.leaves(carries[0].best_params)
    assert not jax.config.jax_enable_x64
    assert json.loads((tmp_path / "wide" / "config.json").read_text())["config"]["x64"] is True
    assert main(["--resume", str(tmp_path / "wide"), "--no-x64"]) == 2
    assert "has --x64 True, not False; leave it out to resume" in capsys.readouterr().err
