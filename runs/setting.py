"""A line of an experiment's table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mbrl_taskmet.rl.settings import Config


@dataclass(frozen=True)
class Setting:
    """One line of the table.

    Attributes:
        name: of its directory.
        environment: what it is run on.
        distractors: how many there are.
        given: further settings by name, those that are not left to the preset.
        rival: the setting it is compared with, in the probability that the rival is better.
        published: the published final return, as it is printed.
    """

    name: str
    environment: str = "CartPole-v1"
    distractors: int = 0
    given: Mapping[str, Any] = field(default_factory=dict)
    rival: str | None = None
    published: str = ""

    @property
    def config(self) -> Config:
        """All settings that are given."""
        return Config(env=self.environment, distractors=self.distractors, **self.given)
