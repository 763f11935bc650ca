"""What all tests share: float64 on request, and property tests that are the same on every run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from hypothesis import HealthCheck, settings
from jax.flatten_util import ravel_pytree

PyTree = Any

# No deadline: the first example compiles. The fixture `x64` is the same for every example, so it may be function-scoped.
settings.register_profile(
    "jax", deadline=None, max_examples=30, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
settings.load_profile("jax")


@pytest.fixture
def x64() -> Iterator[None]:
    """Compute in float64 during the test."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def central_differences() -> Callable[..., PyTree]:
    """∂f/∂x by central differences: (f, x, step) → a pytree like x. Needs `x64`."""

    def differentiate(function: Callable[[PyTree], jax.Array], at: PyTree, step: float = 1e-5) -> PyTree:
        flat, unravel = ravel_pytree(at)
        rows = step * jnp.eye(flat.size)
        slopes = [(function(unravel(flat + row)) - function(unravel(flat - row))) / (2 * step) for row in rows]
        return unravel(jnp.stack(slopes))

    return differentiate


@pytest.fixture
def relative_error() -> Callable[[PyTree, PyTree], float]:
    """‖x − y‖ / ‖y‖ over all entries of two pytrees."""

    def compare(value: PyTree, truth: PyTree) -> float:
        assert jax.tree.structure(value) == jax.tree.structure(truth)
        x, y = ravel_pytree(value)[0], ravel_pytree(truth)[0]
        return float(jnp.linalg.norm(x - y) / jnp.linalg.norm(y))

    return compare
