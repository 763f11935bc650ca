"""The benchmark's scores, tables and picture, of made-up runs."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runs import benchmark
from runs.benchmark import EXPERIMENT, GIVEN, draw, scores
from runs.tables import read_csv

TASK = ("cartpole", "oscillators", 16)


def rows(returns: list[float]) -> list[dict[str, Any]]:
    """Two evaluations of each seed, the first 0."""
    return [
        {"seed": seed, "step": step, "eval/return": value, "train/model_mse_state": 1.0}
        for seed, last in enumerate(returns)
        for step, value in ((2500, 0.0), (5000, last))
    ]


@pytest.fixture
def results(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[dict[str, Any]]]:
    monkeypatch.setattr(benchmark, "random_return", lambda environment: 10.0)
    monkeypatch.setattr(benchmark, "LAST", 1)
    monkeypatch.setattr(benchmark, "stratified_ci95", partial(benchmark.stratified_ci95, resamples=100))
    return {
        "cartpole-oscillators-model_free": rows([200.0, 220.0]),
        "cartpole-oscillators-16units-mle": rows([110.0, 60.0]),
        "cartpole-oscillators-16units-taskmet_shared": rows([210.0, 160.0]),
    }


def test_a_score_is_0_for_random_actions_and_1_for_true_transitions(results: dict[str, Any]) -> None:
    found = scores(results, TASK, 1)
    np.testing.assert_allclose(found["model_free"].mean(), 1.0)
    np.testing.assert_allclose(found["mle"], [0.5, 0.25])
    np.testing.assert_allclose(found["taskmet_shared"], [1.0, 0.75])
    assert scores({name: own for name, own in results.items() if "model_free" not in name}, TASK, 1) == {}


def test_the_tables_compare_the_methods_that_every_task_has(results: dict[str, Any], tmp_path: Path) -> None:
    draw(results, tmp_path, tmp_path)
    assert (tmp_path / "benchmark.png").stat().st_size > 10_000
    lines = {line["method"]: line for line in read_csv(tmp_path / "methods.csv")}
    assert set(lines) == {"MLE", "TaskMet, shared metric", "true transitions"}
    assert lines["MLE"]["IQM, end"].startswith("0.38 (0.25 to 0.50") and lines["MLE"]["P(better than MLE), end"] == ""
    assert lines["TaskMet, shared metric"]["P(better than MLE), end"] == "1.00"
    returns = {line["method"]: line for line in read_csv(tmp_path / "returns.csv")}
    assert returns["MLE"]["end"] == "85 ± 25 (2)"


def test_every_setting_can_be_run_and_the_upper_bound_once_a_disturbance() -> None:
    names = [setting.name for setting in EXPERIMENT.settings]
    assert len(names) == len(set(names)) == 5 * (3 * (len(GIVEN) - 1) + 1)
    for setting in EXPERIMENT.settings:
        setting.config.resolve()
