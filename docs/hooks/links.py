"""Links of the pages, which are those of the repository: relative paths of files, so that they also work where the files lie.

What is a page stays a link to it. Any other file of the repository becomes a link to the address of the repository, which
`repo_url` in `mkdocs.yml` says. A fragment of a Python file is the name of what is linked, as in `metric.py#Metric.loss`, and
becomes its line. A name or a file that is not there is a warning, at which a strict build fails.
"""

from __future__ import annotations

import ast
import logging
import os
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
log = logging.getLogger("mkdocs.hooks.links")
_LINK = re.compile(r"(?<=\])\(([^()\s]+)\)")
_CODE = re.compile(r"(^```.*?^```$|`[^`\n]*`)", re.DOTALL | re.MULTILINE)
_pages: dict[Path, str] = {}


def on_config(config: Any) -> Any:
    """An entry of the navigation that names a folder becomes its `README.md` and those of the folders in it."""
    entries = [(title, target) for entry in config["nav"] or [] for title, target in entry.items()]
    folders = [target for _, target in entries if isinstance(target, str) and target.endswith("/")]
    found = {folder: folder_pages(Path(config["docs_dir"]), folder, folders) for folder in folders}
    config["nav"] = [{title: found.get(str(target), target)} for title, target in entries if found.get(str(target), True)]
    return config


def folder_pages(docs: Path, folder: str, others: list[str]) -> list[str]:
    """A folder's pages for the navigation: its own, `README.md` first, then that of each folder in it but `others`."""
    own = sorted((docs / folder).glob("*.md"), key=lambda path: (path.name != "README.md", path.name))
    pages = [path.relative_to(docs).as_posix() for path in (*own, *sorted((docs / folder).glob("*/README.md")))]
    return [
        page for page in pages if not any(page.startswith(other) for other in others if other != folder and folder in other)
    ]


def on_files(files: Any, config: Any) -> Any:
    """Note which files the site has, by where they really lie."""
    del config
    _pages.clear()
    _pages.update(
        (Path(file.abs_src_path).resolve(), file.src_uri)
        for file in files
        if file.abs_src_path and file.inclusion.is_included()
    )
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """The text with links that the site can follow."""
    del files
    source, uri = Path(page.file.abs_src_path).resolve(), page.file.src_uri

    def replaced(link: re.Match[str]) -> str:
        try:
            return f"({resolved(link[1], source, uri, config['repo_url'])})"
        except LookupError as error:
            log.warning("%s: %s", uri, error)
            return link[0]

    parts = _CODE.split(markdown)
    return "".join(part if i % 2 else _LINK.sub(replaced, part) for i, part in enumerate(parts))


def resolved(target: str, source: Path, uri: str, repository: str) -> str:
    """Where a link goes.

    Args:
        target: the link as it is written.
        source: the file that it stands in.
        uri: that file's place on the site.
        repository: the repository's address.

    Raises:
        LookupError: there is no such file, or it does not define what is linked.
    """
    path, _, fragment = target.partition("#")
    if not path or re.match(r"[a-z]+:", path):
        return target
    real = (source.parent / path).resolve()
    for file in (real, real / "README.md"):
        if file in _pages:
            relative = os.path.relpath(_pages[file], os.path.dirname(uri) or ".")
            return relative + (f"#{fragment}" if fragment else "")
    if not real.exists() or not real.is_relative_to(ROOT):
        raise LookupError(f"the link to {target} leads nowhere")
    if fragment and real.suffix == ".py":
        fragment = f"L{line_of(real, fragment)}"
    kind = "tree" if real.is_dir() else "blob"
    return f"{repository}/{kind}/main/{real.relative_to(ROOT).as_posix()}" + (f"#{fragment}" if fragment else "")


def line_of(path: Path, name: str) -> int:
    """The line on which a Python file defines a name such as `Metric.loss`.

    Raises:
        LookupError: it does not.
    """
    node: Any = ast.parse(path.read_text(encoding="utf-8"))
    for part in name.split("."):
        node = next((child for child in node.body if _defines(child, part)), None)
        if node is None:
            raise LookupError(f"{path.relative_to(ROOT).as_posix()} does not define {name}")
    return node.lineno


def _defines(node: ast.stmt, name: str) -> bool:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return node.name == name
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return any(isinstance(target, ast.Name) and target.id == name for target in targets)
