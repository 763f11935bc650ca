"""The directory of a run: its name, its `config.json`, and what may be resumed."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agents.options import Options
from mbrl_taskmet.command import check_same, free_directory, saved_run
from mbrl_taskmet.config import Config, ConfigError

FORMAT = 1
"""Raised when the files of a run change their meaning."""


@dataclass(frozen=True)
class Run:
    """What is trained, on what, and where it is written."""

    environment: str
    distractors: int
    config: Config  # resolved
    directory: Path
    resumed: bool

    def to_json(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "environment": self.environment,
            "distractors": self.distractors,
            "config": self.config.to_json(),
        }


def new_run(options: Options) -> Run:
    """A run to start; its directory is chosen but not made.

    Raises:
        ConfigError: a bad setting, or a name that is taken.
    """
    environment, distractors = str(options.env), options.distractors or 0
    if distractors < 0:
        raise ConfigError(f"--distractors is {distractors}; give 0 or more")
    config = Config(**options.given).resolve(noisy=distractors > 0)
    parts = [environment.lower(), f"d{distractors}", config.method, f"{config.steps}steps",
             f"seeds{config.seed}-{config.seed + config.seeds - 1}"]  # fmt: skip
    said = {name: value for name, value in options.given.items() if name not in ("method", "steps", "seed", "seeds")}
    directory = free_directory(options.name, options.logdir, parts, said)
    return Run(environment, distractors, config, directory, resumed=False)


def resumed_run(options: Options) -> Run:
    """The run in `--resume`, with `--steps` if given; any other option must agree with it.

    Raises:
        ConfigError: no run, a damaged one, one of newer code or of other settings.
    """

    def read(saved: dict[str, Any]) -> tuple[str, int, Config]:
        environment, distractors = saved["environment"], saved["distractors"]
        return environment, distractors, Config.from_json(saved["config"]).resolve(noisy=distractors > 0)

    directory, (environment, distractors, config) = saved_run(str(options.resume), options.name, options.logdir, FORMAT, read)
    if options.env not in (None, environment):
        raise ConfigError(f"{directory} is a run on {environment}; resume it with that environment's agent")
    if options.distractors not in (None, distractors):
        raise ConfigError(f"{directory} has --distractors {distractors}, not {options.distractors}; leave it out")
    given = dict(options.given)
    steps = given.pop("steps", config.steps)
    check_same(directory, given, config)
    if steps < config.steps:
        raise ConfigError(f"--steps {steps} is less than the {config.steps} of {directory}; give more to extend it")
    config = dataclasses.replace(config, steps=steps).resolve(noisy=distractors > 0)
    if not any((directory / "checkpoints" / "state").glob("[0-9]*")):
        raise ConfigError(f"{directory} holds no checkpoint, so it ended before it began; start it again without --resume")
    return Run(environment, distractors, config, directory, resumed=True)
