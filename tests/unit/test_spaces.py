"""Action spaces: what they take for sizes and bounds."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from mbrl_taskmet import Box, ConfigError, Discrete
from tests.unit.contract_cases import untyped


@pytest.mark.parametrize("n", [0, -1, 1.5, True, "2", 2**31, None, np.zeros(2)])
def test_a_discrete_space_has_a_whole_number_of_actions(n: Any) -> None:
    with untyped(), pytest.raises(ConfigError, match=r"Discrete has n = .*; give the number of actions, 1 or more"):
        Discrete(n)


@pytest.mark.parametrize(
    "bounds",
    [(-1, 1), ((), ()), ((0,), (0,)), ((0,), (1, 2)), ((0,), (np.inf,)), (("a",), ("b",)), ([[0]], [[1]]), (None, None)],
)
def test_a_box_has_finite_bounds(bounds: tuple[Any, Any]) -> None:
    with untyped(), pytest.raises(ConfigError, match=r"Box has low = .*; give two tuples of finite numbers"):
        Box(*bounds)


def test_spaces_are_plain_values() -> None:
    with untyped():
        assert Discrete(np.int64(3)) == Discrete(3) and type(Discrete(jnp.array(3)).n) is int  # type: ignore[arg-type]
        assert Box(np.array([-1, 0]), [1, 2]) == Box((-1.0, 0.0), (1.0, 2.0))  # type: ignore[arg-type]
        assert len({Box((-1,), (1,)), Box((-1.0,), (1.0,))}) == 1
