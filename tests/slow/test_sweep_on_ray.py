"""A sweep on two nodes of Ray, one of which is lost in the middle, ends as one that nothing happened to."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mbrl_taskmet.runner.records import read_rows
from tests.records import timeless

pytest.importorskip("ray", reason="the extra [ray] is not installed")
psutil = pytest.importorskip("psutil")

GRID = """
settings: {method: mle, distractors: 2, steps: 60000, eval-every: 100, eval-episodes: 1, random-steps: 64, batch-size: 32}
grid: {model_lr: [1e-3, 3e-3]}
seeds: 4
"""
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start a command in a working directory and a home of its own; all that it started is killed at the end."""
    started: list[subprocess.Popen[str]] = []

    def run(name: str, *argv: str) -> subprocess.Popen[str]:
        place = tmp_path / name
        place.mkdir()
        environment = os.environ | {"HOME": str(place), "RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}
        with (place / "output").open("w") as output:
            started.append(
                subprocess.Popen(
                    [sys.executable, "-m", *argv], cwd=place, env=environment, stdout=output, stderr=output, text=True
                )
            )
        return started[-1]

    yield run
    for process in started:
        if process.poll() is None:
            kill(process)


def tree(process: subprocess.Popen[str]) -> list[Any]:
    """A process and all below it."""
    root = psutil.Process(process.pid)
    return [root, *root.children(recursive=True)]


def kill(process: subprocess.Popen[str]) -> None:
    for one in tree(process):
        with contextlib.suppress(ProcessLookupError):
            os.kill(one.pid, signal.SIGKILL)
    process.wait(60)


def trained_by(node: subprocess.Popen[str]) -> Path | None:
    """The run that a process of a node has."""
    for one in tree(node):
        try:
            held = [Path(file.path) for file in one.open_files() if file.path.endswith("/.lock")]
        except psutil.Error:
            continue
        if held:
            return held[0].parent
    return None


def checkpoint(directory: Path) -> int:
    """The step of a run's last checkpoint."""
    return max((int(path.name) for path in directory.glob("checkpoints/state/*") if path.name.isdigit()), default=0)


def wait_until(true: Callable[[], Any], process: subprocess.Popen[str], seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)


def records(logs: Path) -> dict[str, list[dict[str, Any]]]:
    return {
        str(path.parent.relative_to(logs)): timeless(read_rows(path.parent)) for path in sorted(logs.glob("*/*/metrics.jsonl"))
    }


@pytest.mark.slow
def test_a_sweep_that_loses_a_node_ends_as_one_that_does_not(tmp_path: Path, start: Start) -> None:
    grid, whole, logs = tmp_path / "grid.yaml", tmp_path / "whole", tmp_path / "shared"
    grid.write_text(GRID)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ray = ("ray.scripts.scripts", "start", "--block", "--num-cpus", "1", "--node-ip-address", "127.0.0.1")
    head = start("head", *ray, "--head", "--port", str(port), "--include-dashboard", "false")
    wait_until(lambda: "started" in (tmp_path / "head" / "output").read_text().lower(), head)
    node = start("node", *ray, "--address", f"127.0.0.1:{port}")
    wait_until(lambda: "started" in (tmp_path / "node" / "output").read_text().lower(), node)

    command = ("runs.sweep", "--grid", str(grid), "--block", "2")
    sweep = start("driver", *command, "--logdir", str(logs), "--address", f"127.0.0.1:{port}")
    wait_until(lambda: trained_by(node) and trained_by(head), sweep)
    lost, kept = trained_by(node), trained_by(head)
    assert lost and kept and lost != kept
    wait_until(lambda: checkpoint(lost) and len(read_rows(lost)) > 40, sweep)
    kill(node)
    reached, kept_step = read_rows(lost)[-1]["step"], checkpoint(lost)
    assert 0 < kept_step < 60000
    assert sweep.wait(600) == 0, (tmp_path / "driver" / "output").read_text()
    printed = (tmp_path / "driver" / "output").read_text()
    print(f"killed at step {reached}, after the checkpoint at {kept_step}\n{printed}")
    assert f"{'/'.join(lost.parts[-2:])}: its process was lost (NodeDiedError: " in printed
    assert printed.count("is done") == 4 and printed.count("its process was lost") == 1

    assert start("alone", *command, "--logdir", str(whole)).wait(600) == 0
    assert len(records(whole)) == 4 and records(logs) == records(whole)
    for name in ("table.md", "table.csv", "curves.csv.gz"):
        assert (logs / name).read_bytes() == (whole / name).read_bytes(), name
