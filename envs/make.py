"""From a name to an environment: one that gymnax registers, or a class of your own by its dotted path."""

from __future__ import annotations

import importlib

from envs.distractors import Distractors
from envs.gymnax import GymnaxEnvironment
from mbrl_taskmet.rl.environment import Environment, UnsupportedEnvironment


def make_environment(name: str, distractors: int = 0) -> Environment:
    """The environment `name`, such as Acrobot-v1 or mypackage.module:Class, with `distractors` dimensions of noise.

    Raises:
        UnsupportedEnvironment: there is none of that name, or it is one the agents cannot run; the message says why.
    """
    return Distractors(_own(name) if ":" in name else GymnaxEnvironment(name), distractors)


def _own(path: str) -> Environment:
    module, _, name = path.partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UnsupportedEnvironment(f"{path} cannot be imported ({error}); give --env as module:Class") from None
    if not (isinstance(found, type) and issubclass(found, Environment)):
        raise UnsupportedEnvironment(f"{path} is no subclass of mbrl_taskmet.rl.environment.Environment; derive it from that")
    try:
        return found()
    except TypeError as error:
        raise UnsupportedEnvironment(f"{path} cannot be made without arguments ({error}); give them defaults") from None
