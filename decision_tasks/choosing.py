"""Tasks that choose a number of items, and may choose other numbers of them on the same prediction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from typing_extensions import override

from decision_tasks.base import Task
from mbrl_taskmet.core.settings import ConfigError, setting
from mbrl_taskmet.core.settings_tree import with_numbers


@dataclass(frozen=True, eq=False, kw_only=True)
class Choosing(Task):
    """Choose `choose` of `items`. Each of the numbers in `also_choose` is one more decision on the prediction."""

    choose: int
    items: int
    also_choose: tuple[int, ...] = setting((), "other numbers of items to choose on the same prediction", low=1)
    decision_weights: tuple[float, ...] = setting(
        (), "weights of the decisions, of --choose first; 1 each by default, and 0 scores a decision without learning it", low=0
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, number in (("--choose", self.choose), *(("--also-choose", number) for number in self.also_choose)):
            check_choice(number, self.items, name)
        if len(set(self._numbers)) < len(self._numbers):
            raise ConfigError(f"--also-choose is {self.also_choose}, and --choose {self.choose}; give each number once")
        if self.decision_weights and len(self.decision_weights) != len(self._numbers):
            raise ConfigError(
                f"--decision-weights is {self.decision_weights}; give one for each of the {len(self._numbers)} decisions"
            )
        if self.decision_weights and not any(self.decision_weights):
            raise ConfigError(f"--decision-weights is {self.decision_weights}; give one above 0, or there is nothing to learn")

    @property
    def _numbers(self) -> tuple[int, ...]:
        return self.choose, *self.also_choose

    @override
    @property
    def decisions(self) -> Mapping[str, tuple[float, Task]]:
        if not self.also_choose:
            return {self.name: (1.0, self)}
        weights = self.decision_weights or (1.0,) * len(self._numbers)
        alone = {"also_choose": (), "decision_weights": ()}
        return {
            f"choose {number}": (weight, with_numbers(self, {"choose": number, **alone}))
            for number, weight in zip(self._numbers, weights, strict=True)
        }


def check_choice(choose: int, items: int, name: str = "--choose") -> None:
    """Raise ConfigError, which calls it `name`, unless 1 ≤ choose < items."""
    if not 1 <= choose <= items:
        raise ConfigError(f"{name} is {choose}; give a number from 1 to the {items} items there are")
    if choose == items:
        raise ConfigError(f"{name} is {choose} of {items} items, and there is nothing to decide; give fewer, or more --items")
