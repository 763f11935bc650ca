"""Values that a user may give, right or wrong, drawn by hypothesis from a seed."""

from __future__ import annotations

from typing import Any, TypeVar, get_args

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from mbrl_taskmet.core.settings import Option

T = TypeVar("T")

EDGES = (0, 1, -1, 2, 2**31 - 1, 2**31, -(2**31), 2**63, 10**30, 10**400, 0.0, -0.0, 0.5, 1e-300, 1e-45, 1e300, float("nan"),
         float("inf"), -float("inf"), True, False)  # fmt: skip
NUMBERS: st.SearchStrategy[Any] = st.sampled_from(EDGES) | st.integers() | st.floats()
TEXTS = st.sampled_from(["", " ", "nan", "1e5", "1_000", "٣", "0x10", "None", "true", "-", "--", "-1", "a b", "a\nb", "\x00",
                         "ß\u2028", "../x", "/", ".", "~", "{0}", "%s", "a" * 300]) | st.text(max_size=8)  # fmt: skip
ANYTHING: st.SearchStrategy[Any] = st.recursive(
    st.none() | NUMBERS | TEXTS | st.binary(max_size=4) | st.complex_numbers(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(TEXTS, inner, max_size=2)
        | st.builds(lambda value: {value} if isinstance(value, (int, float, str)) else value, inner)
    ),
    max_leaves=4,
)


def drawn(strategy: st.SearchStrategy[T], count: int, number: int) -> list[T]:
    """Up to `count` values, the same for the same seed `number`."""
    found: list[T] = []

    @seed(number)
    @settings(max_examples=count, database=None, deadline=None, derandomize=False, phases=[Phase.generate],
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(strategy)
    def collect(value: T) -> None:
        found.append(value)

    collect()
    return found[:count]


def likely(option: Option) -> st.SearchStrategy[Any]:
    """Values of a setting, most of them of its type and near its default, in Python's types."""
    if option.choices:
        return st.sampled_from(option.choices)
    kinds = get_args(option.hint) or (option.hint,)
    if bool in kinds:
        return st.booleans()
    if get_args(option.hint) and tuple in (option.hint, getattr(option.hint, "__origin__", None)):
        return st.lists(st.integers(1, 8), min_size=1, max_size=3).map(tuple)
    if int in kinds:
        return st.integers(1, 300) | st.sampled_from((0, 1, 100, 1000, 2**31 - 1))
    if float in kinds:
        return st.floats(0, 1) | st.sampled_from((0.0, 0.1, 1.0, 1e-3))
    return TEXTS


def setting(option: Option) -> st.SearchStrategy[tuple[str, Any]]:
    """A setting's name and a value, of its type three times of four."""
    value = st.integers(0, 3).flatmap(lambda chance: likely(option) if chance else ANYTHING)
    return st.tuples(st.just(option.name), value)
