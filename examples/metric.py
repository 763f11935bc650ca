"""A metric of one's own: which numbers it is made of, and what matrix they make."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from envs import make_environment
from mbrl_taskmet import METRICS, Config, Metric, setting, train


@dataclass(frozen=True, kw_only=True)
class Softmax(Metric):
    """Diagonal weights that share a budget of n."""

    sharpness: float = setting(1.0, "how fast weights move", flag="metric_sharpness", above=0)

    def start(self, size: int) -> jax.Array:
        """The numbers φ at which the metric is the identity."""
        return jnp.zeros(size)

    def semidefinite(self, raw: jax.Array, size: int) -> jax.Array:
        """The diagonal (n,) that they make; a matrix (n, n) would do as well."""
        return size * jax.nn.softmax(self.sharpness * raw)


METRICS["softmax"] = Softmax  # its name for `--metric`

if __name__ == "__main__":
    env = make_environment("CartPole-v1", distractors=2)
    result = train(env, Config(metric="softmax", metric_sharpness=2.0, metric_warmup=1000, steps=2000))
    weights = result.reports.metric_diagonal  # (seeds, evaluations, dimensions)
    print("weights at the end:", weights if weights is None else weights[0, -1])
