"""Tiny environments that each isolate one thing an agent must learn, for debugging and for tests.

A method that cannot solve these has a bug; the name of the first that fails says where to look. Returns are per episode. Each
exists for two actions and, as `…Box`, for one continuous action.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from typing_extensions import override

from mbrl_taskmet.rl.environment import Environment, State
from mbrl_taskmet.rl.spaces import ActionSpace, Box, Discrete


class _Probe(Environment):
    """Observes one value, chooses between two actions, never truncates."""

    state_names = ("value",)
    action_space: ActionSpace = Discrete(2)
    max_episode_steps = 1

    @property
    def name(self) -> str:  # type: ignore[override]
        return type(self).__name__

    def direction(self, action: jax.Array) -> jax.Array:
        """What an action means, scalar: −1 or 1."""
        return 2.0 * action - 1


class DiscountedReward(_Probe):
    """Two steps, the reward 1 after the second: Q = γ at 0 and 1 at 1.

    Tests the reward model, the regression, and the bootstrap through the model's next state.
    """

    max_episode_steps = 2

    @override
    def reset(self, key: jax.Array) -> tuple[State, jax.Array]:
        return jnp.zeros(()), jnp.zeros(1)

    @override
    def transition(
        self, key: jax.Array, state: State, action: jax.Array
    ) -> tuple[State, jax.Array, jax.Array, jax.Array, jax.Array]:
        last = state == 1
        return state + 1, jnp.ones(1), jnp.where(last, 1.0, 0.0), last, jnp.array(False)


class MatchObservation(_Probe):
    """One step; observes −1 or 1 and earns 1 for the action of the same sign, else −1. Tests that the policy uses both."""

    @override
    def reset(self, key: jax.Array) -> tuple[State, jax.Array]:
        sign = jnp.where(jax.random.bernoulli(key), 1.0, -1.0)
        return sign, sign[None]

    @override
    def transition(
        self, key: jax.Array, state: State, action: jax.Array
    ) -> tuple[State, jax.Array, jax.Array, jax.Array, jax.Array]:
        return state, state[None], self.direction(action) * state, jnp.array(True), jnp.array(False)


class Walk(_Probe):
    """Steps of ±1 from 0 on a line; 2 ends it with reward 1, −2 with −1. Tests planning through the learned dynamics."""

    max_episode_steps = 20

    @override
    def reset(self, key: jax.Array) -> tuple[State, jax.Array]:
        return jnp.zeros(()), jnp.zeros(1)

    @override
    def transition(
        self, key: jax.Array, state: State, action: jax.Array
    ) -> tuple[State, jax.Array, jax.Array, jax.Array, jax.Array]:
        state = state + self.direction(action)
        done = jnp.abs(state) >= 2
        return state, state[None], jnp.where(done, jnp.sign(state), 0.0), done, jnp.array(False)


class _BoxProbe(_Probe):
    """The same with one action from −2 to 2, which means half of itself."""

    action_space = Box((-2.0,), (2.0,))

    @override
    def direction(self, action: jax.Array) -> jax.Array:
        """What an action (1,) means, scalar from −1 to 1."""
        return self.action_space.encode(action)[0]


class DiscountedRewardBox(_BoxProbe, DiscountedReward):
    """`DiscountedReward`, whatever the continuous action. Tests the same, and that no action's density enters the values."""


class MatchObservationBox(_BoxProbe, MatchObservation):
    """One step; observes −1 or 1 and earns that times half the continuous action. Tests that the actor follows the critic."""


class WalkBox(_BoxProbe, Walk):
    """Steps from −1 to 1 along a line from 0; from 2 on it ends with reward 1, from −2 on with −1. Tests planning."""


PROBES = (DiscountedReward, MatchObservation, Walk)
"""In the order in which to debug."""

BOX_PROBES = (DiscountedRewardBox, MatchObservationBox, WalkBox)
"""The same, for continuous actions."""
