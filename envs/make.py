"""From settings to an environment: one of ours, one of a suite, or a class of your own by its dotted path."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from envs.brax import BraxEnvironment
from envs.companions import Companions
from envs.distractors import Distractors
from envs.gymnax import GymnaxEnvironment
from envs.nonlinear import Nonlinear
from envs.oscillators import Oscillators
from envs.playground import PlaygroundEnvironment
from envs.probes import PROBES
from envs.projected import projected
from mbrl_taskmet.core.settings import ConfigError, nearest, shown
from mbrl_taskmet.core.settings_tree import resolve
from mbrl_taskmet.rl.contract import brief
from mbrl_taskmet.rl.environment import Environment, EnvironmentSettings, UnsupportedEnvironment
from mbrl_taskmet.rl.suites import BraxSuite, GymnaxSuite, PlaygroundSuite, Suite

ENVIRONMENTS: dict[str, Callable[[], Environment]] = {probe.__name__: probe for probe in PROBES}
"""Environments by name, beside those that gymnax registers."""

DISTURBANCES: dict[str, Callable[[Environment, int], Environment]] = {
    "noise": Distractors, "oscillators": Oscillators, "nonlinear": Nonlinear, "companions": Companions,
    "projected": projected,
}  # fmt: skip
"""What puts a number of distracting dimensions beside those of an environment, by name."""


def make_environment(name: str, distractors: int = 0, **given: Any) -> Environment:
    """The environment of settings by name: `make_environment("hopper", distractors=8, suite="brax")`.

    Args:
        name: such as Acrobot-v1, or mypackage.module:Class.
        distractors: the number of distracting dimensions.
        **given: further settings of an environment, by the names of the flags.

    Raises:
        ConfigError: a setting will not do, there is no such environment, or it is one the agents cannot run.
    """
    if not isinstance(name, str):
        raise ConfigError(f"--env is {shown(name)}; give a text, such as 'Acrobot-v1'")
    return environment_of(resolve(EnvironmentSettings, {"env": name, "distractors": distractors, **given}))


def environment_of(settings: EnvironmentSettings) -> Environment:
    """The environment that settings describe.

    Raises:
        UnsupportedEnvironment: there is none of that name, or it is one the agents cannot run; the message says why.
    """
    disturbance = settings.disturbance
    if disturbance not in DISTURBANCES:
        near = nearest(disturbance, DISTURBANCES)
        raise UnsupportedEnvironment(f"--disturbance {disturbance!r} is unknown; did you mean {near!r}? "
                                     f"There are {', '.join(DISTURBANCES)}")  # fmt: skip
    env = ADAPTERS[type(settings.suite)](settings.name, settings.suite)
    env = DISTURBANCES[disturbance](env, settings.distractors)
    env.made_of = settings
    return env


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
            f"{path} cannot be made without arguments ({brief(error)}); give them defaults, and fix what fails"
        ) from None


ADAPTERS: dict[type[Suite], Callable[[str, Any], Environment]] = {
    GymnaxSuite: lambda name, suite: _named(name),
    BraxSuite: lambda name, suite: BraxEnvironment(name, suite.backend),
    PlaygroundSuite: lambda name, suite: PlaygroundEnvironment(name),
}
"""How an environment is made, by the record of its suite."""
