"""The presets: named values that fill the settings that were not given.

The defaults at the settings themselves are what learns best for its cost, chosen by return on CartPole with 8 to 512
distractors, on other seeds than those reported: `runs/results/NOTES.md`. The published values are those of TaskMet's Table 5
and of OMD.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Values = Mapping[str, Any]


@dataclass(frozen=True)
class Preset:
    """Settings by name; what a method or a critic does not have is left out.

    Attributes:
        values: for every run.
        without_noise: also where observations have no distractors.
        methods: also for these methods.
    """

    values: Values = field(default_factory=dict)
    without_noise: Values = field(default_factory=dict)
    methods: Mapping[str, Values] = field(default_factory=dict)

    def for_run(self, method: str, noisy: bool) -> dict[str, Any]:
        """The values for a method, on observations with or without distractors."""
        return {**self.values, **({} if noisy else self.without_noise), **self.methods.get(method, {})}


_PAPER: Values = {
    "steps": 200_000, "seeds": 10, "normalize_observations": False,
    "q_layer_norm": False, "q_sparsity": 0.0, "policy": "critic", "model_sparsity": 0.0,
    "metric_floor": 0.0, "metric_lr": 1e-3, "metric_lr_decay": 0, "metric_every": 1, "solver": "normal_cg",
}  # fmt: skip
_CODE: Values = {
    "metric_start": "published", "l1_reduction": "sum", "metric_hidden": (32,), "head_reduction": "mean",
    "linear_system": "model",
}  # fmt: skip
_FIRST_STEPS: Mapping[str, Values] = {
    "taskmet": {"model_optimizer": "first_adam"}, "omd": {"critic_optimizer": "first_adam"},
}  # fmt: skip
_FULL: Values = {"metric": "full", "metric_input": "state_action"}

PRESETS: dict[str, Preset] = {
    "default": Preset(),
    "paper": Preset(_PAPER, without_noise=_FULL),
    "paper-code": Preset({**_PAPER, **_CODE}, without_noise=_FULL, methods=_FIRST_STEPS),
}
"""Every preset by its name."""
