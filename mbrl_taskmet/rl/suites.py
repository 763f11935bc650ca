"""The suites that environments come from, with their settings; `envs.make.ADAPTERS` holds what makes the environments."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from mbrl_taskmet.core.settings import setting


@dataclass(frozen=True)
class Suite:
    """Where an environment comes from.

    example: what `--env` takes, in words.
    """

    example: ClassVar[str]


@dataclass(frozen=True)
class GymnaxSuite(Suite):
    """gymnax, the probes, and classes of one's own."""

    example = "the name of a gymnax environment, such as Acrobot-v1, or module:Class"


@dataclass(frozen=True, kw_only=True)
class BraxSuite(Suite):
    """brax."""

    example = "the name of a brax environment, such as hopper"
    backend: Literal["spring", "generalized", "positional", "mjx"] = setting("spring", "physics backend of brax")


@dataclass(frozen=True)
class PlaygroundSuite(Suite):
    """MuJoCo Playground."""

    example = "the name of an environment of MuJoCo Playground, such as CheetahRun"


SUITES: dict[str, type[Suite]] = {"gymnax": GymnaxSuite, "brax": BraxSuite, "playground": PlaygroundSuite}
"""The suites by name."""
