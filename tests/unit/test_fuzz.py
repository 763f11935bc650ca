"""The fuzzing: what it tries is answered, and what is broken on purpose is found."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mbrl_taskmet.core.settings import ConfigError
from mbrl_taskmet.runner.command import command
from runs import fuzz
from runs.fuzzing.judging import Case, Cut, judge

QUICK = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}


def test_nothing_that_is_tried_fails(tmp_path: Path) -> None:
    """In a process of its own, for the types that tests check would refuse before the library does."""
    argv = ["-m", "runs.fuzz", "--cases", "60", "--seed", "5", "--output", str(tmp_path)]
    done = subprocess.run([sys.executable, *argv], capture_output=True, text=True, timeout=300, env=os.environ | QUICK)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "fuzz.json").read_text())
    assert found["findings"] == [] and found["cases"] > 50
    assert set(found["counts"]) == {"command", "configuration", "record", "checkpoint", "data", "call"}
    answers = [sum(count.get(answer, 0) for count in found["counts"].values()) for answer in ("accepted", "refused")]
    assert min(answers) > 10 and all(found["counts"].values())
    assert "0 are findings" in " ".join((tmp_path / "fuzz.md").read_text().split())


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "run").mkdir()
    (tmp_path / "canary").write_text("nobody's")
    return tmp_path


def tried(root: Path, call: Callable[..., Any], is_command: bool = True, check: Any = lambda: None) -> str:
    return judge(Case("kind", "told", call, is_command, (root / "run",), check), root, limit=0.2)[0]


def refuse(sentence: str) -> Callable[[], int]:
    @command
    def main() -> int:
        raise ConfigError(sentence)

    return main


def test_answers_are_no_findings(root: Path) -> None:
    def cut() -> int:
        raise Cut

    def library() -> None:
        raise ConfigError("no")

    assert tried(root, lambda: (root / "run" / "made").write_text("") and 0) == "accepted"
    assert tried(root, cut) == "accepted"
    assert tried(root, lambda: sys.exit(0)) == "accepted"
    assert tried(root, lambda: "any", is_command=False) == "accepted"
    assert tried(root, refuse("--steps is 0; give 1 or more")) == "refused"
    assert tried(root, library, is_command=False) == "refused"


def test_a_target_that_is_broken_is_a_finding(root: Path) -> None:
    def fails() -> int:
        raise KeyError("x")

    def library() -> None:
        raise TypeError("x")

    def says(text: str, code: int) -> Callable[[], int]:
        return lambda: print(text, file=sys.stderr) or code

    assert tried(root, fails) == "traceback"
    assert tried(root, library, is_command=False) == "traceback"
    assert tried(root, lambda: time.sleep(5) or 0) == "hang"
    assert tried(root, lambda: (root / "canary").write_text("changed") and 0) == "escaped"
    assert tried(root, lambda: (root / "other").write_text("x") and 0) == "escaped"
    assert tried(root, lambda: 0, check=lambda: "the record is another") == "silent"
    assert tried(root, says("error: a\nerror: b", 2)) == "unclear"
    assert tried(root, says("error: no room", 1)) == "unclear"
    assert tried(root, says("usage: x", 2)) == "unclear"
    assert tried(root, says("warning: its pictures could not be drawn (x)", 0)) == "silent"
    assert tried(root, says("Traceback (most recent call last):", 0)) == "traceback"


def test_what_was_refused_and_has_written_is_a_finding(root: Path) -> None:
    def main() -> int:
        (root / "run" / "half").write_text("x")
        return refuse("no")()

    assert tried(root, main) == "escaped"


def test_a_finding_is_written_with_what_reproduces_it_and_ends_with_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = {
        "cases": 1, "seed": 7, "counts": {"command": {"traceback": 1}}, "minutes": 0.1,
        "findings": [{"case": 0, "kind": "command", "finding": "traceback", "input": "python -m x --y",
                      "printed": "KeyError: z"}],
    }  # fmt: skip
    monkeypatch.setattr(fuzz, "fuzz", lambda *_: found)
    assert fuzz.main(["--cases", "1", "--seed", "7", "--output", str(tmp_path)]) == 1
    text = (tmp_path / "fuzz.md").read_text()
    assert "| command | 0 | 0 | 1 |" in text and "- case 0, command, traceback: `python -m x --y`: KeyError: z" in text
    assert "`python -m runs.fuzz --cases 1 --seed 7`" in text
    assert json.loads((tmp_path / "fuzz.json").read_text())["findings"] == found["findings"]


def test_without_hypothesis_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("calls", "commands", "files", "values"):
        monkeypatch.delitem(sys.modules, f"runs.fuzzing.{name}", raising=False)
        monkeypatch.delattr(f"runs.fuzzing.{name}", raising=False)
    monkeypatch.setitem(sys.modules, "hypothesis", None)
    assert fuzz.main(["--cases", "1"]) == 2
    assert capsys.readouterr().err == "error: hypothesis is missing; install the extra: pip install '.[test]'\n"
