"""The tree of records that given settings make, and back.

Flags, files and Python give settings by their names, flat; `resolve` makes the nested records of them, and `flatten` is its
inverse. What is given and has no place in the tree that the choices span is refused with the choice that would have it, so no
table says which option belongs to what.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

from mbrl_taskmet.core.settings import ConfigError, Option, fields_of, flag, nearest, options, shown

R = TypeVar("R")
Given = Mapping[str, Any]
"""Settings by name, as flags, a file or Python give them."""


class Misplaced(ConfigError):
    """A setting that has no place under the choices that were made.

    Attributes:
        name: the setting's.
    """

    def __init__(self, message: str, name: str):
        super().__init__(message)
        self.name = name


def check_names(record: type, given: Given) -> None:
    """Raise ConfigError if a tree of records has no setting of a given name."""
    known = {option.name for option in options(record)}
    for name in given:
        if name not in known:
            raise ConfigError(f"{name!r} is no setting; did you mean {nearest(name, known)!r}?")


def resolve(record: type[R], given: Given, preset: Given | None = None) -> R:
    """The records of `given` settings, in which a preset's values and the defaults fill what was not given.

    Args:
        record: the root of the tree.
        given: settings by name. None counts as not given.
        preset: the same. What has no place in the tree is left out.

    Raises:
        ConfigError: a value is of the wrong type, unknown, out of range, has no place, or contradicts another.
    """
    given = {name: value for name, value in given.items() if value is not None}
    check_names(record, given)
    taken: dict[str, Any] = {}
    built = _build(record, given, preset or {}, taken, "")
    for name in given:
        if name not in taken:
            raise Misplaced(_misplaced(record, name, given[name], taken), name)
    return built


def flatten(record: Any, prefix: str = "") -> dict[str, Any]:
    """All settings of built records, by name, as plain values."""
    values: dict[str, Any] = {}
    for field, option in fields_of(type(record), prefix, ()):
        value = getattr(record, field.name)
        if option is None:
            values |= flatten(value, prefix)
        elif option.variants is not None:
            name = next(name for name, variant in option.variants.items() if type(value) is variant)
            values |= {option.name: name, **flatten(value, prefix + field.metadata["prefix"])}
        else:
            values[option.name] = value
    return values


def with_numbers(record: R, numbers: Given, prefix: str = "") -> R:
    """Built records with other numbers by name, traced ones too: nothing is checked."""
    new = copy.copy(record)
    for field, option in fields_of(type(record), prefix, ()):
        value = getattr(record, field.name)
        if option is None:
            value = with_numbers(value, numbers, prefix)
        elif option.variants is not None:
            value = with_numbers(value, numbers, prefix + field.metadata["prefix"])
        elif option.name in numbers:
            value = numbers[option.name]
        object.__setattr__(new, field.name, value)
    return new


def check_fields(record: Any) -> None:
    """Check a record made in Python as flags and files are checked.

    Raises:
        ConfigError: a setting of `record` is of the wrong type, unknown or out of range, or a group is no record.
    """
    for field, option in fields_of(type(record), "", ()):
        value = getattr(record, field.name)
        if option is not None and option.variants is None:
            if not hasattr(value, "aval"):  # which JAX traces: what it is, is known later
                option.check(value)
        elif isinstance(value, type) or not dataclasses.is_dataclass(value):
            raise ConfigError(f"{type(record).__name__}.{field.name} is {shown(value)}; give an instance of its settings")


def before(record: type) -> dict[str, Any]:
    """The values, by name, that hold for runs saved before a field existed."""
    declared = {option.name: option.field.metadata.get("before", dataclasses.MISSING) for option in options(record)}
    return {name: value for name, value in declared.items() if value is not dataclasses.MISSING}


def _build(record: type[R], given: Given, preset: Given, taken: dict[str, Any], prefix: str) -> R:
    """A record; the names that the tree has are noted in `taken` with their values."""
    values: dict[str, Any] = {}
    for field, option in fields_of(record, prefix, ()):
        if option is None:
            values[field.name] = _build(field.metadata["group"], given, preset, taken, prefix)
            continue
        value = given.get(option.name, preset.get(option.name, option.default))
        taken[option.name] = value = option.check(value)
        if option.variants is not None:
            value = _build(option.variants[value], given, preset, taken, prefix + field.metadata["prefix"])
        values[field.name] = value
    built = record(**values)
    if hasattr(built, "check"):
        built.check()
    return built


def _misplaced(record: type, name: str, value: Any, taken: Given) -> str:
    """Why the tree has no place for a setting, and which choice would have."""

    def agreed(option: Option) -> int:
        return next((i for i, (tag, variant) in enumerate(option.where) if taken.get(tag) != variant), len(option.where))

    places = [option for option in options(record) if option.name == name]
    depth = max(map(agreed, places))
    wanted = [option.where[depth] for option in places if agreed(option) == depth]
    tag = wanted[0][0]
    owners = " or ".join(dict.fromkeys(variant for other, variant in wanted if other == tag))
    what = value if isinstance(value, str) else shown(value)
    return f"{flag(name)} {what} does nothing for {flag(tag)} {taken[tag]}; leave it out, or use {flag(tag)} {owners}"
