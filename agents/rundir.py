"""The directory of a run: its name, its `config.json`, and what may be resumed."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agents.options import Options
from mbrl_taskmet.config import Config, ConfigError, flag

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
    root = Path(options.logdir or "runs/logs")
    name = options.name or _name(environment, distractors, config, options.given)
    directory = root / name
    try:
        taken = directory.exists()
    except OSError as error:
        raise ConfigError(f"{directory} cannot be a directory ({error.strerror}); give another --name or --logdir") from None
    if taken and options.name:
        raise ConfigError(f"{directory} exists; give another --name, or --resume {directory}")
    count = 1
    while directory.exists():
        count += 1
        directory = root / f"{name}_{count}"
    return Run(environment, distractors, config, directory, resumed=False)


def resumed_run(options: Options) -> Run:
    """The run in `--resume`, with `--steps` if given; any other option must agree with it.

    Raises:
        ConfigError: no run, a damaged one, one of newer code or of other settings.
    """
    if not options.resume:
        raise ConfigError("--resume is empty; give the directory of a run")
    directory = Path(options.resume)
    path = directory / "config.json"
    if not path.is_file():
        raise ConfigError(f"{directory} holds no run (no config.json in it); give a run's directory to --resume")
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
        if saved["format"] > FORMAT:
            raise ConfigError(f"{path} is of format {saved['format']}, from newer code than this; update to resume it")
        run = Run(saved["environment"], saved["distractors"], Config.from_json(saved["config"]), directory, resumed=True)
        config = run.config.resolve(noisy=run.distractors > 0)
    except ConfigError:
        raise
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path} is damaged ({type(error).__name__}: {error}); restore it to resume") from None
    if options.env not in (None, run.environment):
        raise ConfigError(f"{directory} is a run on {run.environment}; resume it with that environment's agent")
    for option, value in (("name", options.name), ("logdir", options.logdir)):
        if value is not None:
            raise ConfigError(f"--{option} {value} cannot change what {directory} is called; leave it out with --resume")
    if options.distractors not in (None, run.distractors):
        raise ConfigError(f"{directory} has --distractors {run.distractors}, not {options.distractors}; leave it out")
    for name, value in options.given.items():
        if name != "steps" and value != getattr(config, name):
            raise ConfigError(f"{directory} has {flag(name)} {getattr(config, name)}, not {value}; leave it out to resume")
    steps = options.given.get("steps", config.steps)
    if steps < config.steps:
        raise ConfigError(f"--steps {steps} is less than the {config.steps} of {directory}; give more to extend it")
    config = dataclasses.replace(config, steps=steps).resolve(noisy=run.distractors > 0)
    if not any((directory / "checkpoints" / "state").glob("[0-9]*")):
        raise ConfigError(f"{directory} holds no checkpoint, so it ended before it began; start it again without --resume")
    return dataclasses.replace(run, config=config)


def _name(environment: str, distractors: int, config: Config, given: dict[str, Any]) -> str:
    parts = [environment.lower(), f"d{distractors}", config.method, f"{config.steps}steps",
             f"seeds{config.seed}-{config.seed + config.seeds - 1}"]  # fmt: skip
    said = {"method", "steps", "seed", "seeds"}
    parts += [f"{name.replace('_', '-')}-{value}" for name, value in sorted(given.items()) if name not in said]
    return "_".join(parts).replace("/", "-").replace(":", "-").replace(" ", "")[:150]
