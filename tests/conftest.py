"""What all tests share: shapes and types that are checked, float64 on request, property tests the same on every run."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from jax.flatten_util import ravel_pytree
from jaxtyping import install_import_hook

import tests.typecheck  # noqa: F401  # the hook names it

PyTree = Any

install_import_hook("mbrl_taskmet", "tests.typecheck.check")  # before any test imports the library

# No deadline: the first example compiles. The fixture `x64` is the same for every example, so it may be function-scoped.
settings.register_profile(
    "jax", deadline=None, max_examples=20, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
settings.load_profile("jax")


def pytest_configure(config: pytest.Config) -> None:
    """Compile quickly rather than well, but for the slow tests: the others' time goes to compiling."""
    jax.config.update("jax_disable_most_optimizations", config.option.markexpr == "not slow")
    # Started in the background, or under nohup, signals are ignored, also by the processes that tests start.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


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
        center, unravel = np.array(flat), jax.jit(unravel)
        rows = step * np.eye(center.size)
        slopes = [(function(unravel(center + row)) - function(unravel(center - row))) / (2 * step) for row in rows]
        return unravel(np.array(slopes))

    return differentiate


@pytest.fixture
def relative_error() -> Callable[[PyTree, PyTree], float]:
    """‖x − y‖ / ‖y‖ over all entries of two pytrees."""

    def compare(value: PyTree, truth: PyTree) -> float:
        jax.tree.map(lambda *_: None, value, truth)  # raises unless their structures are the same
        x, y = np.array(ravel_pytree(value)[0]), np.array(ravel_pytree(truth)[0])
        return float(np.linalg.norm(x - y) / np.linalg.norm(y))

    return compare
