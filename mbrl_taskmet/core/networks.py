"""The networks, as the papers use them: ReLU MLPs with orthogonal weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax

PyTree = Any


class MLP(nn.Module):
    """(..., inputs) → (..., outputs): ReLU layers of `hidden` units, orthogonal √2 weights, the last layer 0.01 (Table 5).

    layer_norm: bring the units of each hidden layer to mean 0 and variance 1 before the ReLU (Ba et al. 2016).
    """

    hidden: Sequence[int]
    outputs: int
    last_scale: float = 0.01
    layer_norm: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """The outputs for inputs (..., inputs)."""
        for width in self.hidden:
            x = nn.Dense(width, kernel_init=nn.initializers.orthogonal(2.0**0.5), param_dtype=x.dtype)(x)
            x = nn.relu(nn.LayerNorm(param_dtype=x.dtype)(x) if self.layer_norm else x)
        last = nn.initializers.orthogonal(self.last_scale) if self.last_scale else nn.initializers.zeros_init()
        return nn.Dense(self.outputs, kernel_init=last, param_dtype=x.dtype)(x)


class UniformMLP(nn.Module):
    """(..., inputs) → (..., outputs): ReLU layers of `hidden` units, weights and biases U(±1/√inputs) of each layer.

    The start that the decision tasks were published with. Random biases matter where there is one input: without them every
    unit's kink is at 0.
    """

    hidden: Sequence[int]
    outputs: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """The outputs for inputs (..., inputs)."""
        rows = x.reshape(-1, x.shape[-1])  # one axis of them: with more, XLA transposes the hidden units of a gradient
        for width in self.hidden:
            rows = nn.relu(self._dense(width, rows))
        return self._dense(self.outputs, rows).reshape(*x.shape[:-1], self.outputs)

    def _dense(self, width: int, x: jax.Array) -> jax.Array:
        def start(key: jax.Array, shape: Any, dtype: Any) -> jax.Array:
            bound = x.shape[-1] ** -0.5
            return jax.random.uniform(key, shape, dtype, -bound, bound)

        return nn.Dense(width, kernel_init=start, bias_init=start, param_dtype=x.dtype)(x)


def apply(network: nn.Module, params: PyTree, inputs: jax.Array) -> jax.Array:
    """The network's one output."""
    outputs: Any = network.apply(params, inputs)
    return outputs
