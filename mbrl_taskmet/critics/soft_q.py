"""Soft double Q-learning for discrete actions (paper eqs. 9–10; van Hasselt et al. 2016 for the two heads)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from mbrl_taskmet.networks import MLP, apply
from mbrl_taskmet.replay import Transitions
from mbrl_taskmet.values import bellman_error, bellman_target, soft_value

PyTree = Any


class SoftQ:
    """Two Q networks regressed to one target; the target takes the smaller target head per action, then the soft value.

    Methods that learn a model see a critic only through `init`, `predict`, `value`, `head_values`, `target`, `error` and
    `loss`.

    layer_norm: layer normalisation in the Q networks. A value is then bounded by the size of the last layer's weights wherever
    it is evaluated, which keeps bootstrapping from a model's predictions from diverging (Ball et al. 2023, section 4.2).
    """

    def __init__(
        self,
        observation_size: int,
        num_actions: int,
        hidden: Sequence[int] = (32, 32),
        temperature: float = 0.01,
        discount: float = 0.99,
        layer_norm: bool = False,
    ):
        self.num_actions, self.temperature, self.discount = num_actions, temperature, discount
        self.observation_size = observation_size
        self._network = MLP(tuple(hidden), num_actions, layer_norm=layer_norm)

    def init(self, key: jax.Array) -> PyTree:
        """Parameters ω of both heads, stacked on a leading axis of 2. `key` is consumed."""
        inputs = jnp.zeros(self.observation_size)
        # One after the other: jaxlib 0.10.2 deadlocks in large batched QR decompositions on several CPU devices at once.
        return jax.lax.map(lambda k: self._network.init(k, inputs), jax.random.split(key))

    def action_values(self, params: PyTree, observation: jax.Array) -> jax.Array:
        """Q_ω(s, ·) of both heads: (..., n) → (2, ..., actions)."""
        return jax.vmap(lambda head: apply(self._network, head, observation))(params)

    def predict(self, params: PyTree, transitions: Transitions) -> jax.Array:
        """Q_ω(s, a) of both heads, (2, batch)."""
        return jnp.sum(self.action_values(params, transitions.observation) * transitions.action, axis=-1)

    def value(self, target_params: PyTree, observation: jax.Array) -> jax.Array:
        """V_ω̄(s), the soft value of the smaller head per action: (..., n) → (...)."""
        return soft_value(jnp.min(self.action_values(target_params, observation), axis=0), self.temperature)

    def head_values(self, params: PyTree, observation: jax.Array) -> jax.Array:
        """The soft value of each head, (..., n) → (2, ...)."""
        return soft_value(self.action_values(params, observation), self.temperature)

    def target(self, target_params: PyTree, transitions: Transitions) -> jax.Array:
        """r + γ·V_ω̄(s'), (batch,); differentiable in the transitions' reward and next observation."""
        value = self.value(target_params, transitions.next_observation)
        return bellman_target(transitions.reward, transitions.terminated, value, self.discount)

    def error(self, prediction: jax.Array, target: jax.Array) -> jax.Array:
        """The Bellman error of predictions (2, batch) against targets (batch,), scalar."""
        return bellman_error(prediction, target)

    def loss(self, params: PyTree, target_params: PyTree, transitions: Transitions) -> jax.Array:
        """L_task(ω) on real transitions, L_Q(ω, θ) on the model's (paper eqs. 9–10)."""
        return self.error(self.predict(params, transitions), self.target(target_params, transitions))

    def act(self, params: PyTree, key: jax.Array, observation: jax.Array, epsilon: jax.Array | float = 0.0) -> jax.Array:
        """An action, int scalar, from softmax(Q(s, ·)/α) with Q the mean of the heads, or uniform with probability ε.

        `key` is consumed. One draw from the mixture of the two.
        """
        soft = jax.nn.softmax(jnp.mean(self.action_values(params, observation), axis=0) / self.temperature)
        return jax.random.categorical(key, jnp.log((1 - epsilon) * soft + epsilon / self.num_actions)).astype(jnp.int32)

    def encode(self, action: jax.Array) -> jax.Array:
        """The action as the vector (m,) that models and the replay see: one-hot."""
        return jax.nn.one_hot(action, self.num_actions)
