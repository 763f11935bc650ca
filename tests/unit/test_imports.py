"""Imports go one way: mbrl_taskmet ← envs ← agents ← runs; and --help waits for none that takes long."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OURS = ("mbrl_taskmet", "envs", "decision_tasks", "agents", "runs", "tests")
MAY_IMPORT = {
    "mbrl_taskmet": {"mbrl_taskmet"},
    "envs": {"mbrl_taskmet", "envs"},
    "decision_tasks": {"mbrl_taskmet", "decision_tasks"},
    "agents": {"mbrl_taskmet", "envs", "agents"},
}
FILES = [path for package in MAY_IMPORT for path in sorted((ROOT / package).rglob("*.py"))]


def imported(tree: ast.AST) -> Iterator[str]:
    """The packages that code imports when it runs, wherever the import stands; `if TYPE_CHECKING` never runs."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            for alternative in node.orelse:
                yield from imported(ast.Module([alternative], []))
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "a relative import hides its package"
            yield (node.module or "").split(".")[0]
        yield from imported(node)


def test_the_reader_of_imports_finds_them_anywhere_but_under_type_checking() -> None:
    source = """
import mbrl_taskmet.rl.environment as base
def late():
    from agents.command import main
if TYPE_CHECKING:
    import runs.speed
else:
    import tests.unit
"""
    assert list(imported(ast.parse(source))) == ["envs", "agents", "tests"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_imports_only_what_is_below_it(path: Path) -> None:
    package = path.relative_to(ROOT).parts[0]
    ours = {name for name in imported(ast.parse(path.read_text(encoding="utf-8"))) if name in OURS}
    assert ours <= MAY_IMPORT[package]


def test_every_package_is_looked_at() -> None:
    for package in ("mbrl_taskmet", "envs", "decision_tasks", "agents"):
        assert any(path.is_relative_to(ROOT / package) for path in FILES)


@pytest.mark.parametrize(("module", "flag"), [("agents.cartpole", "--metric-warmup N"), ("decision_tasks", "--datasets N")])
def test_help_answers_without_starting_jax(module: str, flag: str) -> None:
    script = f"""
import runpy, sys
sys.argv = ["{module}", "--help"]
try:
    runpy.run_module("{module}", run_name="__main__")
except SystemExit as end:
    print("exit", end.code, sorted({{"jax", "gymnax", "flax", "orbax"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, timeout=60)
    assert done.stdout.endswith("exit 0 []\n"), done.stderr
    assert f"usage: python -m {module}" in done.stdout and flag in done.stdout
