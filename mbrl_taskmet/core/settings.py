"""Settings, each declared once, at the class that it configures, with default, range and help.

A *record* is a frozen dataclass. Its fields are made by `setting` (a value), `choice` (one of several records, by name) or
`group` (a record); other fields are no settings. Every value and every choice has a name that is unique in the tree of
records. Flags, files and Python give settings by these names, flat; `resolve` makes the nested records of them, and
`flatten` is its inverse. What is given and has no place in the tree that the choices span is refused with the choice that
would have it, so no table says which option belongs to what.
"""

from __future__ import annotations

import copy
import dataclasses
import difflib
import math
import operator
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

R = TypeVar("R")
Given = Mapping[str, Any]
"""Settings by name, as flags, a file or Python give them."""

MOST = 2**31 - 1
"""Whole numbers go into compiled programs as 32 bits."""


class ConfigError(ValueError):
    """A setting that cannot work; its message is one sentence, on one line, that names the value and what to do."""

    def __init__(self, message: str):
        super().__init__(" ".join(message.splitlines()))


class Misplaced(ConfigError):
    """A setting that has no place under the choices that were made.

    Attributes:
        name: the setting's.
    """

    def __init__(self, message: str, name: str):
        super().__init__(message)
        self.name = name


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
    """A value as a sentence quotes it: on one line, and not longer than that."""
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
    """A setting or a choice where it stands in a tree of records.

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
        """What a choice is among, or None for a setting."""
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


def options(record: type, prefix: str = "", where: tuple[tuple[str, str], ...] = ()) -> Iterator[Option]:
    """Every setting and choice of a tree of records, those of all variants, in the order of their declaration."""
    for field, option in _fields(record, prefix, where):
        if option is None:
            yield from options(field.metadata["group"], prefix, where)
            continue
        yield option
        for variant, below in (option.variants or {}).items():
            yield from options(below, prefix + field.metadata["prefix"], (*where, (option.name, variant)))


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
    """Every setting of built records by its name: plain values, complete."""
    values: dict[str, Any] = {}
    for field, option in _fields(type(record), prefix, ()):
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
    for field, option in _fields(type(record), prefix, ()):
        value = getattr(record, field.name)
        if option is None:
            value = with_numbers(value, numbers, prefix)
        elif option.variants is not None:
            value = with_numbers(value, numbers, prefix + field.metadata["prefix"])
        elif option.name in numbers:
            value = numbers[option.name]
        object.__setattr__(new, field.name, value)
    return new


def known_zero(number: Any) -> bool:
    """Whether a setting is 0 where that is known while a program is made; a traced number is not."""
    return isinstance(number, (int, float)) and number == 0


def check_fields(record: Any) -> None:
    """What is made in Python is checked as what flags and files give.

    Raises:
        ConfigError: a setting of `record` is of the wrong type, unknown or out of range, or a group is no record.
    """
    for field, option in _fields(type(record), "", ()):
        value = getattr(record, field.name)
        if option is not None and option.variants is None:
            if not hasattr(value, "aval"):  # which JAX traces: what it is, is known later
                option.check(value)
        elif isinstance(value, type) or not dataclasses.is_dataclass(value):
            raise ConfigError(f"{type(record).__name__}.{field.name} is {shown(value)}; give an instance of its settings")


def before(record: type) -> dict[str, Any]:
    """What runs did that were saved before a field existed, by its name."""
    declared = {option.name: option.field.metadata.get("before", dataclasses.MISSING) for option in options(record)}
    return {name: value for name, value in declared.items() if value is not dataclasses.MISSING}


def _fields(record: type, prefix: str, where: tuple[tuple[str, str], ...]) -> Iterator[tuple[dataclasses.Field, Option | None]]:
    """The fields of a record that are settings, as options; None for a group."""
    hints = get_type_hints(record)
    for field in dataclasses.fields(record):
        if "group" in field.metadata:
            yield field, None
        elif "help" in field.metadata:
            yield field, Option(prefix + (field.metadata["flag"] or field.name), field, hints[field.name], where)


def _build(record: type[R], given: Given, preset: Given, taken: dict[str, Any], prefix: str) -> R:
    """A record; the names that the tree has are noted in `taken` with their values."""
    values: dict[str, Any] = {}
    for field, option in _fields(record, prefix, ()):
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
