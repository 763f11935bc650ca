"""`run` from Python: records and checkpoints as the command leaves them, and a directory that goes on."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from envs.probes import Walk
from mbrl_taskmet import Config, ConfigError, run
from mbrl_taskmet.rl import format_1
from mbrl_taskmet.runner.agent import restored
from mbrl_taskmet.runner.records import read_rows
from mbrl_taskmet.runner.signals import Stopped
from tests.records import timeless

SIZES: dict[str, Any] = {
    "method": "mle", "steps": 200, "eval_every": 100, "eval_episodes": 1, "random_steps": 64, "batch_size": 32,
}  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("runs") / "whole"
    said: list[str] = []
    outcome = run(Walk(), Config(**SIZES), directory, say=said.append)
    assert len(said) == 1 and "mle on Walk, 1 seed(s), 200 steps" in said[0]
    assert outcome.rows == read_rows(directory)
    assert outcome.summary["final_return"] == [outcome.rows[-1]["eval/return"]]
    return directory


def test_it_leaves_what_the_command_leaves(whole: Path) -> None:
    names = {path.name for path in whole.iterdir()}
    assert names == {"checkpoints", "config.json", "curves.png", "metrics.jsonl", "summary.json", "tensorboard"}
    assert json.loads((whole / "config.json").read_text())["settings"]["env"] == "Walk"


def test_called_again_with_more_steps_it_goes_on_to_the_same_end(whole: Path, tmp_path: Path) -> None:
    run(Walk(), Config(**SIZES | {"steps": 100}), tmp_path / "run")
    run(Walk(), Config(**SIZES), tmp_path / "run")
    assert timeless(read_rows(tmp_path / "run")) == timeless(read_rows(whole))


def test_a_directory_of_other_settings_is_refused(whole: Path) -> None:
    before = (whole / "metrics.jsonl").read_bytes()
    with pytest.raises(ConfigError, match=r"has --model-lr 0\.001, not 0\.01; leave it out to resume"):
        run(Walk(), Config(**SIZES, model_lr=0.01), whole)
    with pytest.raises(ConfigError, match="--steps 100 is less than the 200"):
        run(Walk(), Config(**SIZES | {"steps": 100}), whole)
    assert (whole / "metrics.jsonl").read_bytes() == before


def test_a_signal_stops_it_with_a_checkpoint_and_the_handlers_are_as_before(whole: Path, tmp_path: Path) -> None:
    handler = signal.getsignal(signal.SIGHUP)

    def ask() -> None:
        while not (tmp_path / "run" / "metrics.jsonl").exists() or not (tmp_path / "run" / "metrics.jsonl").stat().st_size:
            time.sleep(0.005)
        os.kill(os.getpid(), signal.SIGHUP)

    threading.Thread(target=ask, daemon=True).start()
    with pytest.raises(Stopped, match=r"stopped at step \d+; to go on: call run with the same arguments") as stopped:
        run(Walk(), Config(**SIZES | {"steps": 100_000}), tmp_path / "run")
    assert stopped.value.signal == signal.SIGHUP and signal.getsignal(signal.SIGHUP) is handler
    rows = read_rows(tmp_path / "run")
    assert timeless(rows)[:1] == timeless(read_rows(whole))[:1]
    assert restored(Walk(), tmp_path / "run")[2] == rows[-1]["step"]


def test_arrays_of_format_1_are_read_as_todays() -> None:
    saved = {
        ".learner.critic.params['kernel']": np.ones(2), ".learner.target_params['kernel']": np.zeros(2),
        ".failed_part": np.array([-1, 2, 3, 4]),
    }  # fmt: skip
    arrays = format_1.arrays(saved)
    assert arrays.keys() == {*saved, ".learner.critic.target_params['kernel']"} - {".learner.target_params['kernel']"}
    np.testing.assert_array_equal(arrays[".failed_part"], [-1, 1, 2, 3])  # of the target, the metric and the moments
    block = format_1.arrays({"terminated": np.array([[0.0, 1.0]]), "reward": np.ones((1, 2))})
    assert block["terminated"].tolist() == [[False, True]] and block["truncated"].tolist() == [[True, True]]
    assert format_1.arrays(arrays) == arrays and format_1.arrays(block) == block
