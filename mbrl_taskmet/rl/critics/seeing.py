"""A critic that sees observations through a diagonal metric: Q_ω(Λ^½ s, a), so that what it sees has the metric's length."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
from jaxtyping import Array, Float
from typing_extensions import override

from mbrl_taskmet.rl.critics.base import Bootstrap, Critic, PyTree
from mbrl_taskmet.rl.replay import Transitions


class SeenBootstrap(NamedTuple):
    """The critic's own bootstrap, and what it saw through: constant while losses are differentiated, as a bootstrap is."""

    own: Bootstrap
    root: jax.Array


class Seeing(Critic):
    """`critic`, whose networks see `root` · s for an observation s.

    Args:
        critic: whose states these are.
        root: the roots (n,) of the metric's weights. Predictions are differentiable in them, targets are not.
    """

    def __init__(self, critic: Critic, root: Float[Array, " n"]):
        self.critic, self.root = critic, root
        self.action_space, self.settings = critic.action_space, critic.settings

    @override
    def init(self, key: jax.Array) -> Any:
        return self.critic.init(key)

    @override
    def update(self, state: Any, bootstrap: SeenBootstrap, imagined: Transitions, real: Transitions, key: jax.Array) -> Any:
        return self.critic.update(state, bootstrap.own, self._seen(imagined), self._seen(real), key)

    @override
    def act(
        self, state: Any, key: jax.Array, observation: jax.Array,
        explore: jax.Array | bool = False, random: jax.Array | bool = False,
    ) -> jax.Array:  # fmt: skip
        return self.critic.act(state, key, self.root * observation, explore, random)

    @override
    def bootstrap(self, state: Any, key: jax.Array) -> SeenBootstrap:
        return SeenBootstrap(self.critic.bootstrap(state, key), self.root)

    @override
    def follow(self, bootstrap: SeenBootstrap, observation: jax.Array, step: int) -> tuple[jax.Array, jax.Array]:
        return self.critic.follow(bootstrap.own, bootstrap.root * observation, step)

    @override
    def predict(self, params: PyTree, transitions: Transitions) -> Float[Array, "heads batch"]:
        return self.critic.predict(params, self._seen(transitions))

    @override
    def value(self, bootstrap: SeenBootstrap, observation: Float[Array, "*batch n"]) -> Float[Array, "*batch"]:
        return self.critic.value(bootstrap.own, bootstrap.root * observation)

    @override
    def head_values(self, params: PyTree, state: Any, observation: Float[Array, "*batch n"]) -> Float[Array, "heads *batch"]:
        return self.critic.head_values(params, state, self.root * observation)

    def _seen(self, transitions: Transitions) -> Transitions:
        return transitions._replace(
            observation=self.root * transitions.observation, next_observation=self.root * transitions.next_observation
        )
