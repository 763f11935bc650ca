"""The rooms: imports go one way and in no circle, what is not needed is not loaded, and what is public is as it is listed."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import mbrl_taskmet

ROOT = Path(__file__).parents[2]
CORE, RL, RUNNER = "mbrl_taskmet.core", "mbrl_taskmet.rl", "mbrl_taskmet.runner"
OF_AGENTS = (f"{RUNNER}.agent", f"{RUNNER}.agent_record", f"{RUNNER}.memory")
"""What of the runner is for agents alone."""
ROOMS: dict[str, tuple[str, ...]] = {
    CORE: (CORE,),
    RL: (CORE, RL),
    **dict.fromkeys(OF_AGENTS, (CORE, RL, RUNNER)),
    RUNNER: (CORE, RUNNER),
    "mbrl_taskmet": ("mbrl_taskmet",),
    "envs": ("mbrl_taskmet", "envs"),
    "decision_tasks": (CORE, RUNNER, "decision_tasks"),
    "agents": ("mbrl_taskmet", "envs", "agents"),
    "runs": ("mbrl_taskmet", "envs", "decision_tasks", "agents", "runs"),
}
"""What each room may import; the first that a module is in counts."""
MAY_RUN_AGENTS = (*OF_AGENTS, "mbrl_taskmet", "envs", "agents", "runs")
"""The rooms that may import what of the runner is for agents."""
PACKAGES = ("mbrl_taskmet", "envs", "decision_tasks", "agents", "runs")


def name_of(path: Path) -> str:
    """A file's dotted name."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {name_of(path): path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))}


def imported(tree: ast.AST) -> Iterator[str]:
    """The modules that code names in imports, wherever they stand: in functions and under `if TYPE_CHECKING` as well."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, "a relative import hides its package"
            names = (f"{node.module}.{alias.name}" for alias in node.names)
            yield from (name if name in FILES else node.module for name in names)


def is_in(module: str, room: str) -> bool:
    return module == room or module.startswith(f"{room}.")


OURS = {
    module: {name for name in imported(ast.parse(path.read_text(encoding="utf-8"))) if is_in(name, "tests") or name in FILES}
    for module, path in FILES.items()
}
"""What of ours each module imports."""


def test_the_reader_of_imports_finds_them_anywhere() -> None:
    source = """
import mbrl_taskmet.rl.environment as base
from mbrl_taskmet.rl import replay
def late():
    from agents.command import main
if TYPE_CHECKING:
    import runs.speed
else:
    import tests.unit
"""
    expected = {"mbrl_taskmet.rl.environment", "mbrl_taskmet.rl.replay", "agents.command", "runs.speed", "tests.unit"}
    assert set(imported(ast.parse(source))) == expected


@pytest.mark.parametrize("module", FILES)
def test_a_module_imports_only_what_is_below_it(module: str) -> None:
    room = next(room for room in ROOMS if is_in(module, room))
    above = {name for name in OURS[module] if not any(is_in(name, below) for below in ROOMS[room])}
    if room not in MAY_RUN_AGENTS:
        above |= OURS[module] & set(OF_AGENTS)
    assert above == set()


def test_every_room_is_looked_at() -> None:
    for room in ROOMS:
        assert any(is_in(module, room) for module in FILES), room
    assert sum(map(len, OURS.values())) > 200
    for package in ("core", "rl", "rl.critics", "rl.methods", "runner"):
        assert f"mbrl_taskmet.{package}" in FILES


def test_no_imports_go_in_a_circle_not_even_those_of_types_or_in_functions() -> None:
    order = list(TopologicalSorter(OURS).static_order())  # a CycleError names the modules of a circle
    assert set(order) >= set(FILES)


def loaded(code: str) -> set[str]:
    """The modules that a new interpreter has after `code`."""
    script = f"import sys\n{code}\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, timeout=120, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split())


def test_the_mathematics_load_no_reinforcement_learning() -> None:
    names = [module for module in FILES if is_in(module, CORE)]
    modules = loaded(f"import mbrl_taskmet, {', '.join(names)}\nmbrl_taskmet.implicit_vjp, mbrl_taskmet.Diagonal")
    assert set(names) <= modules
    assert [module for module in modules if is_in(module, RL) or is_in(module, RUNNER)] == []
    assert modules.isdisjoint({"gymnax", "brax", "orbax", "distrax", "jaxopt", "matplotlib"})


def test_the_status_of_a_sweep_loads_no_jax(tmp_path: Path) -> None:
    (tmp_path / "sweep.json").write_text('{"blocks": {"a/seeds0-0": 1000}}')
    modules = loaded(f"from runs.sweep import main\nassert main(['--status', {str(tmp_path)!r}]) == 0")
    assert "runs.sweeping.status" in modules and modules.isdisjoint({"jax", "yaml", "ray", "matplotlib"})


def test_a_decision_task_loads_no_replay_buffer() -> None:
    names = [module for module in FILES if is_in(module, "decision_tasks") and not module.endswith("__main__")]
    modules = loaded(f"import {', '.join(names)}")
    assert set(names) <= modules
    assert [module for module in modules if is_in(module, RL) or is_in(module, "envs") or module in OF_AGENTS] == []


@pytest.mark.parametrize(
    ("module", "flags"),
    [
        ("agents.cartpole", ("--metric-warmup N", "--distractors N", "--resume DIR", "--film")),
        ("agents.gymnax", ("--env NAME", "--metric-warmup N", "--critic-solver NAME")),
        ("agents.brax", ("--env NAME", "--backend NAME", "--film")),
        ("decision_tasks", ("--datasets N", "--resume DIR")),
        ("runs.sweep", ("--grid FILE", "--status DIR", "--address HOST:PORT")),
    ],
)
def test_help_answers_without_loading_what_is_slow(module: str, flags: tuple[str, ...]) -> None:
    script = f"""
import runpy, sys
sys.argv = ["{module}", "--help"]
try:
    runpy.run_module("{module}", run_name="__main__")
except SystemExit as end:
    print("exit", end.code, sorted({{"gymnax", "brax", "orbax", "distrax"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert done.stdout.endswith("exit 0 []\n"), done.stderr
    assert f"usage: python -m {module}" in done.stdout
    for flag in flags:
        assert flag in done.stdout


PUBLIC = ast.parse((ROOT / "mbrl_taskmet" / "__init__.py").read_text(encoding="utf-8"))
HOMES = {alias.name: node.module for node in ast.walk(PUBLIC) if isinstance(node, ast.ImportFrom)
         for alias in node.names if (node.module or "").startswith("mbrl_taskmet.")}  # fmt: skip
"""Where type checkers find the public names."""


def test_the_public_names_are_those_that_type_checkers_see() -> None:
    assert sorted(HOMES) == list(mbrl_taskmet.__all__) and len(HOMES) > 20
    with pytest.raises(AttributeError, match="has no attribute 'taskmat'"):
        mbrl_taskmet.taskmat  # noqa: B018


@pytest.mark.parametrize("name", mbrl_taskmet.__all__)
def test_a_public_name_is_what_its_home_has_and_is_documented(name: str) -> None:
    home = HOMES[name]
    public = getattr(mbrl_taskmet, name)
    assert public is getattr(importlib.import_module(home), name)
    if isinstance(public, type) or callable(public):
        text = public.__doc__ or ""
        assert text and not text.startswith(f"{name}("), "the docstring is a dataclass's own"
        return
    body = ast.parse(Path(importlib.import_module(home).__file__ or "").read_text(encoding="utf-8")).body
    if not any(isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == name for node in body):
        pytest.fail(f"{home} does not define {name}")
    at = next(i for i, node in enumerate(body) if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == name)
    after = body[at + 1] if at + 1 < len(body) else None
    assert isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) and isinstance(after.value.value, str)
