"""From a name to an environment: one of ours, one that gymnax registers, or a class of your own by its dotted path."""

from __future__ import annotations

import importlib
from collections.abc import Callable

from envs.distractors import Distractors
from envs.gymnax import GymnaxEnvironment
from envs.probes import PROBES
from mbrl_taskmet.core.settings import check_fields, nearest
from mbrl_taskmet.rl.contract import brief
from mbrl_taskmet.rl.environment import Environment, EnvironmentSettings, UnsupportedEnvironment

ENVIRONMENTS: dict[str, Callable[[], Environment]] = {probe.__name__: probe for probe in PROBES}
"""Environments by name, beside those that gymnax registers."""

DISTURBANCES: dict[str, Callable[[Environment, int], Environment]] = {"noise": Distractors}
"""What puts a number of distracting dimensions beside those of an environment, by name."""


def make_environment(name: str, distractors: int = 0, disturbance: str = "noise") -> Environment:
    """The environment `name`, such as Acrobot-v1 or mypackage.module:Class, with so many distracting dimensions.

    Raises:
        ConfigError: an argument is of the wrong type.
        UnsupportedEnvironment: there is none of that name, or it is one the agents cannot run; the message says why.
    """
    check_fields(EnvironmentSettings(name=name, distractors=distractors, disturbance=disturbance))
    if disturbance not in DISTURBANCES:
        near = nearest(disturbance, DISTURBANCES)
        raise UnsupportedEnvironment(f"--disturbance {disturbance!r} is unknown; did you mean {near!r}? "
                                     f"There are {', '.join(DISTURBANCES)}")  # fmt: skip
    return DISTURBANCES[disturbance](_named(name), distractors)


def _named(name: str) -> Environment:
    if name in ENVIRONMENTS:
        return ENVIRONMENTS[name]()
    return _own(name) if ":" in name else GymnaxEnvironment(name)


def _own(path: str) -> Environment:
    module, _, name = path.partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except (Exception, SystemExit) as error:  # a module may do anything when it is imported
        raise UnsupportedEnvironment(f"{path} cannot be imported ({brief(error)}); give --env as module:Class") from None
    if not (isinstance(found, type) and issubclass(found, Environment)):
        raise UnsupportedEnvironment(f"{path} is no subclass of mbrl_taskmet.Environment; derive it from that")
    try:
        return found()
    except UnsupportedEnvironment:
        raise
    except Exception as error:  # code of the user's
        raise UnsupportedEnvironment(
            f"{path} cannot be made without arguments ({brief(error)}); give them defaults, and mend what fails"
        ) from None
