"""The README's snippets run as they stand, and its commands are ones that the agents take."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from agents.command import parse
from envs.make import DISTURBANCES, ENVIRONMENTS
from mbrl_taskmet import CRITICS, METHODS, METRICS

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
COMMANDS = re.findall(r"python -m agents\.cartpole([^\n`#]*)", README)


@pytest.fixture
def registries_as_before() -> Iterator[None]:
    """Other tests know nothing of what the README registers."""
    registries: tuple[dict, ...] = (CRITICS, DISTURBANCES, ENVIRONMENTS, METHODS, METRICS)
    before = [dict(registry) for registry in registries]
    yield
    for registry, entries in zip(registries, before, strict=True):
        registry.clear()
        registry.update(entries)


def test_every_python_snippet_runs_after_the_ones_before_it(
    registries_as_before: None, capsys: pytest.CaptureFixture[str]
) -> None:
    names: dict[str, object] = {}
    assert len(SNIPPETS) == 8
    for snippet in SNIPPETS:
        exec(compile(snippet, "README.md", "exec"), names)
        assert names["result"].returns.shape[1] == 2  # type: ignore[attr-defined]
    for name in ("by_metric", "by_loss"):
        assert names[name].normalized_dq.shape == (1, 2)  # type: ignore[attr-defined]
    assert "[1000 2000]" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [c for c in COMMANDS if "--help" not in c])
def test_every_command_is_understood(arguments: str) -> None:
    assert parse("CartPole-v1", shlex.split(arguments)).config.resolve()


def test_the_two_commands_are_there_for_continuous_integration() -> None:
    for mark in ("run", "test"):
        assert re.search(rf"<!-- {mark} -->\n```sh\npython3 -m venv [^\n]*\n```", README)
