"""Every example runs, and the pages show nothing but examples: what a reader copies is what was tested."""

from __future__ import annotations

import re
import runpy
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient

from agents.command import parse
from envs.make import DISTURBANCES, ENVIRONMENTS
from mbrl_taskmet import CRITICS, METHODS, METRICS

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
PAGES = sorted((ROOT / "docs").glob("*.md"))
ADDED = {
    "environment": (ENVIRONMENTS, "corridor"), "disturbance": (DISTURBANCES, "clocks"), "metric": (METRICS, "softmax"),
    "method": (METHODS, "by_hand"), "critic": (CRITICS, "mean_q"),
}  # fmt: skip
"""What examples register, and where."""


@pytest.fixture
def registries_as_before() -> Iterator[None]:
    """Other tests know nothing of what the examples register."""
    registries: tuple[dict, ...] = (CRITICS, DISTURBANCES, ENVIRONMENTS, METHODS, METRICS)
    before = [dict(registry) for registry in registries]
    yield
    for registry, entries in zip(registries, before, strict=True):
        registry.clear()
        registry.update(entries)


SLOW = {"library": pytest.mark.slow}
"""It compiles two programs of what the README's snippet and the sweeps' tests compile as well."""


@pytest.mark.parametrize("path", [pytest.param(p, marks=SLOW.get(p.stem, ()), id=p.stem) for p in EXAMPLES])
def test_an_example_runs(path: Path, registries_as_before: None, capsys: pytest.CaptureFixture[str]) -> None:
    result: Any = runpy.run_path(str(path), run_name="__main__")["result"]
    if path.stem in ADDED:
        registry, name = ADDED[path.stem]
        assert name in registry
    figures = result.normalized_dq if path.stem in ("task", "loss") else result.returns
    assert figures.ndim == 2 and np.isfinite(figures).all()
    assert capsys.readouterr().out


def test_examples_of_everything_that_can_be_replaced_are_there() -> None:
    assert {path.stem for path in EXAMPLES} >= {*ADDED, "task", "loss", "library"}


def test_the_pages_have_no_python_of_their_own() -> None:
    blocks = [block for page in PAGES for block in re.findall(r"```python[^\n]*\n(.*?)```", page.read_text("utf-8"), re.DOTALL)]
    assert len(blocks) > 6
    for block in blocks:
        included = re.fullmatch(r'--8<-- "(examples/\w+\.py)(?::\w+)?"\n', block)
        assert included and (ROOT / included[1]).is_file(), block


COMMANDS = [found for page in PAGES for found in re.findall(r"python -m agents\.(\w+) ([^\n`#]*)", page.read_text("utf-8"))]


@pytest.mark.parametrize(("agent", "arguments"), [c for c in COMMANDS if c[0] in ("cartpole", "gymnax", "brax")])
def test_a_command_on_a_page_is_understood(agent: str, arguments: str, tmp_path: Path) -> None:
    if "--help" in arguments or "--resume" in arguments:
        return
    environment, suite = ("CartPole-v1", "gymnax") if agent == "cartpole" else (None, agent)
    assert parse(environment, [*shlex.split(arguments), "--logdir", str(tmp_path)], suite).config.resolve()


TOUR = ROOT / "examples" / "tour.ipynb"


def test_the_notebook_is_as_it_was_run() -> None:
    book = nbformat.read(TOUR, as_version=4)
    nbformat.validate(book)
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    assert len(book.cells) == 10 and [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    texts = [str(output.get("text", "")) for cell in code for output in cell.outputs]
    assert any("return at each evaluation" in text for text in texts)
    assert not re.search(r"/(home|root|tmp|work|usr|Users)/", "".join(texts))


@pytest.mark.slow
def test_the_notebook_runs_and_its_metrics_prefer_what_is_real() -> None:
    book = nbformat.read(TOUR, as_version=4)
    NotebookClient(book, timeout=600, resources={"metadata": {"path": str(ROOT)}}).execute()
    told = re.findall(r"real dimensions ([\d.]+), noise ([\d.]+)", book.cells[8].outputs[0].text)
    assert len(told) == 2 and all(float(real) > 1 > float(noise) for real, noise in told)
