"""The directory of a run: its name, its `config.json`, and what may be resumed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from decision_tasks.config import Config
from mbrl_taskmet.config import ConfigError, flag


def new_run(given: dict[str, Any], name: str | None, logdir: str | None) -> tuple[Config, Path]:
    """A run to start, and its directory, chosen but not made.

    Raises:
        ConfigError: a bad setting, or a name that is taken.
    """
    config = Config(**given).check()
    root, chosen = Path(logdir or "runs/logs"), name or _name(config, given)
    directory, count = root / chosen, 1
    try:
        taken = directory.exists()
    except OSError as error:
        raise ConfigError(f"{directory} cannot be a directory ({error.strerror}); give another --name or --logdir") from None
    if taken and name:
        raise ConfigError(f"{directory} exists; give another --name, or --resume {directory}")
    while directory.exists():
        count += 1
        directory = root / f"{chosen}_{count}"
    return config, directory


def resumed_run(resume: str, given: dict[str, Any], name: str | None, logdir: str | None) -> tuple[Config, Path]:
    """The run in `resume`; any setting given must agree with it.

    Raises:
        ConfigError: no run, a damaged one, one of newer code or of other settings.
    """
    directory = Path(resume)
    path = directory / "config.json"
    if not resume or not path.is_file():
        raise ConfigError(f"{resume or '--resume'} holds no run (no config.json in it); give a run's directory to --resume")
    for option, value in (("name", name), ("logdir", logdir)):
        if value is not None:
            raise ConfigError(f"--{option} {value} cannot change what {directory} is called; leave it out with --resume")
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
        config = Config(**saved["config"]).check()
    except ConfigError:
        raise
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{path} is damaged or from newer code ({type(error).__name__}: {error}); restore it to resume"
        ) from None
    for key, value in given.items():
        if value != getattr(config, key):
            raise ConfigError(f"{directory} has {flag(key)} {getattr(config, key)}, not {value}; leave it out to resume")
    return config, directory


def _name(config: Config, given: dict[str, Any]) -> str:
    parts = ["decision", config.task, config.method, f"{config.datasets}x{config.seeds}"]
    said = {"task", "method", "datasets", "seeds"}
    parts += [f"{key.replace('_', '-')}-{value}" for key, value in sorted(given.items()) if key not in said]
    return "_".join(parts).replace("/", "-").replace(" ", "")[:150]
