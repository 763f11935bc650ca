"""An environment of one's own: what an episode starts from, and what a step does."""

import jax
import jax.numpy as jnp

from envs import make_environment
from envs.make import ENVIRONMENTS
from mbrl_taskmet import Config, Discrete, Environment, train


class Corridor(Environment):
    """Walk right to the goal at 1. Every step costs 0.1; the left end, at −1, ends the episode as well."""

    name = "corridor"
    state_names = ("position",)
    action_space = Discrete(2)
    max_episode_steps = 50

    def reset(self, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        """(state, observation) at the start of an episode."""
        position = jnp.zeros(())
        return position, position[None]

    def transition(
        self, key: jax.Array, state: jax.Array, action: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array, jax.Array]:
        """(state, observation, reward, terminated, truncated) after a step."""
        position = state + 0.2 * (2 * action - 1)
        goal, far = position >= 1, position <= -1
        return position, position[None], jnp.where(goal, 1.0, -0.1), goal | far, jnp.array(False)


ENVIRONMENTS["corridor"] = Corridor  # its name for `make_environment`

if __name__ == "__main__":
    env = make_environment("corridor", distractors=2)
    result = train(env, Config(method="mle", steps=2000))
    print("return at each evaluation:", result.returns[0])
