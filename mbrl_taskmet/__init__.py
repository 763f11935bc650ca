"""Decision-aware model learning in JAX: OMD, TaskMet and the methods around them.

from mbrl_taskmet import Config, train
"""

from typing import Any

from mbrl_taskmet.config import Config, ConfigError

__all__ = ["Config", "ConfigError", "train"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import what needs JAX when it is first asked for: `--help` answers without."""
    if name == "train":
        from mbrl_taskmet.training import train

        return train
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
