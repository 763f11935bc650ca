"""A decision task of one's own: data, the value of a decision, and the best decision for a prediction."""

from typing import Any

import jax
import jax.numpy as jnp

from decision_tasks import Data, Split, Task, split, train


class Stock(Task):
    """Buy stock z of three goods at 1 each and sell it at 2 while demand y lasts, with room for 3 in all."""

    name = "stock"
    hidden = (32,)  # layers of the predictor

    def data(self, key: jax.Array) -> Split:
        """300 instances of three goods, with two features and a demand each."""
        x = jax.random.uniform(key, (300, 3, 2))
        return split(Data(x, 1 + jnp.sin(4 * x[..., :1]) * x[..., 1:]), train=100, validation=50)

    def value(self, z: jax.Array, y: jax.Array, given: Any = ()) -> jax.Array:
        """The profit of a decision z (3,) under demand y (3, 1)."""
        return jnp.sum(2 * jnp.minimum(z, y[:, 0]) - z)

    def decide(self, y: jax.Array, given: Any = ()) -> jax.Array:
        """The best stock for a predicted demand."""
        demand = jnp.maximum(y[:, 0], 0.0)
        return demand / jnp.maximum(jnp.sum(demand) / 3, 1.0)

    relax = decide  # it has derivatives already


if __name__ == "__main__":
    result = train(Stock(), "taskmet", datasets=1, seeds=2, steps=1000)
    print("decision quality, 1 is the best:", result.normalized_dq)  # (data sets, seeds)
