"""A method of one's own: one update of model and critic, and a record of its settings."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from envs import make_environment
from mbrl_taskmet import METHODS, Config, Critic, Environment, Learner, Method, ModelBased, setting, train
from mbrl_taskmet.rl.replay import Transitions


class ByHand(Method):
    """Least squares with weights that are given instead of learned."""

    settings: "ByHandSettings"

    def update(self, learner: Learner, batch: Transitions, step: jax.Array, key: jax.Array) -> Learner:
        """A step of the model, then one of the critic."""
        weights = jnp.ones(batch.observation.shape[-1]).at[: self.settings.leading].set(self.settings.weight)

        def loss(dynamics: object) -> jax.Array:
            return jnp.mean(self.prediction_error(dynamics, batch) ** 2 @ weights)

        return self.fit_critic(self.fit_model(learner, batch, loss), batch, key)


@dataclass(frozen=True, kw_only=True)
class ByHandSettings(ModelBased):
    """Which weights."""

    leading: int = setting(4, "how many leading dimensions have a weight of their own", low=1)
    weight: float = setting(10.0, "their weight; the others weigh 1", above=0)

    def make(self, env: Environment, critic: Critic) -> ByHand:
        """The method for an environment and a critic."""
        return ByHand(self, self.model.make(env), critic)


METHODS["by_hand"] = ByHandSettings  # its name for `--method`

if __name__ == "__main__":
    env = make_environment("CartPole-v1", distractors=8)
    result = train(env, Config(method="by_hand", weight=100.0, steps=2000))
    print("model error on the real dimensions:", result.reports.model_mse_state[0])
