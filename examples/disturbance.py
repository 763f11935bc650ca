"""A disturbance of one's own: dimensions that are appended to every observation."""

from typing import Any

import jax
import jax.numpy as jnp

from envs import make_environment
from envs.appended import Appended
from envs.make import DISTURBANCES
from mbrl_taskmet import Config, Environment, train


class Clocks(Appended):
    """Hands of clocks, which can be predicted and do not matter."""

    def __init__(self, env: Environment, count: int):
        super().__init__(env, count, "clocks")

    def start(self, key: jax.Array) -> jax.Array:
        """The time at the start."""
        return jnp.zeros(())

    def move(self, key: jax.Array, process: Any) -> jax.Array:
        """The time one step later."""
        return process + 1

    def seen(self, process: Any) -> jax.Array:
        """What is observed of the time, (count,)."""
        return jnp.sin(0.1 * process * jnp.arange(1, self.count + 1))


DISTURBANCES["clocks"] = Clocks  # its name for `--disturbance` and `make_environment`

if __name__ == "__main__":
    env = make_environment("CartPole-v1", distractors=2, disturbance="clocks")
    result = train(env, Config(method="mle", steps=2000))
    print("return at each evaluation:", result.returns[0])
