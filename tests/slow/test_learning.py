"""The learning targets, with the command a newcomer runs. About six minutes on two cores."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def summary(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("logs")
    command = [sys.executable, "-m", "agents.cartpole", "--distractors", "8", "--seeds", "5"]
    subprocess.run([*command, "--logdir", str(folder), "--name", "run"], cwd=ROOT, check=True)
    return json.loads((folder / "run" / "summary.json").read_text())


def test_the_default_agent_solves_cartpole_with_eight_distractors(summary: dict[str, Any]) -> None:
    assert summary["mean"] >= 475  # a random policy returns 22 and the most is 500


def test_the_metric_ranks_the_real_dimensions_above_every_distractor(summary: dict[str, Any]) -> None:
    for diagonal in summary["metric_diagonal"]:
        # By chance the mean of four of twelve exchangeable weights exceeds all of the other eight in under 1 of 100 seeds.
        assert sum(diagonal[:4]) / 4 > max(diagonal[4:])
