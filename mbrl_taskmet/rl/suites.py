"""The suites that environments come from, with their settings; `envs.make.ADAPTERS` holds what makes the environments."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mbrl_taskmet.core.settings import setting


@dataclass(frozen=True)
class Suite:
    """Where an environment comes from."""


@dataclass(frozen=True)
class GymnaxSuite(Suite):
    """gymnax, the probes, and classes of one's own."""


@dataclass(frozen=True, kw_only=True)
class BraxSuite(Suite):
    """brax."""

    backend: Literal["spring", "generalized", "positional", "mjx"] = setting("spring", "physics that moves the bodies")


@dataclass(frozen=True)
class PlaygroundSuite(Suite):
    """MuJoCo Playground."""


SUITES: dict[str, type[Suite]] = {"gymnax": GymnaxSuite, "brax": BraxSuite, "playground": PlaygroundSuite}
"""The suites by name."""
