"""A loss of one's own for a decision task: what the predictor descends."""

from typing import Any

import jax
import jax.numpy as jnp

from decision_tasks import Cubic, Data, Objective, Task, train


class Pinball(Objective):
    """Prediction of the 60 % quantile, for too little costs more than too much."""

    name = "pinball"

    def loss(self, task: Task, prediction: jax.Array, batch: Data, prepared: Any) -> jax.Array:
        """The mean pinball loss of predictions (instances, items, targets), scalar."""
        error = batch.y - prediction
        return jnp.mean(jnp.maximum(0.6 * error, -0.4 * error))


if __name__ == "__main__":
    result = train(Cubic(), Pinball(), datasets=1, seeds=2, steps=1000)
    print("squared error on the test data:", result.test_mse)  # (data sets, seeds)
