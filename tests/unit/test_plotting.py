"""Runs side by side: grouped by settings, drawn with what they have, as PNG and SVG."""

from __future__ import annotations

import json
import math
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from mbrl_taskmet.plotting import main, read_groups
from mbrl_taskmet.rl.settings import Config
from mbrl_taskmet.runner.plotting import STYLES, band, curve, plot_run
from mbrl_taskmet.runner.rundir import to_json


def make_run(directory: Path, method: str, first: int, score: float, distractors: int = 2, **given: Any) -> Path:
    """A run of two seeds and three evaluations with returns `score`, `score` + 2."""
    directory.mkdir(parents=True)
    settings = Config(method=method, seed=first, seeds=2, distractors=distractors, **given).resolve()
    (directory / "config.json").write_text(json.dumps(to_json(settings.names)))
    lines = []
    for step in (1000, 2000, 3000):
        for i in (0, 1):
            row = {"step": step, "seed": first + i, "eval/return": score + 2 * i, "train/model_mse_state": 0.1}
            if method == "model_free":
                row["train/model_mse_state"] = None  # type: ignore[assignment]
            if method == "taskmet":
                row |= {"metric/pole_angle": 2.0, "metric/distractors_mean": 0.5, "metric/diagonal": [2.0, 0.5, 0.5]}  # type: ignore[dict-item]
            lines.append(json.dumps(row))
    (directory / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    return directory


def test_a_bad_command_line_and_a_pipe_are_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path / "run", "mle", 0, 1.0)
    (run / "config.json").unlink()
    os.mkfifo(run / "config.json")
    for argv, sentence in (
        ([str(run), "--ouput", "x"], "'--ouput' is no option; did you mean --output?"),
        ([str(run), "--output"], "argument --output: expected one argument; see --help"),
        ([], "the following arguments are required: DIR"),
        ([str(run)], "is damaged or from newer code (ValueError: it is no regular file); restore it to resume"),
    ):
        assert main(argv) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ") and sentence in error and error.count("\n") == 1


def test_runs_of_equal_settings_are_one_group_and_named_by_what_differs(tmp_path: Path) -> None:
    make_run(tmp_path / "blocks" / "a", "taskmet", 0, 10.0)
    make_run(tmp_path / "blocks" / "b", "taskmet", 2, 20.0, steps=200_000)
    make_run(tmp_path / "c", "taskmet", 0, 30.0, metric_lr=0.01)
    make_run(tmp_path / "d", "mle", 0, 40.0)
    groups = read_groups([tmp_path / "blocks", tmp_path / "c", tmp_path / "d"])
    assert list(groups) == ["taskmet, metric lr 0.003", "taskmet, metric lr 0.01", "mle"]
    assert sorted({row["seed"] for row in groups["taskmet, metric lr 0.003"]}) == [0, 1, 2, 3]


def test_the_environment_is_named_where_it_differs(tmp_path: Path) -> None:
    make_run(tmp_path / "a", "mle", 0, 10.0, distractors=0)
    make_run(tmp_path / "b", "mle", 0, 10.0, distractors=8)
    assert list(read_groups([tmp_path])) == ["mle, distractors 0", "mle, distractors 8"]


def test_a_band_is_the_mean_and_its_standard_error() -> None:
    axis = Figure().subplots()
    band(axis, np.array([1, 2, 3]), np.array([[1.0, 2.0, math.nan], [3.0, math.nan, math.nan]]), color="black")
    np.testing.assert_array_equal(axis.lines[0].get_ydata(), [2.0, 2.0, math.nan])
    heights = axis.collections[0].get_paths()[0].get_extents()
    assert (heights.y0, heights.y1) == (1.0, 3.0)  # s/√2 of 1 and 3 is 1


def test_the_command_draws_png_and_svg(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for i, method in enumerate(("taskmet", "mle", "model_free")):
        make_run(tmp_path / "runs" / method, method, 0, 100.0 * i)
    assert main([str(tmp_path / "runs"), "--output", str(tmp_path / "all.png")]) == 0
    picture = imread(tmp_path / "all.png")[..., :3]
    for panel in np.array_split(picture, 3, axis=1):  # return, model error, metric
        assert panel.mean() > 0.8 and panel.min() < 0.2
    svg = (tmp_path / "all.svg").read_text()
    assert svg.startswith("<?xml") and "</svg>" in svg
    assert sorted(path.name for path in tmp_path.iterdir()) == ["all.png", "all.svg", "runs"]
    assert "all.svg" in capsys.readouterr().out
    assert main([str(tmp_path / "runs"), "--output", str(tmp_path / "again.png")]) == 0
    assert (tmp_path / "again.svg").read_text() == svg


def test_styles_differ_without_colour() -> None:
    assert len({(str(style["linestyle"]), style["marker"]) for style in STYLES}) == len(STYLES)
    assert len({style["marker"] for style in STYLES}) == len(STYLES)


def test_a_directory_without_runs_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 2
    assert f"error: {tmp_path} holds no run with an evaluation" in capsys.readouterr().err


def test_a_curve_has_a_row_per_seed_and_gaps_for_nulls() -> None:
    rows = [{"step": 1, "seed": 4, "x": 1.0}, {"step": 2, "seed": 4, "x": None}, {"step": 1, "seed": 5, "x": 3.0}]
    steps, values = curve(rows, "x")
    np.testing.assert_array_equal(steps, [1, 2])
    np.testing.assert_array_equal(values, [[1.0, math.nan], [3.0, math.nan]])


def test_a_run_with_many_dimensions_is_drawn_without_a_name_for_each(tmp_path: Path) -> None:
    names = tuple(f"dimension_{i}" for i in range(50))
    row = {"seed": 0, "eval/return": 1.0, "train/model_mse_state": 0.1, "metric/diagonal": [1.0] * 58}
    rows = [{**row, **{f"metric/{name}": 1.0 for name in names}, "step": step} for step in (1000, 2000)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # matplotlib only warns where a legend takes the place of the curves
        plot_run(rows, names, "catch", tmp_path / "curves.png")
    assert (tmp_path / "curves.png").exists()
