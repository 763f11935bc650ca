"""Tiny environments that each isolate one thing an agent must learn, for debugging and for tests.

A method that cannot solve these has a bug; the name of the first that fails says where to look. Returns are per episode.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from envs.base import Environment, State


class _Probe(Environment):
    """Observes one value, chooses between two actions, never truncates."""

    state_names = ("value",)
    num_actions = 2
    max_episode_steps = 1

    @property
    def name(self) -> str:  # type: ignore[override]
        return type(self).__name__


class DiscountedReward(_Probe):
    """Two steps, the reward 1 after the second: Q = γ at 0 and 1 at 1. Tests the
    reward model, the regression, and the bootstrap through the model's next state."""

    max_episode_steps = 2

    def reset(self, key: jax.Array) -> tuple[State, jax.Array]:
        return jnp.zeros(()), jnp.zeros(1)

    def transition(
        self, key: jax.Array, state: State, action: jax.Array
    ) -> tuple[State, jax.Array, jax.Array, jax.Array, jax.Array]:
        last = state == 1
        return state + 1, jnp.ones(1), jnp.where(last, 1.0, 0.0), last, jnp.array(False)


class MatchObservation(_Probe):
    """One step; observes −1 or 1 and earns 1 for the action of the same sign, else −1. Tests that the policy uses both."""

    def reset(self, key: jax.Array) -> tuple[State, jax.Array]:
        sign = jnp.where(jax.random.bernoulli(key), 1.0, -1.0)
        return sign, sign[None]

    def transition(
        self, key: jax.Array, state: State, action: jax.Array
    ) -> tuple[State, jax.Array, jax.Array, jax.Array, jax.Array]:
        reward = jnp.where((action == 1) == (state > 0), 1.0, -1.0)
        return state, state[None], reward, jnp.array(True), jnp.array(False)


class Walk(_Probe):
    """Steps of ±1 from 0 on a line; 2 ends it with reward 1, −2 with −1. Tests planning through the learned dynamics."""

    max_episode_steps = 20

    def reset(self, key: jax.Array) -> tuple[State, jax.Array]:
        return jnp.int32(0), jnp.zeros(1)

    def transition(
        self, key: jax.Array, state: State, action: jax.Array
    ) -> tuple[State, jax.Array, jax.Array, jax.Array, jax.Array]:
        state = state + 2 * action - 1
        done = jnp.abs(state) == 2
        return state, state[None].astype(float), jnp.where(done, jnp.sign(state) * 1.0, 0.0), done, jnp.array(False)


PROBES = (DiscountedReward, MatchObservation, Walk)
"""In the order in which to debug."""
