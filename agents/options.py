"""The command line of an agent: flags made from `Config`, and one sentence for whatever is wrong with them."""

from __future__ import annotations

import argparse
import dataclasses
from dataclasses import dataclass
from typing import Any, NoReturn

from mbrl_taskmet.config import Config, ConfigError, flag, nearest

_TYPES: dict[str, Any] = {"int": int, "float": float, "str": str, "tuple": lambda text: tuple(int(x) for x in text.split(","))}


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


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; see --help")


def parse(environment: str | None, argv: list[str] | None) -> Options:
    """Read the command line of the agent for `environment`, or for the one that `--env` names if that is None.

    Raises:
        ConfigError: an unknown flag or a value of the wrong type.
    """
    parser = _Parser(
        prog=f"python -m agents.{environment.split('-')[0].lower() if environment else 'gymnax'}",
        description=f"Train an agent on {environment or 'an environment'} with a learned model of it.",
        allow_abbrev=False,
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=36, width=110),
        epilog="Defaults that depend on the method and the preset are written to the run's config.json.",
    )
    if environment is None:
        parser.add_argument("--env", metavar="NAME", help="registered gymnax environment, or module:Class of your own")
    parser.set_defaults(env=environment)
    parser.add_argument("--distractors", type=int, metavar="N", help="noise dimensions in every observation (default: 0)")
    for field in dataclasses.fields(Config):
        _add(parser, field)
    parser.add_argument("--name", help="name of the run's directory (default: made from the settings)")
    parser.add_argument("--logdir", metavar="DIR", help="where run directories go (default: runs/logs)")
    parser.add_argument("--resume", metavar="DIR", help="continue the run in DIR; with --steps MORE, extend it")
    parser.add_argument("--film", action="store_true", help="draw an episode of the first seed's policy: film.gif")
    parser.add_argument("--checkpoint-share", type=float, default=0.03, metavar="X",
                        help="largest part of the run's time spent writing checkpoints, 0 to 1 (default: 0.03)")  # fmt: skip
    values, unknown = parser.parse_known_args(argv)
    if unknown:
        flags = [name for action in parser._actions for name in action.option_strings]
        raise ConfigError(f"{unknown[0]!r} is no option; did you mean {nearest(unknown[0].split('=')[0], flags)}?")
    if not 0 < values.checkpoint_share <= 1:
        raise ConfigError(f"--checkpoint-share is {values.checkpoint_share}; give a number above 0 and up to 1")
    if values.env is None and values.resume is None:
        raise ConfigError("--env is missing; give the name of a gymnax environment, such as Acrobot-v1, or module:Class")
    names = {field.name for field in dataclasses.fields(Config)}
    given = {name: value for name, value in vars(values).items() if name in names}
    rest = {name: value for name, value in vars(values).items() if name not in names}
    return Options(given=given, **rest)


def _add(parser: argparse.ArgumentParser, field: dataclasses.Field) -> None:
    kind = str(field.type).split(" ")[0].split("[")[0]
    choices = field.metadata.get("choices")
    default = "by method and preset" if field.default is None else field.default
    help = f"{field.metadata['help']}{': ' + ', '.join(choices) if choices else ''} (default: {default})"
    if kind == "bool":
        parser.add_argument(flag(field.name), action=argparse.BooleanOptionalAction, default=argparse.SUPPRESS, help=help)
    else:
        metavar = {"int": "N", "float": "X", "tuple": "N,N"}.get(kind, "NAME")
        parser.add_argument(
            flag(field.name), type=_TYPES[kind], default=argparse.SUPPRESS, metavar=metavar, help=help.replace("%", "%%")
        )
