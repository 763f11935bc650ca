"""The README's snippets run as they stand, and its commands are ones that the agents take."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from agents.command import parse

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"python -m agents\.cartpole([^\n`#]*)", README)


SNIPPETS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_the_python_snippet_is_the_examples() -> None:
    (snippet,) = SNIPPETS
    assert snippet in (ROOT / "examples" / "library.py").read_text(encoding="utf-8")


@pytest.mark.slow  # it compiles a program that other tests compile as well
def test_the_python_snippet_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (snippet,) = SNIPPETS
    names: dict[str, Any] = {}
    exec(compile(snippet, "README.md", "exec"), names)
    assert names["result"].returns.shape == (2, 2)
    assert "[1000 2000]" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [c for c in COMMANDS if "--help" not in c])
def test_every_command_is_understood(arguments: str) -> None:
    assert parse("CartPole-v1", shlex.split(arguments)).config.resolve()


def test_the_two_commands_are_there_for_continuous_integration() -> None:
    for mark in ("run", "test"):
        assert re.search(rf"<!-- {mark} -->\n```sh\npython3 -m venv [^\n]*\n```", README)
