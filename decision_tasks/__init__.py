"""Decision tasks: predictors trained for the decisions that are taken on their predictions.

from decision_tasks import Cubic, train
"""

from importlib import import_module
from typing import Any

_HOMES = {
    "base": ("Data", "Split", "Task", "split"),
    "budget": ("Budget",),
    "cubic": ("Cubic",),
    "methods": ("DFL", "LODL", "METHODS", "MSE", "Method", "TaskMet", "squared_error"),
    "portfolio": ("Portfolio",),
    "training": ("train",),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    """Import what needs JAX when it is first asked for: `--help` answers without."""
    if name in _HOME:
        return getattr(import_module(f"decision_tasks.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
