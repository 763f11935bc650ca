"""The presets: named values that fill the settings that were not given.

The defaults at the settings themselves are what learns best for its cost, chosen by return on CartPole with 8 to 512
distractors, on other seeds than those reported: `runs/results/decisions/`. The published values are those of TaskMet's Table 5
and of OMD; with soft actor-critic those of OMD on HalfCheetah, where networks end in layers of scale √2. A shared metric's were
chosen on CartPole beside 16 oscillators, with a model of 16 units.
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
        critics: also for these critics.
    """

    values: Values = field(default_factory=dict)
    without_noise: Values = field(default_factory=dict)
    methods: Mapping[str, Values] = field(default_factory=dict)
    critics: Mapping[str, Values] = field(default_factory=dict)

    def for_run(self, method: str, critic: str, noisy: bool) -> dict[str, Any]:
        """The values for a method and a critic, on observations with or without distractors."""
        noise = {} if noisy else self.without_noise
        return {**self.values, **noise, **self.methods.get(method, {}), **self.critics.get(critic, {})}


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
_ACTOR_CRITIC: Mapping[str, Values] = {"sac": {  # OMD's HalfCheetah, which took 1 000 000 steps
    "q_hidden": 256, "actor_hidden": 256, "model_hidden": 256, "q_output_scale": 2**0.5, "model_output_scale": 2**0.5,
    "critic_lr": 3e-4, "actor_lr": 3e-4, "temperature_lr": 3e-4, "model_lr": 3e-4, "tau": 0.005, "target_entropy": -0.5,
    "random_steps": 10_000, "eval_every": 5000,
}}  # fmt: skip
_SHARED: Values = {
    "metric_shared": True, "metric_activation": "sigmoid", "metric_floor": 0.05, "metric_lr": 0.01, "metric_lr_decay": 100,
    "metric_warmup": 2000, "metric_until": 5000,
}  # fmt: skip

PRESETS: dict[str, Preset] = {
    "default": Preset(),
    "shared": Preset({"model_sparsity": 0.0}, methods={"taskmet": _SHARED}),
    "paper": Preset(_PAPER, without_noise=_FULL, critics=_ACTOR_CRITIC),
    "paper-code": Preset({**_PAPER, **_CODE}, without_noise=_FULL, methods=_FIRST_STEPS, critics=_ACTOR_CRITIC),
}
"""Every preset by its name."""
