"""The learning targets, with the command a newcomer runs. About ten minutes on two cores."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_default_agent_solves_cartpole_with_eight_distractors(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "agents.cartpole", "--distractors", "8", "--seeds", "5"]
    subprocess.run([*command, "--logdir", str(tmp_path), "--name", "run"], cwd=ROOT, check=True)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    # A random policy returns 22 and the most is 500.
    assert summary["mean"] >= 475
    for diagonal in summary["metric_diagonal"]:
        # Under chance, four of twelve exchangeable weights have a mean above all of the other eight in under 1 of 100 seeds.
        assert sum(diagonal[:4]) / 4 > max(diagonal[4:])
