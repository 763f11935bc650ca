"""A critic of one's own: soft Q-learning whose target averages the two heads, where the papers take the smaller."""

from dataclasses import dataclass
from typing import Any

import jax

from envs import make_environment
from mbrl_taskmet import CRITICS, Config, SoftQ, SoftQSettings, train
from mbrl_taskmet.rl.spaces import ActionSpace
from mbrl_taskmet.rl.values import soft_value


class MeanQ(SoftQ):
    """V(s) of the mean of the heads."""

    def value(self, bootstrap: Any, observation: jax.Array) -> jax.Array:
        """V(s), (...), of observations (..., n)."""
        heads = self.action_values(bootstrap.target_params, observation)
        return soft_value(heads.mean(axis=0), self.settings.temperature)


@dataclass(frozen=True, kw_only=True)
class MeanQSettings(SoftQSettings):
    """Those of soft Q-learning."""

    def make(self, observation_size: int, action_space: ActionSpace) -> MeanQ:
        """The critic for observations (n,) and actions of a space."""
        return MeanQ(observation_size, action_space, self)


CRITICS["mean_q"] = MeanQSettings  # its name for `--critic`

if __name__ == "__main__":
    env = make_environment("CartPole-v1")
    result = train(env, Config(critic="mean_q", method="mle", steps=2000))
    print("return at each evaluation:", result.returns[0])
