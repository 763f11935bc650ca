"""The settings of a run: partial, as they are given (`Config`), and resolved (`Settings`), records nested by what they set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral
from typing import Any, Literal

from mbrl_taskmet.core.settings import ConfigError, choice, group, setting, shown
from mbrl_taskmet.core.settings_tree import Misplaced, before, check_names, flatten, resolve
from mbrl_taskmet.rl import format_1
from mbrl_taskmet.rl.critics import CRITICS, CriticSettings
from mbrl_taskmet.rl.environment import EnvironmentSettings
from mbrl_taskmet.rl.methods import METHODS, MethodSettings
from mbrl_taskmet.rl.presets import PRESETS
from mbrl_taskmet.rl.spaces import ActionSpace


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is learned, on what and how: complete and checked."""

    environment: EnvironmentSettings = group(EnvironmentSettings)
    preset: Literal["default", "shared", "paper", "paper-code"] = setting(
        "default",
        "default: the best return for its cost; shared: a metric that the critic sees too, beside predictable distractions; "
        "paper: the published setting; "
        "paper-code: also with the peculiarities of the authors' code",
    )
    method: MethodSettings = choice(METHODS, "taskmet", "how the model is trained")
    critic: CriticSettings = choice(CRITICS, "soft_q", "critic; by default the one for the environment's action space")
    steps: int = setting(100_000, "environment steps of each seed", low=1)
    seeds: int = setting(1, "number of seeds, trained side by side", low=1)
    seed: int = setting(0, "number of the first seed", low=0)
    normalize_observations: bool = setting(
        True, "normalise observations by running means and standard deviations, for networks and metric"
    )
    reward_scale: float = setting(1.0, "factor on the rewards in training; reported returns are unscaled", above=0)
    random_steps: int = setting(1000, "environment steps with random actions and without updates, at the start", low=1)
    batch_size: int = setting(256, "transitions per update", low=1)
    replay_capacity: int | None = setting(None, "environment steps that the replay buffer holds; all of them by default", low=1)
    eval_every: int = setting(1000, "environment steps between evaluations", low=1)
    eval_episodes: int = setting(10, "episodes per evaluation", low=1)
    skip_limit: int = setting(
        10, "consecutive updates that are not finite, each of them skipped, after which a run stops learning", low=1
    )
    x64: bool = setting(False, "compute in float64, the published precision")

    def check(self) -> None:
        """Raise ConfigError if two settings contradict each other."""
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

    @property
    def names(self) -> Mapping[str, Any]:
        """Every setting by its name, flat."""
        return flatten(self)


class Config:
    """Settings as they are given, by name: `Config(method="taskmet", steps=2000, metric_floor=0.1)`.

    Attributes:
        given: the settings by name; None counts as not given.

    Raises:
        ConfigError: there is no setting of a name.
    """

    def __init__(self, **given: Any):
        check_names(Settings, given)
        self.given: Mapping[str, Any] = given

    def __repr__(self) -> str:
        return f"Config({', '.join(f'{name}={value!r}' for name, value in self.given.items())})"

    def __or__(self, more: Mapping[str, Any]) -> Config:
        """The configuration with `more` settings, which win."""
        return Config(**{**self.given, **more})

    def resolve(self, action_space: ActionSpace | None = None) -> Settings:
        """The complete settings, checked.

        Args:
            action_space: the environment's, by which the critic is chosen. Where it is not known yet, any critic is that has
                what was given.

        Raises:
            ConfigError: a value is of the wrong type, unknown, out of range, or does nothing, or two contradict each other.
        """
        if not isinstance(action_space, ActionSpace | None):
            raise ConfigError(f"the action space is {shown(action_space)}; give Discrete or Box, or none")
        fitting = [name for name, critic in CRITICS.items() if action_space is None or isinstance(action_space, critic.acts_in)]
        named = self.given.get("critic")
        if isinstance(named, str) and named in CRITICS and named not in fitting:
            raise ConfigError(f"--critic {named} is for other actions than {action_space}; "
                              f"leave it out, or use --critic {' or '.join(fitting)}")  # fmt: skip
        errors = []
        for critic in fitting if named is None else [named]:
            try:
                return self._resolve(critic)
            except ConfigError as error:
                errors.append(error)
        raise min(errors, key=lambda error: isinstance(error, Misplaced))  # the first that says what is wrong with a value

    def _resolve(self, critic: Any) -> Settings:
        given = {**self.given, "critic": critic}
        texts = {name: value for name, value in given.items() if isinstance(value, str)}  # any other is refused below
        preset = PRESETS.get(texts.get("preset", "default"), PRESETS["default"])
        noise = given.get("distractors")
        noisy = isinstance(noise, Integral) and noise != 0
        return resolve(Settings, given, preset.for_run(texts.get("method", "taskmet"), texts.get("critic", ""), noisy=noisy))


def read_saved(saved: Mapping[str, Any]) -> Settings:
    """The settings in a run's `config.json`, which this version or an earlier one wrote.

    Raises:
        ConfigError: it names a setting that this version does not know, or one that cannot work.
        KeyError, TypeError: it is not what any version writes.
    """
    old = saved["format"] == 1
    names = format_1.names(saved) if old else saved["settings"]
    try:
        check_names(Settings, names)
    except ConfigError as error:
        unknown = str(error).split(" is no setting")[0]
        raise ConfigError(
            f"the configuration has {unknown}, which this version does not know; use the version that wrote it"
        ) from None
    names = {name: value for name, value in names.items() if value is not None}
    if old:  # it also holds what did nothing
        return resolve(Settings, {}, {**before(Settings), **names})
    return resolve(Settings, names, before(Settings))
