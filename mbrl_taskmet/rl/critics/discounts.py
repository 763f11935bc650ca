"""Critics of several discount factors, one beside the other, whose task losses are weighed.

One critic is not enough. With one Q_ω and one bootstrap V, errors at discount factors γ_k are a single error at their mean:

    Σ_k w_k (Q_ω − r − γ_k V)² = (Q_ω − r − γ̄ V)² + what ω does not change,      Σ_k w_k = 1,  γ̄ = Σ_k w_k γ_k

So each γ_k has an ω_k and an ω̄_k of its own, and L_task = Σ_k w_k L_task,k(ω_k*(θ)): the model is to serve all of them.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
from typing_extensions import override

from mbrl_taskmet.core.optimizers import Number
from mbrl_taskmet.core.settings_tree import with_numbers
from mbrl_taskmet.rl.critics.base import Bootstrap, Critic, PyTree
from mbrl_taskmet.rl.replay import Transitions


class DiscountsState(NamedTuple):
    """What is learned: the states of all critics."""

    each: tuple[Any, ...]

    @property
    def params(self) -> PyTree:
        """ω of all critics."""
        return tuple(state.params for state in self.each)

    @property
    def target_params(self) -> PyTree:
        """ω̄ of all critics."""
        return tuple(state.target_params for state in self.each)


class Discounts(Critic):
    """`critic`, which acts, and others like it at other discount factors, which the task loss takes as well.

    Args:
        critic: the one that acts.
        discounts: γ_k of the others.
        weights: w_k, of `critic` first.
    """

    def __init__(self, critic: Critic, discounts: Sequence[Number], weights: Sequence[Number]):
        self.critics = (critic, *(_at(critic, discount) for discount in discounts))
        self.weights = tuple(weights)
        self.action_space, self.settings = critic.action_space, critic.settings

    @override
    def init(self, key: jax.Array) -> DiscountsState:
        first, *keys = key, *(jax.random.fold_in(key, number) for number in range(1, len(self.critics)))
        return DiscountsState(tuple(critic.init(k) for critic, k in zip(self.critics, (first, *keys), strict=True)))

    @override
    def update(
        self, state: DiscountsState, bootstrap: Bootstrap, imagined: Transitions, real: Transitions, key: jax.Array
    ) -> DiscountsState:
        parts = zip(self.critics, state.each, bootstrap, strict=True)
        return DiscountsState(tuple(critic.update(one, own, imagined, real, key) for critic, one, own in parts))

    @override
    def act(
        self, state: DiscountsState, key: jax.Array, observation: jax.Array,
        explore: jax.Array | bool = False, random: jax.Array | bool = False,
    ) -> jax.Array:  # fmt: skip
        return self.critics[0].act(state.each[0], key, observation, explore, random)

    @override
    def bootstrap(self, state: DiscountsState, key: jax.Array) -> Bootstrap:
        return tuple(critic.bootstrap(one, key) for critic, one in zip(self.critics, state.each, strict=True))

    @override
    def follow(self, bootstrap: Bootstrap, observation: jax.Array, step: int) -> tuple[jax.Array, jax.Array]:
        return self.critics[0].follow(bootstrap[0], observation, step)

    @override
    def predict(self, params: PyTree, transitions: Transitions) -> Float[Array, "critics heads batch"]:
        return jnp.stack([critic.predict(one, transitions) for critic, one in zip(self.critics, params, strict=True)])

    @override
    def value(self, bootstrap: Bootstrap, observation: Float[Array, "*batch n"]) -> Float[Array, "*batch"]:
        return self.critics[0].value(bootstrap[0], observation)

    @override
    def head_values(
        self, params: PyTree, state: DiscountsState, observation: Float[Array, "*batch n"]
    ) -> Float[Array, "heads *batch"]:
        return self.critics[0].head_values(params[0], state.each[0], observation)

    @override
    def target(self, bootstrap: Bootstrap, transitions: Transitions) -> Float[Array, "critics batch"]:
        return jnp.stack([critic.target(own, transitions) for critic, own in zip(self.critics, bootstrap, strict=True)])

    @override
    def error(self, prediction: Float[Array, "critics heads batch"], target: Float[Array, "critics batch"]) -> Float[Array, ""]:
        return jnp.sum(self._errors(prediction, target))

    @override
    def task_loss(self, params: PyTree, bootstrap: Bootstrap, transitions: Transitions) -> Float[Array, ""]:
        errors = self._errors(self.predict(params, transitions), self.target(bootstrap, transitions))
        return jnp.sum(jnp.stack([weight * error for weight, error in zip(self.weights, errors, strict=True)]))

    def _errors(self, prediction: jax.Array, target: jax.Array) -> Float[Array, " critics"]:
        return jnp.stack([critic.error(*one) for critic, *one in zip(self.critics, prediction, target, strict=True)])


def _at(critic: Critic, discount: Number) -> Critic:
    """A critic like this one at another discount factor."""
    other = copy.copy(critic)
    other.settings = with_numbers(critic.settings, {"discount": discount})
    return other
