"""The command of the decision tasks: what it refuses, what it leaves, and that it goes on where it was stopped."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from decision_tasks import (
    DFL,
    MSE,
    OBJECTIVES,
    TASKS,
    Budget,
    CellSettings,
    Cubic,
    Data,
    MetricLearning,
    Portfolio,
    Split,
    Task,
    cells,
    run,
    split,
    train,
)
from decision_tasks.base import decided_value, relaxed_value
from decision_tasks.command import main
from decision_tasks.prices import parse_prices
from mbrl_taskmet.core.settings import ConfigError, setting
from mbrl_taskmet.runner.records import read_rows

HEAD = "date,A,B\n"
DAYS = "".join(f"2024-01-{day:02},{10 + day},{20 + day}\n" for day in range(1, 29))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("--task cubi", "--task 'cubi' is unknown; did you mean 'cubic'?"),
        ("--also-choose 25,60", "--also-choose is 60; give a number from 1 to the 50 items there are"),
        ("--also-choose 3,1", "--also-choose is (3, 1), and --choose 1; give each number once"),
        ("--also-choose 3 --decision-weights 1", "--decision-weights is (1.0,); give one for each of the 2 decisions"),
        ("--also-choose 3 --decision-weights 0,0", "--decision-weights is (0.0, 0.0); give one above 0"),
        ("--also-choose 3 --decision-weights 1,-1", "--decision-weights is -1.0; give 0 or more"),
        ("--task portfolio --also-choose 3", "--also-choose (3,) does nothing for --task portfolio"),
        ("--method dfl --alpha -1", "--alpha is -1.0; give 0 or more"),
        ("--method dfl --alpha nan", "--alpha is nan; give 0 or more"),
        ("--method taskmet --alpha 1", "--alpha 1.0 does nothing for --method taskmet"),
        ("--choose 51", "--choose is 51; give a number from 1 to the 50 items there are"),
        ("--task budget --choose 6", "--choose is 6; give a number from 1 to the 5 items there are"),
        ("--seeds 2147483647", "21474836470 runs are more than the 1048576 that train at once; give fewer --seeds"),
        ("--items 5 --choose 5", "--choose is 5 of 5 items, and there is nothing to decide; give fewer, or more --items"),
        ("--task budget --choose 5", "--choose is 5 of 5 items, and there is nothing to decide"),
        ("--prices x.csv", "--prices x.csv does nothing for --task cubic"),
        ("--output relu", "--output relu does nothing for --task cubic; leave it out, or use --task budget"),
        (
            "--task all --method mse --alpha 1",
            "--alpha 1.0 does nothing for --method mse; leave it out, or use --method dfl or lodl",
        ),
        ("--method all --alpha 1", "--alpha 1.0 does nothing for --method all; leave it out, or use --method dfl or lodl"),
        ("--method all --users 5", "--users 5 does nothing for --task cubic; leave it out, or use --task budget"),
        ("--task all --method all --items 21", "--items is 21; give a number from 2 to the 20 tickers there are"),
        ("--task budget --output tanh", "--output 'tanh' is unknown; did you mean"),
        ("--datasets 0", "--datasets is 0; give 1 or more"),
        ("--seed 2147483648", "--seed is 2147483648; give 2147483647 or less"),
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


def test_all_stands_for_the_rows_of_the_tables_and_every_task() -> None:
    assert tuple(OBJECTIVES) == ("mse", "dfl", "lodl", "taskmet")
    assert [cell.label for cell in cells({"method": "all"})] == [
        "mse", "dfl α=0", "dfl α=10", "lodl α=0", "lodl α=10", "taskmet",
    ]  # fmt: skip
    everything = cells({"task": "all", "method": "all", "users": 7, "lodl_samples": 9, "train": 30})
    assert [cell.names["task"] for cell in everything] == [task for task in TASKS for _ in range(6)]
    assert [cell.names["users"] for cell in everything if "users" in cell.names] == [7] * 6
    assert [cell.names["lodl_samples"] for cell in everything if "lodl_samples" in cell.names] == [9] * 6
    assert {cell.names["train"] for cell in everything} == {30}
    shared = [[one.shares(other) for other in everything] for one in everything]  # of a task, all but lodl are alike
    assert sum(map(sum, shared)) == len(TASKS) * (4 * 4 + 2 * 2)
    data = [[one.shares_data(other) for other in everything] for one in everything]
    assert sum(map(sum, data)) == len(TASKS) * 6 * 6


def test_several_decisions_on_one_prediction_are_weighed_and_scored_apart() -> None:
    sizes: dict[str, Any] = {"items": 9, "train": 20, "validation": 10, "test": 30}
    one, other = Cubic(choose=1, **sizes), Cubic(choose=4, **sizes)
    both = Cubic(choose=1, also_choose=(4,), decision_weights=(2.0, 0.5), **sizes)
    data = one.data(jax.random.key(0)).test
    prediction = jax.random.normal(jax.random.key(1), data.y.shape)
    for value in (decided_value, relaxed_value):
        apart = 2 * value(one, prediction, data) + 0.5 * value(other, prediction, data)
        np.testing.assert_allclose(value(both, prediction, data), apart, rtol=1e-5)
        watched = value(replace(both, decision_weights=(1.0, 0.0)), prediction, data)
        np.testing.assert_allclose(watched, value(one, prediction, data), rtol=1e-6)
    result = train(both, MetricLearning(warmup=1, inner_steps=1), datasets=1, seeds=1, steps=10)
    assert list(result.apart) == ["choose 1", "choose 4"]
    weighed = 2 * result.apart["choose 1"].value + 0.5 * result.apart["choose 4"].value
    np.testing.assert_allclose(result.scores.value, weighed, rtol=1e-5)


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

    from decision_tasks import job

    rows_of, calls = job.rows_of, []

    def interrupt(*args: Any) -> Any:
        calls.append(args)
        if len(calls) == 2:
            signal.raise_signal(signal.SIGINT)
        return rows_of(*args)

    monkeypatch.setattr(job, "rows_of", interrupt)
    cut = tmp_path / "cut"
    assert main([*SMALL, "--logdir", str(tmp_path), "--name", "cut"]) == 130
    assert f"stopped at step 20; to go on: python -m decision_tasks --resume {cut}" in capsys.readouterr().err
    monkeypatch.setattr(job, "rows_of", rows_of)
    assert main(["--resume", str(cut), "--seeds", "3"]) == 2
    assert main(["--resume", str(cut)]) == 0
    resumed = json.loads((cut / "summary.json").read_text())
    for key in ("normalized_dq", "test_mse"):
        assert resumed[key] == whole[key]
    rows = [[row["validation/score"] for row in read_rows(tmp_path / name / "cubic-taskmet")] for name in ("whole", "cut")]
    assert rows[0] == rows[1] and len(rows[0]) == 4 * 3

    (cut / "cubic-taskmet" / "metrics.jsonl").unlink()  # a finished cell is not trained again
    assert main(["--resume", str(cut)]) == 0
    assert not (cut / "cubic-taskmet" / "metrics.jsonl").exists()


@pytest.mark.parametrize(
    ("saved", "sentence"),
    [
        ({"format": 3}, "is of format 3, from newer code than this; update to resume it"),
        ({"format": 0}, "is damaged or from newer code (ValueError: there is no format 0)"),
        ({}, "is damaged or from newer code (KeyError: 'format')"),
        ({"format": 1, "config": {"attention": True}}, "is damaged or from newer code (TypeError"),
        ({"format": 2, "cells": [{"attention": True}]}, "is damaged or from newer code (TypeError"),
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
    from decision_tasks import job

    learned, carries = job.learned, []
    monkeypatch.setattr(job, "learned", lambda trainer, result: carries.append(result.carry) or learned(trainer, result))
    tiny = ["--datasets", "1", "--seeds", "1", "--train", "20", "--validation", "5", "--test", "5", "--steps", "100"]
    assert main([*tiny, "--method", "mse", "--x64", "--logdir", str(tmp_path), "--name", "wide"]) == 0
    floats = {leaf.dtype for leaf in jax.tree.leaves(carries) if np.issubdtype(leaf.dtype, np.floating)}
    assert floats == {np.dtype(np.float64)} and jax.tree.leaves(carries[0].best_params)
    assert not jax.config.jax_enable_x64
    assert json.loads((tmp_path / "wide" / "config.json").read_text())["cells"][0]["x64"] is True
    assert main(["--resume", str(tmp_path / "wide"), "--no-x64"]) == 2
    assert "has --x64 True, not False; leave it out to resume" in capsys.readouterr().err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_a_run_at_a_validation_and_it_goes_on_to_the_same_end(
    number: int, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from decision_tasks import job

    rows_of, at = job.rows_of, []

    def interrupt(report: Any, iteration: int, seeds: int) -> Any:
        at.append(iteration)
        if len(at) == 3:
            signal.raise_signal(number)
        return rows_of(report, iteration, seeds)

    arguments = [*SMALL, "--method", "dfl", "--logdir", str(tmp_path)]
    assert main([*arguments, "--name", "whole"]) == 0
    monkeypatch.setattr(job, "rows_of", interrupt)
    assert main([*arguments, "--name", "cut"]) == code
    assert f"stopped at step 30; to go on: python -m decision_tasks --resume {tmp_path / 'cut'}" in capsys.readouterr().err
    assert main(["--resume", str(tmp_path / "cut")]) == 0
    assert at[:4] == [10, 20, 30, 40]  # each chunk once
    same_end(tmp_path / "whole", tmp_path / "cut", "cubic-dfl-alpha0")


def same_end(one: Path, other: Path, cell: str) -> int:
    """The number of rows, after it was asserted that two runs of a cell are the same but for their times."""
    times = ("wall_time", "wall_seconds")
    rows = [[{k: v for k, v in row.items() if k not in times} for row in read_rows(path / cell)] for path in (one, other)]
    results = [json.loads((path / cell / "result.json").read_text()) for path in (one, other)]
    assert rows[0] == rows[1] and len(rows[0]) > 0
    assert {k: v for k, v in results[0].items() if k not in times} == {k: v for k, v in results[1].items() if k not in times}
    return len(rows[0])


def test_a_run_of_format_1_is_resumed_from_its_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from decision_tasks import job

    rows_of = job.rows_of
    arguments = [*SMALL, "--method", "mse", "--choose", "2", "--logdir", str(tmp_path)]
    assert main([*arguments, "--name", "whole"]) == 0
    monkeypatch.setattr(job, "rows_of", lambda *args: signal.raise_signal(signal.SIGINT) or rows_of(*args))
    assert main([*arguments, "--name", "old"]) == 130
    calls: list[int] = []
    monkeypatch.setattr(job, "rows_of", lambda *args: calls.append(args[1]) or rows_of(*args))

    # as format 1 left it
    old, place = tmp_path / "old", tmp_path / "old" / "cubic-mse" / "checkpoints"
    (place / "state").rename(tmp_path / "state")
    place.rename(tmp_path / "empty")
    (tmp_path / "state").rename(place)
    given = {"task": "cubic", "method": "mse", "datasets": 2, "seeds": 2, "seed": 0, "steps": 3000, "train": 20,
             "validation": 10, "test": 10, "choose": 2, "x64": False}  # fmt: skip
    unset = ("alpha", "items", "users", "rates", "relaxation", "output", "prices", "risk", "lodl_std", "lodl_samples")
    (old / "config.json").write_text(json.dumps({"format": 1, "config": {**given, **dict.fromkeys(unset)}}))
    assert main(["--resume", str(old), "--choose", "3"]) == 2
    assert "has --choose 2, not 3; leave it out to resume" in capsys.readouterr().err
    assert main(["--resume", str(old)]) == 0
    assert calls[0] == 20
    same_end(tmp_path / "whole", old, "cubic-mse")
    assert json.loads((old / "config.json").read_text()) == json.loads((tmp_path / "whole" / "config.json").read_text())


@dataclass(frozen=True)
class Coins(Task):
    """Take one of `items` coins, each worth what it says or, on a bad day, `loss` less."""

    name = "coins"

    items: int = setting(3, "coins to choose from", low=2)
    loss: float = setting(0.5, "what a coin loses on a bad day", low=0)

    def data(self, key: jax.Array) -> Split:
        x = jax.random.uniform(key, (30, self.items, 1))
        return split(Data(x, x - self.loss * (x > 0.5)), train=10, validation=10)

    def value(self, z: jax.Array, y: jax.Array, given: Any = ()) -> jax.Array:
        return jnp.sum(z * y[:, 0])

    def decide(self, y: jax.Array, given: Any = ()) -> jax.Array:
        return jax.nn.one_hot(jnp.argmax(y[:, 0]), self.items)


TINY = {"datasets": 2, "seeds": 1, "steps": 300}


def test_a_task_of_ones_own_has_its_flags(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(TASKS, "coins", Coins)
    arguments = ["--task", "coins", "--method", "mse", "--datasets", "2", "--seeds", "1", "--steps", "300"]
    assert main([*arguments, "--items", "4", "--loss", "0.25", "--logdir", str(tmp_path), "--name", "coins"]) == 0
    assert "| method | coins | published |" in capsys.readouterr().out
    saved = json.loads((tmp_path / "coins" / "config.json").read_text())["cells"][0]
    assert (saved["task"], saved["items"], saved["loss"]) == ("coins", 4, 0.25)
    assert main(["--loss", "1"]) == 2
    assert "--loss 1.0 does nothing for --task cubic; leave it out, or use --task coins" in capsys.readouterr().err
    assert main([*arguments, "--loss", "-1"]) == 2
    assert "--loss is -1.0; give 0 or more" in capsys.readouterr().err
    assert main(["--task", "coins"]) == 2
    assert "the task coins has no relaxed decision and taskmet differentiates it" in capsys.readouterr().err


def test_run_trains_with_records_what_is_given_in_python(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    task = Coins(items=4)
    both = [CellSettings(task=task, objective=MSE(), **TINY), CellSettings(task=Cubic(train=20), objective=DFL(10.0), **TINY)]
    said: list[str] = []
    tables = run(both, tmp_path / "both", say=said.append)
    assert "2 cell(s), 4 runs" in said[0] and tables.text + "\n" == (tmp_path / "both" / "tables.md").read_text()
    alone = train(task, "mse", **TINY)
    assert tables.summary["cells"][0]["test_mse"] == pytest.approx(alone.test_mse.reshape(-1), rel=1e-6)
    assert {path.name for path in (tmp_path / "both").iterdir()} == {
        "config.json", "summary.json", "tables.md", "cubic.png", "coins-mse", "cubic-dfl-alpha10",
    }  # fmt: skip
    assert run(both, tmp_path / "both").text == tables.text  # trained already

    other = [CellSettings(task=Coins(items=5), objective=MSE(), **TINY), both[1]]
    for wrong, sentence in [
        (other, "has --items 4, not 5; give another directory"),
        (both[:1], "is a run of 2 cell"),
        ([*both, both[0]], "two cells would write to coins-mse"),
        ([], "there is no cell to train"),
    ]:
        with pytest.raises(ConfigError, match=sentence):
            run(wrong, tmp_path / "both")
    assert main(["--resume", str(tmp_path / "both")]) == 2
    assert "was started from Python, with the task coins, which no flag gives; call run" in capsys.readouterr().err


def test_arrays_are_told_apart_in_a_run(tmp_path: Path) -> None:
    def budget(rate: float) -> CellSettings:
        return CellSettings(task=Budget(rates=rate * np.tri(10), train=10, test=10), objective=MSE(), **TINY)

    run(budget(0.1), tmp_path / "budget")
    run(budget(0.1), tmp_path / "budget")
    with pytest.raises(ConfigError, match="so that none can be scored; give data on which decisions differ"):
        run(CellSettings(task=Budget(rates=0.1 * np.eye(10)), objective=MSE(), **TINY), tmp_path / "alike")
    assert not (tmp_path / "alike").exists()
    with pytest.raises(ConfigError, match="has rates of the task budget float64"):
        run(budget(0.2), tmp_path / "budget")
    with pytest.raises(ConfigError, match="the click rates are given twice"):
        Budget(rates=0.1 * np.eye(10), rates_file="rates.csv")
    with pytest.raises(ConfigError, match="the prices are given twice"):
        Portfolio(prices=np.ones((900, 5)), source="prices.csv")


@pytest.mark.parametrize("sizes", [{"datasets": 0}, {"seeds": 0}, {"steps": 0}, {"seed": -1}])
def test_sizes_given_in_python_are_checked(sizes: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=f"--{next(iter(sizes))} is "):
        train(Cubic(), "mse", **sizes)


def test_generated_prices_follow_the_seed_of_the_run() -> None:
    task = Portfolio(source="factor")
    one, same, other = (task.drawn(seed).prices for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert one is not None and one.shape == (4000, 50) and not np.allclose(one, other)
    with pytest.raises(ConfigError, match="are not drawn yet"):
        task.data(jax.random.key(0))


def test_settings_start_no_jax_and_training_no_reinforcement_learning() -> None:
    code = """if True:
        import sys
        import decision_tasks.command, decision_tasks.job, decision_tasks.training
        from decision_tasks import cells
        cells({"task": "all", "method": "all"}), cells({"task": "portfolio", "prices": "factor"})
        from jax._src import xla_bridge
        assert not xla_bridge.backends_are_initialized()
        assert not [name for name in sys.modules if name.startswith("mbrl_taskmet.rl")]
    """
    subprocess.run([sys.executable, "-c", code], check=True, timeout=180)
