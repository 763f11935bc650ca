"""Settings, each declared once, at the class that it configures, with default, range and help.

A *record* is a frozen dataclass. Its fields are made by `setting` (a value), `choice` (one of several records, by name) or
`group` (a record); other fields are no settings. Every value and every choice has a name that is unique in the tree of
records, which `settings_tree` makes of what is given.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import operator
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

MOST = 2**31 - 1
"""Whole numbers go into compiled programs as 32 bits."""


class ConfigError(ValueError):
    """A setting that cannot work; its message is one sentence, on one line, that names the value and what to do."""

    def __init__(self, message: str):
        super().__init__(" ".join(message.splitlines()))


def setting(
    default: Any,
    help: str,
    *,
    flag: str | None = None,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    before: Any = dataclasses.MISSING,
    traced: bool | None = None,
) -> Any:
    """A field that holds a value; its type is the field's annotation.

    Args:
        default: what it is where neither the user nor a preset gives it.
        help: what `--help` says.
        flag: its name in flags and files; the field's own by default.
        low: the least it may be, also every number of a tuple.
        high: the largest it may be.
        above: it has to be finite and larger.
        before: what runs did that were saved before the field existed, if that is not the default.
        traced: whether compiled programs may take it as an argument, so that it can be swept; real numbers may by default.
    """
    limits = {"low": low, "high": high, "above": above}
    metadata = {"help": help, "flag": flag, "before": before, "traced": traced, **limits}
    return dataclasses.field(default=default, metadata=metadata)


def choice(variants: Mapping[str, type], default: str, help: str, *, flag: str | None = None, prefix: str = "") -> Any:
    """A field that holds one of several records.

    Args:
        variants: the records by the names that choose them. May grow: an entry is all that a new one needs.
        default: the name of the default.
        help: what `--help` says.
        flag: name of the choice in flags and files; the field's own by default.
        prefix: what the names of the records' fields begin with, where several choices share the records.
    """
    metadata = {"help": help, "flag": flag, "prefix": prefix, "variants": variants, "default": default}
    return dataclasses.field(default_factory=lambda: variants[default](), metadata=metadata)


def group(record: type) -> Any:
    """A field that holds a record."""
    return dataclasses.field(default_factory=record, metadata={"group": record})


def flag(name: str) -> str:
    """The command-line flag of a setting."""
    return "--" + name.replace("_", "-")


def shown(value: Any, most: int = 80) -> str:
    """A value as messages quote it: shortened to one line."""
    try:
        text = " ".join(repr(value).split())
    except Exception:  # Python writes no number of thousands of digits, and a class of the user's may raise its own
        text = f"a value of type {type(value).__name__}"
    return text if len(text) <= most else f"{text[:most]}…"


def nearest(name: str, names: Iterable[str]) -> str:
    """The most similar of `names`."""
    return difflib.get_close_matches(name, list(names), n=1, cutoff=0)[0]


@dataclass(frozen=True)
class Option:
    """A setting or a choice at its place in a tree of records.

    Attributes:
        name: its unique name.
        field: its declaration.
        hint: the type of its value.
        where: the (choice, variant) that lead to it, outermost first.
    """

    name: str
    field: dataclasses.Field
    hint: Any
    where: tuple[tuple[str, str], ...]

    @property
    def variants(self) -> Mapping[str, type] | None:
        """The variants of a choice; None for a setting."""
        return self.field.metadata.get("variants")

    @property
    def choices(self) -> tuple[str, ...]:
        """The names that may be given, () where any value of the type may."""
        return tuple(self.variants) if self.variants is not None else _names(self.hint)

    @property
    def default(self) -> Any:
        """The default's value, or a choice's name."""
        return self.field.metadata["default"] if self.variants is not None else self.field.default

    @property
    def traced(self) -> bool:
        """Whether the value may be a traced number."""
        given = self.field.metadata.get("traced")
        return self.hint is float if given is None else given

    def check(self, value: Any) -> Any:
        """The value in its type.

        Raises:
            ConfigError: it is of another type, unknown or out of range.
        """
        if self.choices and not (isinstance(value, str) and value in self.choices):
            near = nearest(value if isinstance(value, str) else shown(value), self.choices)
            raise ConfigError(f"{flag(self.name)} {shown(value)} is unknown; did you mean {near!r}? "
                              f"There are {', '.join(self.choices)}")  # fmt: skip
        if self.choices:
            return value
        value = _typed(self.name, value, self.hint)
        for number in value if isinstance(value, tuple) else (value,):
            self._check_range(number)
        return value

    def _check_range(self, value: Any) -> None:
        low, high, above = (self.field.metadata[key] for key in ("low", "high", "above"))
        if isinstance(value, (bool, str, NoneType)):
            return
        wanted = None
        if above is not None and not above < value < math.inf:
            wanted = f"a finite number above {above}"
        elif high is not None and not (low or 0) <= value <= high:
            wanted = f"a number from {low or 0} to {high}"
        elif low is not None and not low <= value < math.inf:
            wanted = f"{low} or more"
        elif isinstance(value, int) and not -MOST <= value <= MOST:
            wanted = f"{MOST} or less"
        elif isinstance(value, float) and not math.isfinite(value):
            wanted = "a finite number"
        if wanted is not None:
            raise ConfigError(f"{flag(self.name)} is {shown(value)}; give {wanted}")


def fields_of(
    record: type, prefix: str, where: tuple[tuple[str, str], ...]
) -> Iterator[tuple[dataclasses.Field, Option | None]]:
    """The fields of a record that are settings, as options; None for a group."""
    hints = get_type_hints(record)
    for field in dataclasses.fields(record):
        if "group" in field.metadata:
            yield field, None
        elif "help" in field.metadata:
            yield field, Option(prefix + (field.metadata["flag"] or field.name), field, hints[field.name], where)


def options(record: type, prefix: str = "", where: tuple[tuple[str, str], ...] = ()) -> Iterator[Option]:
    """Every setting and choice of a tree of records, those of all variants, in the order of their declaration."""
    for field, option in fields_of(record, prefix, where):
        if option is None:
            yield from options(field.metadata["group"], prefix, where)
            continue
        yield option
        for variant, below in (option.variants or {}).items():
            yield from options(below, prefix + field.metadata["prefix"], (*where, (option.name, variant)))


def known_zero(number: Any) -> bool:
    """Whether a setting is known to be 0 when a program is traced; False for a traced number."""
    return isinstance(number, (int, float)) and number == 0


def _names(hint: Any) -> tuple[str, ...]:
    return get_args(hint) if get_origin(hint) is Literal else ()


def _typed(name: str, value: Any, hint: Any) -> Any:
    if get_origin(hint) in (Union, UnionType):
        if value is None:
            return None
        (hint,) = (part for part in get_args(hint) if part is not NoneType)
    try:
        if hint is bool and type(value).__name__ in ("bool", "bool_"):
            return bool(value)
        if hint is int and not isinstance(value, bool):
            return operator.index(value)
        if hint is float:
            return _real(value)
        if hint is str and isinstance(value, str):
            return value
        if get_origin(hint) is tuple and isinstance(value, (list, tuple)):
            convert = operator.index if get_args(hint)[0] is int else _real
            return tuple(convert(number) for number in value)
    except (TypeError, ValueError, OverflowError):
        pass
    wanted = {bool: "True or False", int: "a whole number", float: "a number", str: "a text", tuple[float, ...]: "numbers"}
    raise ConfigError(f"{flag(name)} is {shown(value)}; give {wanted.get(hint, 'whole numbers')}")


def _real(value: Any) -> float:
    if isinstance(value, (bool, str, bytes)):
        raise TypeError(f"{value!r} is no number")
    return float(value)
