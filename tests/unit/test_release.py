"""What a release says of itself, in all the places where it says it."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import yaml

import mbrl_taskmet

ROOT = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
PROJECT, SETUPTOOLS = PYPROJECT["project"], PYPROJECT["tool"]["setuptools"]
PACKAGES = ("mbrl_taskmet", "agents", "envs", "decision_tasks", "runs")
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))


def test_version_and_date_agree() -> None:
    newest = re.search(r"^## (\S+) \((\S+)\)$", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert newest and newest.groups() == (mbrl_taskmet.__version__, CITATION["date-released"])
    assert CITATION["version"] == mbrl_taskmet.__version__


def test_authors_licence_and_address_agree() -> None:
    assert [author["name"] for author in PROJECT["authors"]] == [author["name"] for author in CITATION["authors"]]
    assert PROJECT["license"] == CITATION["license"]
    address = re.search(r"^repo_url: (\S+)$", (ROOT / "mkdocs.yml").read_text("utf-8"), re.MULTILINE)
    assert address and address[1] == PROJECT["urls"]["Repository"] == CITATION["repository-code"]


def test_every_extra_is_pinned_but_what_needs_an_accelerator_or_a_cluster() -> None:
    pins = (ROOT / "constraints.txt").read_text("utf-8")
    pinned = {re.sub(r"[-_.]+", "-", line.split("==")[0]).lower() for line in pins.splitlines() if "==" in line}
    for extra, wanted in PROJECT["optional-dependencies"].items():
        names = {re.match(r"[\w-]+", need)[0].lower() for need in wanted}  # type: ignore[index]
        assert names - pinned <= {"mbrl-taskmet"}, extra


def test_the_workflows_do_what_continuous_integration_does_here() -> None:
    for path in (ROOT / ".github" / "workflows").glob("*.yml"):
        (job,) = yaml.safe_load(path.read_text("utf-8"))["jobs"].values()
        assert {"run": ".ci/run"} in job["steps"], path
    script = (ROOT / ".ci" / "run").read_text("utf-8")
    assert "mkdocs build --strict" in script and (ROOT / ".ci" / "run").stat().st_mode & 0o111


def test_the_forms_of_issues_are_forms() -> None:
    forms = [yaml.safe_load(path.read_text("utf-8")) for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml")]
    assert len(forms) == 3 and all({"name", "description", "body"} <= form.keys() for form in forms)


def test_the_wheel_has_every_file_that_the_packages_need() -> None:
    assert SETUPTOOLS["packages"]["find"]["include"] == [f"{package}*" for package in PACKAGES]
    for package in PACKAGES:
        folder, patterns = ROOT / package, SETUPTOOLS["package-data"].get(package, [])
        for path in folder.rglob("*"):
            inside = path.relative_to(folder)
            if path.is_dir() or "__pycache__" in inside.parts or (package == "runs" and inside.parts[0] in ("results", "logs")):
                continue
            if path.suffix == ".py":
                assert all((ROOT / package / parent / "__init__.py").is_file() for parent in inside.parents), path
            else:
                assert any(inside.match(pattern) for pattern in patterns), f"{path} is in no wheel"
