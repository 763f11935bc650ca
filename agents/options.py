"""The command line of an agent: flags made from `Config`, and one sentence for whatever is wrong with them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mbrl_taskmet.command import Parser
from mbrl_taskmet.config import Config, ConfigError


@dataclass(frozen=True)
class Options:
    """What was asked for on the command line."""

    given: dict[str, Any]  # fields of `Config`, only those that were given
    env: str | None
    distractors: int | None
    name: str | None
    logdir: str | None
    resume: str | None
    checkpoint_share: float
    film: bool = False


def parse(environment: str | None, argv: list[str] | None) -> Options:
    """Read the command line of the agent for `environment`, or for the one that `--env` names if that is None.

    Raises:
        ConfigError: an unknown flag or a value of the wrong type.
    """
    parser = Parser(
        prog=f"python -m agents.{environment.split('-')[0].lower() if environment else 'gymnax'}",
        description=f"Train an agent on {environment or 'an environment'} with a learned model of it.",
        epilog="Defaults that depend on the method and the preset are written to the run's config.json.",
    )
    if environment is None:
        parser.add_argument("--env", metavar="NAME", help="registered gymnax environment, or module:Class of your own")
    parser.set_defaults(env=environment)
    parser.add_argument("--distractors", type=int, metavar="N", help="noise dimensions in every observation (default: 0)")
    parser.add_config(Config, unset="by method and preset")
    parser.add_directory(resume="continue the run in DIR; with --steps MORE, extend it")
    parser.add_argument("--film", action="store_true", help="draw an episode of the first seed's policy: film.gif")
    parser.add_argument("--checkpoint-share", type=float, default=0.03, metavar="X",
                        help="largest part of the run's time spent writing checkpoints, 0 to 1 (default: 0.03)")  # fmt: skip
    given, rest = parser.read(argv, Config)
    options = Options(given=given, **rest)
    if not 0 < options.checkpoint_share <= 1:
        raise ConfigError(f"--checkpoint-share is {options.checkpoint_share}; give a number above 0 and up to 1")
    if options.env is None and options.resume is None:
        raise ConfigError("--env is missing; give the name of a gymnax environment, such as Acrobot-v1, or module:Class")
    return options
