"""From settings to a method: networks for an environment."""

from __future__ import annotations

from mbrl_taskmet.rl.environment import Environment
from mbrl_taskmet.rl.methods import Method
from mbrl_taskmet.rl.settings import Settings


def make_method(env: Environment, settings: Settings) -> Method:
    """The method that `settings` describe, for `env`."""
    critic = settings.critic.make(env.observation_size, env.action_space)
    return settings.method.make(env, critic)
