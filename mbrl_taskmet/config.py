"""The configuration of a run: one frozen record, resolved and checked on the host before anything compiles."""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, get_args

from mbrl_taskmet.presets import PRESETS, SOLVERS, preset_values

# Names only, so that `--help` need not import JAX; tests hold them against the code that they name.
METHODS = ("mle", "omd", "taskmet", "vep", "vagram", "itervaml", "model_free")
Kind = Literal["scalar", "diagonal", "full"]
Input = Literal["none", "state", "state_action"]
Activation = Literal["softplus", "exp"]
KINDS, INPUTS, ACTIVATIONS = get_args(Kind), get_args(Input), get_args(Activation)


class ConfigError(ValueError):
    """A setting that cannot work; its message is one sentence that names the value and the mend."""


def option(default: Any, help: str, **metadata: Any) -> Any:
    """A field of `Config`: its documentation here is also the command's `--help`."""
    return dataclasses.field(default=default, metadata={"help": help, **metadata})


@dataclass(frozen=True)
class Config:
    """What is learned and how. A field left at None takes the preset's value for the method, or stays None where the method
    has no such thing; giving it there is an error. Every field is documented by its `option`.
    """

    preset: str = option("default", "default: what learns best for its cost; paper: the published setting; "
                         "paper-code: with the accidents of the authors' code as well", choices=PRESETS)  # fmt: skip
    method: str = option("taskmet", "way of learning the model", choices=METHODS)
    steps: int = option(None, "environment steps of each seed")
    seeds: int = option(None, "number of seeds, trained side by side")
    seed: int = option(0, "number of the first seed")
    model_hidden: int | None = option(None, "units in each of the model's two hidden layers")
    q_hidden: int = option(32, "units in each of the Q network's two hidden layers")
    q_layer_norm: bool = option(None, "normalise the units of the Q network's hidden layers")
    q_sparsity: float = option(None, "how fast what joins the Q network to an input goes to 0, where it is small, in learning "
                                     "rates per update")  # fmt: skip
    normalize_observations: bool = option(None, "let networks and metric see observations in running standard deviations")
    metric: str | None = option(None, "parametrisation of the learned metric", choices=KINDS)
    metric_input: str | None = option(None, "what the metric is conditioned on", choices=INPUTS)
    metric_activation: str | None = option(None, "what makes the weights of a scalar or diagonal metric positive",
                                           choices=ACTIVATIONS)  # fmt: skip
    normalize: bool | None = option(None, "keep the norm of the metric's diagonal at the identity's")
    metric_floor: float | None = option(None, "weight of the identity mixed into the metric, 0 to 1")
    metric_hidden: tuple[int, ...] | None = option(None, "units in each hidden layer of a conditional metric")
    metric_start: str | None = option(None, "where the metric starts", choices=("identity", "published"))
    metric_lr: float | None = option(None, "metric's Adam learning rate, per update, at the start")
    metric_lr_decay: int | None = option(None, "updates k₀ of its schedule lr/√(1 + k/k₀); 0: constant")
    metric_warmup: int | None = option(None, "environment steps before the metric moves")
    metric_every: int | None = option(None, "environment steps between two steps of the metric")
    l1: float | None = option(None, "coefficient of the metric's L1 penalty")
    l1_reduction: str | None = option(None, "L1 penalty over the batch", choices=("mean", "sum"))
    solver: str | None = option(None, "solver of the model's linear system", choices=tuple(SOLVERS))
    solver_steps: int | None = option(None, "iterations of that solver")
    damping: float | None = option(None, "multiple of the identity added to the model's Hessian")
    critic_solver: str | None = option(None, "solver of the critic's linear system", choices=tuple(SOLVERS))
    critic_solver_steps: int | None = option(None, "iterations of that solver")
    critic_damping: float | None = option(None, "multiple of the identity added to the critic's Hessian")
    model_optimizer: str | None = option(None, "adam, or every step as Adam's first one, about lr·sign(gradient)",
                                                choices=("adam", "first_adam"))  # fmt: skip
    model_lr: float | None = option(None, "model's learning rate, per update")
    model_sparsity: float | None = option(None, "how fast what joins the dynamics network to an input or output goes to 0, "
                                                "where it is small, in learning rates per update")  # fmt: skip
    critic_lr: float = option(3e-4, "critic's Adam learning rate, per update")
    temperature: float = option(0.01, "α of the soft value, in units of reward")
    discount: float = option(0.99, "γ, per environment step")
    tau: float = option(0.01, "τ of the target network's moving average, per update")
    policy: str = option(None, "whose values the actions follow: the critic's, or its moving average's, the target network",
                         choices=("critic", "target"))  # fmt: skip
    epsilon: float = option(0.1, "probability of a random action while training")
    random_steps: int = option(1000, "environment steps of random actions, without updates, at the start")
    batch_size: int = option(256, "transitions in the batch of an update")
    replay_capacity: int | None = option(None, "environment steps kept for replay; all of them by default")
    eval_every: int = option(1000, "environment steps between two evaluations")
    eval_episodes: int = option(10, "episodes in an evaluation")
    x64: bool = option(False, "compute in float64, the published precision")

    def resolve(self, noisy: bool = True) -> Config:
        """The complete configuration, checked. `noisy`: whether observations contain distractors, on which the paper's metric
        depends.

        Raises:
            ConfigError: a value is out of range, unknown, or contradicts the method.
        """
        self._check_names()
        own = _fields_of(self.method)
        for name in sorted(_METHOD_FIELDS - own):
            if getattr(self, name) is not None:
                raise ConfigError(
                    f"{flag(name)} {getattr(self, name)} does nothing for the method {self.method}; "
                    f"leave it out, or use --method {_who_has(name)}"
                )
        values = preset_values(self, noisy)
        chosen = {name: value for name, value in values.items() if getattr(self, name) is None}
        config = dataclasses.replace(self, **{k: v for k, v in chosen.items() if k not in _METHOD_FIELDS - own})
        config._check_values()
        return config

    def to_json(self) -> dict[str, Any]:
        """Plain values, for `config.json`."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Config:
        """The inverse of `to_json`.

        Raises:
            ConfigError: a name this version does not know.
        """
        unknown = sorted(set(values) - {field.name for field in dataclasses.fields(cls)})
        if unknown:
            raise ConfigError(
                f"the configuration has {unknown[0]!r}, which this version does not know; use the version that wrote it"
            )
        hidden = values.get("metric_hidden")
        foreign = _METHOD_FIELDS - _fields_of(values["method"])
        if values.get("metric") == "full":
            foreign.add("metric_activation")
        before = {name: value for name, value in _BEFORE.items() if name not in foreign}
        return cls(**{**before, **values, "metric_hidden": None if hidden is None else tuple(hidden)})

    def _check_names(self) -> None:
        for field in dataclasses.fields(self):
            value, choices = getattr(self, field.name), field.metadata.get("choices")
            if choices and value is not None and value not in choices:
                near = nearest(str(value), choices)
                raise ConfigError(
                    f"{flag(field.name)} {value!r} is unknown; did you mean {near!r}? There are {', '.join(choices)}"
                )

    def _check_values(self) -> None:
        for name, least in _AT_LEAST.items():
            value = getattr(self, name)
            for number in value if isinstance(value, tuple) else (value,):
                if number is not None and (number < least or not math.isfinite(number)):
                    raise ConfigError(f"{flag(name)} is {number}; give {least} or more")
        for name, (low, high) in _BETWEEN.items():
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise ConfigError(f"{flag(name)} is {value}; give a number from {low} to {high}")
        for name in _POSITIVE:
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ConfigError(f"{flag(name)} is {value}; give a finite number above 0")
        self._check_combinations()

    def _check_combinations(self) -> None:
        if self.seed + self.seeds > 2**31:
            raise ConfigError(f"--seed is {self.seed}; give one under {2**31 - self.seeds}, for random keys take 31 bits")
        if self.batch_size > self.steps:
            raise ConfigError(f"--batch-size {self.batch_size} is more than --steps {self.steps}; give more steps")
        if self.batch_size > self.random_steps + 1:
            raise ConfigError(
                f"--batch-size {self.batch_size} is more than the --random-steps {self.random_steps} before the first update; "
                "give a smaller batch or more random steps"
            )
        if self.replay_capacity is not None and self.replay_capacity < self.batch_size:
            raise ConfigError(
                f"--replay-capacity {self.replay_capacity} is less than --batch-size {self.batch_size}; give more"
            )
        if self.steps % self.eval_every:
            raise ConfigError(
                f"--steps {self.steps} is no multiple of --eval-every {self.eval_every}; "
                f"give --steps {-(-self.steps // self.eval_every) * self.eval_every} or another --eval-every"
            )
        if self.metric == "scalar" and self.normalize:
            raise ConfigError("--metric scalar is 1 for ever under --normalize; add --no-normalize")
        if self.metric == "full" and self.metric_activation is not None:
            raise ConfigError(f"--metric-activation {self.metric_activation} does nothing for --metric full; leave it out")
        if self.metric_start == "published" and self.metric_activation == "exp":
            raise ConfigError("--metric-start published is a softplus's; give --metric-activation softplus or leave it out")
        if self.metric_input == "none" and self.metric_hidden is not None:
            raise ConfigError("--metric-hidden does nothing for --metric-input none; give --metric-input state or leave it out")
        for solver, steps in (("solver", "solver_steps"), ("critic_solver", "critic_solver_steps")):
            direct = getattr(self, solver) in ("identity", "dense")
            if getattr(self, steps) == 0 and not direct:
                raise ConfigError(f"{flag(steps)} is 0; give 1 or more")
            if getattr(self, steps) and direct:
                raise ConfigError(f"{flag(steps)} does nothing for {flag(solver)} {getattr(self, solver)}; leave it out")


def nearest(name: str, names: Iterable[str]) -> str:
    """The most similar of `names`."""
    return difflib.get_close_matches(name, list(names), n=1, cutoff=0)[0]


def flag(name: str) -> str:
    """The command-line flag of a field."""
    return "--" + name.replace("_", "-")


_METRIC_FIELDS = {
    "metric", "metric_input", "metric_activation", "normalize", "metric_floor", "metric_hidden", "metric_start", "metric_lr",
    "metric_lr_decay", "metric_warmup", "metric_every", "l1", "l1_reduction", "solver", "solver_steps", "damping",
}  # fmt: skip
_IMPLICIT_FIELDS = {"critic_solver", "critic_solver_steps", "critic_damping"}
_MODEL_FIELDS = {"model_hidden", "model_optimizer", "model_lr", "model_sparsity"}
_METHOD_FIELDS = _METRIC_FIELDS | _IMPLICIT_FIELDS | _MODEL_FIELDS

_BEFORE = {
    "q_layer_norm": False, "q_sparsity": 0.0, "metric_lr_decay": 0, "model_sparsity": 0.0, "metric_activation": "softplus",
}  # fmt: skip
"""What a saved run did before it could name these fields."""

_AT_LEAST = {
    "steps": 1, "seeds": 1, "seed": 0, "model_hidden": 1, "model_sparsity": 0, "q_hidden": 1, "q_sparsity": 0,
    "metric_hidden": 1, "metric_lr_decay": 0, "metric_warmup": 0, "metric_every": 1, "l1": 0,
    "solver_steps": 0, "damping": 0, "critic_solver_steps": 0, "critic_damping": 0, "random_steps": 1, "batch_size": 1,
    "replay_capacity": 1, "eval_every": 1, "eval_episodes": 1,
}  # fmt: skip
_BETWEEN = {"metric_floor": (0, 0.99), "discount": (0, 1), "tau": (0, 1), "epsilon": (0, 1)}
_POSITIVE = ("metric_lr", "model_lr", "critic_lr", "temperature")


def _fields_of(method: str) -> set[str]:
    special = {"omd": _MODEL_FIELDS | _IMPLICIT_FIELDS, "taskmet": _METHOD_FIELDS, "model_free": set()}
    return special.get(method, _MODEL_FIELDS)


def _who_has(name: str) -> str:
    return " or ".join(method for method in METHODS if name in _fields_of(method))
