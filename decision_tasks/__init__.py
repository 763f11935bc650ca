"""Decision tasks: predictors trained for the decisions that are taken on their predictions.

from decision_tasks import Cubic, train
"""

from importlib import import_module
from typing import Any

import mbrl_taskmet.runner.starting  # noqa: F401

_HOMES = {
    "base": ("Data", "Split", "Task", "split", "squared_error"),
    "budget": ("Budget",),
    "cubic": ("Cubic",),
    "job": ("run",),
    "objectives": ("DFL", "LODL", "MSE", "OBJECTIVES", "MetricLearning", "Objective"),
    "portfolio": ("Portfolio",),
    "settings": ("TASKS", "CellSettings", "cells"),
    "training": ("CellResult", "train"),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is first asked for."""
    if name in _HOME:
        return getattr(import_module(f"decision_tasks.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
