"""What of the reference is made from the code: the public names, and the tables of settings.

A public name without a docstring, or a public method of one, is a warning, at which a strict build fails.
"""

from __future__ import annotations

import importlib
import logging
import re
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
log = logging.getLogger("mkdocs.hooks.reference")
_PUBLIC = re.compile(r"^<!-- public: (\w+) -->$", re.MULTILINE)
_SETTINGS = re.compile(r"^<!-- settings: ([\w.]+) -->$", re.MULTILINE)
_NAME = re.compile(r"^::: ([\w.]+)$", re.MULTILINE)


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """`<!-- public: PACKAGE -->` becomes its public names, `<!-- settings: MODULE.RECORD -->` tables of settings."""
    del config, files
    markdown = _PUBLIC.sub(lambda found: "\n\n".join(f"::: {name}" for name in public_names(found[1])), markdown)
    for name in undocumented(_NAME.findall(markdown)):
        log.warning("%s: %s is public and has no docstring", page.file.src_uri, name)
    return _SETTINGS.sub(lambda found: settings_tables(found[1]), markdown)


def public_names(package: str) -> list[str]:
    """Where each name of a package's `__all__` is defined, in order."""
    module = _imported(package)
    homes = {name: home for home, names in module._HOMES.items() for name in names}
    return [f"{package}.{homes[name]}.{name}" for name in sorted(module.__all__, key=lambda name: (homes[name], name))]


def undocumented(names: Iterable[str], within: Path = ROOT) -> Iterator[str]:
    """Those of some dotted names, and of their public methods, that have no docstring.

    Args:
        names: of what packages define.
        within: where the packages are.
    """
    import griffe

    loader = griffe.GriffeLoader(search_paths=[within])
    for name in names:
        package = name.split(".")[0]
        if package not in loader.modules_collection.members:
            loader.load(package)
        found = loader.modules_collection[name]
        if not found.has_docstring:
            yield name
        for member in found.members.values() if found.is_class else ():
            own = member.is_public and not member.is_alias and not member.name.startswith("_")
            inherits = own and member.is_function and any("override" in str(d.value) for d in member.decorators)
            if own and not inherits and member.is_function and not member.has_docstring:
                yield f"{name}.{member.name}"


def settings_tables(path: str) -> str:
    """A table of settings for each part of a run, of the record at a dotted path."""
    from mbrl_taskmet.core.settings import options

    module, _, record = path.rpartition(".")
    parts: dict[str, dict[str, list[Any]]] = {title: {} for title in ("The method", "The metric", "The critic", "Every run")}
    for option in options(getattr(_imported(module), record)):
        of_metric = any(tag == "metric" for tag, _ in option.where)
        outermost = option.where[0][0] if option.where else option.name
        part = "The metric" if of_metric else f"The {outermost}" if outermost in ("method", "critic") else "Every run"
        parts[part].setdefault(option.name, []).append(option)
    lines = []
    for title, names in parts.items():
        lines += [f"## {title}\n", "| setting | default | what it sets | only for |", "|---|---|---|---|"]
        lines += [*map(_row, names.values()), ""]
    return "\n".join(lines)


def _row(found: list[Any]) -> str:
    """A setting's row, of all the places where it stands."""
    from mbrl_taskmet.core.settings import flag

    name, choices = found[0].name, found[0].choices
    meaning = "; ".join(dict.fromkeys(option.field.metadata["help"] for option in found))
    meaning += f": {', '.join(f'`{choice}`' for choice in choices)}" if choices else ""
    return f"| `{flag(name)}` | {_default(found)} | {meaning.replace('|', '/')} | {_owners(found)} |"


def _owners(found: list[Any]) -> str:
    """Under which choices a setting may be given; nothing where always."""
    from mbrl_taskmet.rl.methods import METHODS

    owners = list(dict.fromkeys(option.where[-1][1] for option in found if option.where and option.where[-1][0] != "suite"))
    others = [name for name in METHODS if name not in owners]
    if owners and owners[0] in METHODS and len(others) == 1:
        return f"all but `{others[0]}`"
    return ", ".join(f"`{owner}`" for owner in owners)


def _default(found: list[Any]) -> str:
    """The default of a setting, or that of each choice under which it stands."""
    whose: dict[str, list[str]] = {}
    for option in found:
        value = "none" if option.default is None else f"`{option.default}`"
        whose.setdefault(value, []).append(option.where[-1][1] if option.where else "")
    if len(whose) == 1:
        return next(iter(whose))
    return ", ".join(f"{value} ({', '.join(dict.fromkeys(variants))})" for value, variants in whose.items())


@cache
def _imported(module: str) -> Any:
    if str(ROOT) not in sys.path:
        sys.path.insert(0, str(ROOT))
    return importlib.import_module(module)
