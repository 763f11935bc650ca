"""The documentation's own code: links lead to lines, what is public is documented, and what is not stops a strict build."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
REPOSITORY = "https://example.org/code"


@pytest.fixture(scope="module")
def hooks() -> tuple[ModuleType, ModuleType]:
    """The hooks (links, reference)."""
    sys.path.insert(0, str(ROOT / "docs" / "hooks"))
    try:
        import links
        import reference
    finally:
        sys.path.pop(0)
    return links, reference


def test_a_link_to_a_function_leads_to_its_line(hooks: tuple[ModuleType, ModuleType]) -> None:
    source = ROOT / "docs" / "equations.md"
    found = hooks[0].resolved("../mbrl_taskmet/core/metric.py#Metric.loss", source, "equations.md", REPOSITORY)
    address, _, line = found.partition("#L")
    assert address == f"{REPOSITORY}/blob/main/mbrl_taskmet/core/metric.py"
    lines = (ROOT / "mbrl_taskmet" / "core" / "metric.py").read_text("utf-8").splitlines()
    assert lines[int(line) - 1].strip() == "def loss("
    assert (
        hooks[0].resolved("../mbrl_taskmet/core", source, "equations.md", REPOSITORY)
        == f"{REPOSITORY}/tree/main/mbrl_taskmet/core"
    )
    for kept in ("https://example.org/a.py#b", "#section"):
        assert hooks[0].resolved(kept, source, "equations.md", REPOSITORY) == kept


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("../mbrl_taskmet/core/metric.py#Metric.lost", "mbrl_taskmet/core/metric.py does not define Metric.lost"),
        ("../mbrl_taskmet/core/metrics.py", "leads nowhere"),
        ("../../outside.md", "leads nowhere"),
    ],
)
def test_a_link_that_leads_nowhere_is_named(hooks: tuple[ModuleType, ModuleType], target: str, reason: str) -> None:
    with pytest.raises(LookupError, match=reason):
        hooks[0].resolved(target, ROOT / "docs" / "equations.md", "equations.md", REPOSITORY)


def test_a_folder_in_the_navigation_is_its_pages(hooks: tuple[ModuleType, ModuleType], tmp_path: Path) -> None:
    for name in ("b.md", "README.md", "one/README.md", "one/table.md", "two/README.md"):
        (tmp_path / "results" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "results" / name).touch()
    pages = hooks[0].folder_pages(tmp_path, "results/", ["results/", "results/two/"])
    assert pages == ["results/README.md", "results/b.md", "results/one/README.md"]


def test_every_public_name_is_on_the_reference(hooks: tuple[ModuleType, ModuleType]) -> None:
    import decision_tasks
    import mbrl_taskmet

    for package in (mbrl_taskmet, decision_tasks):
        names = hooks[1].public_names(package.__name__)
        assert sorted(name.rpartition(".")[2] for name in names) == sorted(package.__all__)
    assert list(hooks[1].undocumented(["mbrl_taskmet.core.metric.Metric", "mbrl_taskmet.core.metric.METRICS"])) == []


def test_every_setting_is_in_the_tables(hooks: tuple[ModuleType, ModuleType]) -> None:
    from mbrl_taskmet.core.settings import flag, options
    from mbrl_taskmet.rl.settings import Settings

    tables = hooks[1].settings_tables("mbrl_taskmet.rl.settings.Settings")
    for option in options(Settings):
        assert tables.count(f"| `{flag(option.name)}` |") == 1, option.name
    floor = next(option for option in options(Settings) if option.name == "metric_floor")
    assert f"| `--metric-floor` | `0.5` | {floor.field.metadata['help']} | " in tables


PACKAGE = '''"""A package."""
__all__ = ["Known", "unknown"]
_HOMES = {"code": ("Known", "unknown")}
'''
CODE = '''"""Its code."""
class Known:
    """It is documented."""
    def told(self):
        """So is this."""
    def untold(self):
        pass
def unknown():
    pass
'''


def test_a_public_name_without_a_docstring_fails_the_build(tmp_path: Path) -> None:
    for name, text in (
        ("pack/__init__.py", PACKAGE),
        ("pack/code.py", CODE),
        ("docs/index.md", "# A\n\n<!-- public: pack -->\n"),
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    shutil.copytree(ROOT / "docs" / "hooks", tmp_path / "docs" / "hooks")
    (tmp_path / "mkdocs.yml").write_text("site_name: a\nplugins: []\nhooks: [docs/hooks/reference.py]\nexclude_docs: /hooks/\n")
    build = [sys.executable, "-m", "mkdocs", "build", "--strict"]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(build, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1 and "Aborted with 2 warnings in strict mode" in done.stdout, done.stdout
    for name in ("pack.code.Known.untold", "pack.code.unknown"):
        assert f"{name} is public and has no docstring" in done.stderr
    (tmp_path / "pack" / "code.py").write_text(
        CODE.replace("        pass", '        """Now."""').replace("    pass", '    """Now."""')
    )
    done = subprocess.run(build, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
