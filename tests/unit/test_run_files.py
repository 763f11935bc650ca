"""What a run leaves: one small run of the command with two seeds and two distractors, and every file of it read back."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np
import pytest

from agents.command import parse
from mbrl_taskmet.runner.agent_record import summarize
from mbrl_taskmet.runner.command import cores
from mbrl_taskmet.runner.records import Layout, Recorder, read_rows, rows_until, write_json
from mbrl_taskmet.runner.rundir import free_directory, to_json
from mbrl_taskmet.runner.statistics import ci95, iqm
from mbrl_taskmet.runner.versions import environment

CARTPOLE = "CartPole-v1"
SETTINGS = ["--distractors", "2", "--seeds", "2", "--seed", "3", "--steps", "1000", "--eval-every", "100", "--eval-episodes",
            "2", "--random-steps", "64", "--batch-size", "32", "--metric-warmup", "100"]  # fmt: skip
STATE = ("cart_position", "cart_velocity", "pole_angle", "pole_velocity")
SCALARS = {"eval/return", "train/model_mse", "train/model_mse_state", "train/task_loss", "train/q_loss", "solver/residual",
           "train/skipped_updates", "time/steps_per_second", "metric/distractors_mean",
           *(f"metric/{name}" for name in STATE)}  # fmt: skip


class Finished(NamedTuple):
    """A run that has ended."""

    directory: Path
    output: str
    error: str


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    logdir = tmp_path_factory.mktemp("logs")
    environment = os.environ | {
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path_factory.getbasetemp() / "jax_cache"),
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    }
    command = [sys.executable, "-m", "agents.cartpole", *SETTINGS, "--film", "--logdir", str(logdir)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    (directory,) = logdir.iterdir()
    return Finished(directory, done.stdout, done.stderr)


def strict(text: str) -> Any:
    """JSON as the standard has it: NaN and infinity are refused, under any name, and so are numbers that overflow to it."""

    def no(constant: str) -> NoReturn:
        raise ValueError(f"{constant} is no JSON")

    def finite(number: str) -> float:
        assert math.isfinite(float(number)), number
        return float(number)

    return json.loads(text, parse_constant=no, parse_float=finite)


@pytest.fixture(scope="module")
def rows(run: Finished) -> list[dict[str, Any]]:
    return [strict(line) for line in (run.directory / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def test_the_directory_holds_what_the_manual_says(run: Finished) -> None:
    expected = ["checkpoints", "config.json", "curves.png", "film.gif", "metrics.jsonl", "summary.json", "tensorboard"]
    assert sorted(path.name for path in run.directory.iterdir()) == expected
    assert {"cartpole-v1", "d2", "taskmet", "1000steps", "seeds3-4"} <= set(run.directory.name.split("_"))


def test_the_output_is_quiet_when_it_is_no_terminal(run: Finished) -> None:
    assert run.error == ""
    assert len(run.output.splitlines()) == 4
    assert f"film: {run.directory / 'film.gif'}, " in run.output
    assert "taskmet on CartPole-v1 with 2 distractors, 2 seed(s), 1000 steps, needs about" in run.output.splitlines()[0]
    assert str(run.directory / "curves.png") in run.output


def test_the_configuration_is_complete(run: Finished) -> None:
    saved = strict((run.directory / "config.json").read_text(encoding="utf-8"))
    expected = parse(CARTPOLE, SETTINGS).config.resolve()
    made_by = {name: saved.pop(name) for name in ("versions", "device", "random_numbers")}
    assert saved == json.loads(json.dumps(to_json(expected.names)))
    assert made_by["versions"] == environment()["versions"] and made_by["device"]["platform"] == "cpu"
    names = saved["settings"]
    assert (names["env"], names["distractors"], names["seeds"]) == (CARTPOLE, 2, 2)


def test_the_metrics_have_one_line_per_evaluation_and_seed(rows: list[dict[str, Any]]) -> None:
    assert [(row["step"], row["seed"]) for row in rows] == [(step, seed) for step in range(100, 1001, 100) for seed in (3, 4)]
    for row in rows:
        assert set(row) == SCALARS | {"step", "seed", "metric/diagonal", "wall_time", "wall_seconds"}


def test_every_number_of_the_metrics_is_there_once_it_can_be(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        missing = {key for key, value in row.items() if value is None}
        assert missing == ({"solver/residual"} if row["step"] == 100 else set())  # the metric starts to move at step 100
        assert 0 < row["train/model_mse_state"] < row["train/model_mse"]
        assert row["metric/distractors_mean"] == pytest.approx(sum(row["metric/diagonal"][4:]) / 2)
        assert [row[f"metric/{name}"] for name in STATE] == row["metric/diagonal"][:4]
        assert 1 <= row["eval/return"] <= 500
    first, last = rows[0]["metric/diagonal"], rows[-2]["metric/diagonal"]
    assert first == pytest.approx([1.0] * 6) and last != pytest.approx([1.0] * 6, abs=1e-3)


@pytest.fixture(scope="module", params=[3, 4])
def events(run: Finished, request: pytest.FixtureRequest) -> tuple[int, Any]:
    """A seed, and its event files as TensorBoard reads them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(
        str(run.directory / "tensorboard" / f"seed_{request.param}"), size_guidance={"histograms": 0}
    )
    return request.param, accumulator.Reload()


def test_tensorboard_shows_one_run_per_seed(run: Finished) -> None:
    assert sorted(path.name for path in (run.directory / "tensorboard").iterdir()) == ["seed_3", "seed_4"]


def test_tensorboard_reads_the_metrics_back_to_float32(events: tuple[int, Any], rows: list[dict[str, Any]]) -> None:
    seed, accumulator = events
    assert set(accumulator.Tags()["scalars"]) == SCALARS
    for tag in SCALARS:
        expected = [(row["step"], np.float32(row[tag])) for row in rows if row["seed"] == seed and row[tag] is not None]
        assert [(event.step, np.float32(event.value)) for event in accumulator.Scalars(tag)] == expected, tag


def test_tensorboard_reads_the_whole_metric_as_a_histogram(events: tuple[int, Any], rows: list[dict[str, Any]]) -> None:
    seed, accumulator = events
    assert accumulator.Tags()["histograms"] == ["metric/diagonal"]
    diagonals = {row["step"]: row["metric/diagonal"] for row in rows if row["seed"] == seed}
    histograms = accumulator.Histograms("metric/diagonal")
    assert [event.step for event in histograms] == list(diagonals)
    for event in histograms:
        diagonal, histogram = diagonals[event.step], event.histogram_value
        assert (histogram.num, histogram.min, histogram.max) == (6, min(diagonal), max(diagonal))
        assert histogram.sum == pytest.approx(sum(diagonal))


def test_the_curves_are_a_picture_with_something_on_it(run: Finished) -> None:
    from matplotlib.image import imread

    picture = imread(run.directory / "curves.png")
    height, width = picture.shape[:2]
    assert height > 300 and width > 3 * height
    for panel in np.array_split(picture[..., :3], 3, axis=1):  # return, model error, metric: white with dark lines and colours
        assert panel.mean() > 0.8 and panel.min() < 0.2
        assert np.ptp(panel, axis=-1).max() > 0.2


def test_the_summary_says_what_the_run_came_to(run: Finished, rows: list[dict[str, Any]]) -> None:
    summary = strict((run.directory / "summary.json").read_text(encoding="utf-8"))
    last = rows[-2:]
    assert set(summary) >= {"config", "versions", "device", "seeds", "env_steps", "final_return", "mean", "iqm", "ci95",
                            "model_mse", "model_mse_state", "metric_diagonal", "steps_per_second", "compile_seconds",
                            "wall_seconds"}  # fmt: skip
    made_by = {name: summary[name] for name in ("versions", "device", "random_numbers")}
    assert summary["config"] | made_by == strict((run.directory / "config.json").read_text(encoding="utf-8"))
    assert (summary["seeds"], summary["env_steps"]) == ([3, 4], 1000)
    assert summary["final_return"] == [row["eval/return"] for row in last]
    assert summary["model_mse"] == [row["train/model_mse"] for row in last]
    assert summary["model_mse_state"] == [row["train/model_mse_state"] for row in last]
    assert summary["metric_diagonal"] == [row["metric/diagonal"] for row in last]
    returns = summary["final_return"]
    assert (summary["mean"], summary["iqm"]) == (sum(returns) / 2, iqm(returns))
    assert summary["ci95"] == pytest.approx(ci95(returns))
    assert summary["versions"]["jax"].count(".") == 2 and summary["device"]["count"] >= 1
    assert min(summary["steps_per_second"], summary["compile_seconds"], summary["wall_seconds"]) > 0


def test_a_return_that_is_not_finite_leaves_a_summary_all_the_same(rows: list[dict[str, Any]]) -> None:
    spoilt = [*rows[:-1], rows[-1] | {"eval/return": None, "failure": "the parameters of model turned non-finite at step 64"}]
    summary = summarize(parse(CARTPOLE, SETTINGS).config.resolve(), spoilt, compile_seconds=1.0)
    assert summary["final_return"] == [rows[-2]["eval/return"], None]
    assert summary["mean"] in (None, rows[-2]["eval/return"])
    assert summary["failures"] == {"4": "the parameters of model turned non-finite at step 64"}


def test_numbers_that_are_not_finite_are_written_as_null(tmp_path: Path) -> None:
    write_json(
        tmp_path / "x.json", {"a": math.nan, "b": [np.float32("inf"), -math.inf, 1.5], "c": {"d": np.array([0.1, math.nan])}}
    )
    assert strict((tmp_path / "x.json").read_text()) == {"a": None, "b": [None, None, 1.5], "c": {"d": [0.1, None]}}
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]


@pytest.fixture
def recorded(tmp_path: Path, rows: list[dict[str, Any]]) -> Iterator[Path]:
    """A directory whose metrics a kill cut short in the middle of a line."""
    whole = [json.dumps(row) for row in rows]
    (tmp_path / "metrics.jsonl").write_text("\n".join([*whole[:5], whole[5][:40]]))
    yield tmp_path


def test_a_line_that_a_kill_cut_short_is_no_row(recorded: Path, rows: list[dict[str, Any]]) -> None:
    assert read_rows(recorded) == rows[:5]


def test_a_recorder_that_goes_on_drops_what_came_after_its_step(recorded: Path, rows: list[dict[str, Any]]) -> None:
    recorder = Recorder(recorded, rows_until(recorded, 200, Layout(range(3, 5), 100, tuple(SCALARS), whole=True)))
    assert recorder.rows == read_rows(recorded) == rows[:4]
    recorder.write(rows[4:6])
    recorder.close()
    assert read_rows(recorded) == rows[:6]


def test_a_run_never_gets_the_directory_of_another(run: Finished) -> None:
    argv = [*SETTINGS, "--logdir", str(run.directory.parent)]
    second = parse(CARTPOLE, argv).directory
    assert second.name == f"{run.directory.name}_2"
    second.mkdir()
    third = parse(CARTPOLE, argv).directory
    second.rmdir()
    assert third.name == f"{run.directory.name}_3"
    other = parse(CARTPOLE, [*argv, "--metric-lr", "0.01"]).directory
    assert other.name == f"{run.directory.name.replace('metric-warmup', 'metric-lr-0.01_metric-warmup')}"


def test_only_the_cores_that_the_process_may_use_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3}, raising=False)
    assert cores() == 1
    monkeypatch.delattr(os, "sched_getaffinity")
    assert cores() == os.cpu_count()


def test_a_made_name_ends_with_a_whole_setting(tmp_path: Path) -> None:
    given = {f"setting_{number}": 10**number for number in range(12)}
    name = free_directory(None, str(tmp_path), ["cartpole", "d0"], given).name
    assert 130 < len(name) <= 150 and name.startswith("cartpole_d0_") and name.split("_")[-1].startswith("setting-")
    assert name.split("_")[-1] in {f"setting-{number}-{10**number}" for number in range(12)}
    assert len(free_directory(None, str(tmp_path), ["x" * 200], given).name) == 150
