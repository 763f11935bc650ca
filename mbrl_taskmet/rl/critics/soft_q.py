"""Soft double Q-learning for discrete actions (paper eqs. 9–10; van Hasselt et al. 2016 for the two heads)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float
from typing_extensions import override

from mbrl_taskmet.core import optimizers
from mbrl_taskmet.core.networks import MLP, apply
from mbrl_taskmet.core.optimizers import Trained
from mbrl_taskmet.core.settings import setting
from mbrl_taskmet.rl.critics.base import Critic, CriticSettings
from mbrl_taskmet.rl.replay import Transitions
from mbrl_taskmet.rl.spaces import ActionSpace, Discrete
from mbrl_taskmet.rl.values import smaller_head, soft_value

PyTree = Any


@dataclass(frozen=True, kw_only=True)
class SoftQSettings(CriticSettings):
    """Soft double Q-learning; actions are drawn from softmax(Q/α), ε-greedily while training."""

    acts_in: ClassVar = Discrete

    temperature: float = setting(0.01, "temperature α of the soft value function, in units of reward", above=0)
    policy: Literal["critic", "target"] = setting(
        "target", "network that chooses actions: the critic, or its moving average, the target network"
    )
    epsilon: float = setting(0.1, "probability ε of a random action in training", low=0, high=1)

    @override
    def make(self, observation_size: int, action_space: ActionSpace) -> SoftQ:
        return SoftQ(observation_size, action_space, self)


class SoftQState(NamedTuple):
    """The learned state."""

    params: PyTree  # ω of both heads, stacked on a leading axis of 2
    opt_state: optax.OptState
    target_params: PyTree  # ω̄


class SoftQBootstrap(NamedTuple):
    """All that V(s') and a rollout's actions need beside s'."""

    target_params: PyTree  # ω̄
    key: jax.Array  # of the rollout's actions; V(s') has no noise


class SoftQ(Critic):
    """Two Q networks regressed to one target; the target takes the smaller target head per action, then the soft value.

    With `layer_norm` a value is bounded by the size of the last layer's
    weights wherever it is evaluated, which keeps bootstrapping from a model's predictions from diverging (Ball et al. 2023,
    section 4.2).
    """

    def __init__(self, observation_size: int, action_space: ActionSpace, settings: SoftQSettings, layers: int = 2):
        self.observation_size, self.action_space, self.settings = observation_size, action_space, settings
        self.optimizer = optimizers.critic_optimizer(settings.optimizer, settings.lr, settings.sparsity)
        self._network = MLP((settings.hidden,) * layers, action_space.size, settings.output_scale, settings.layer_norm)

    def init(self, key: jax.Array) -> SoftQState:
        """New heads. `key` is consumed."""
        inputs = jnp.zeros(self.observation_size)
        # One after the other: jaxlib 0.10.2 deadlocks in large batched QR decompositions on several CPU devices at once.
        params = jax.lax.map(lambda k: self._network.init(k, inputs), jax.random.split(key))
        return SoftQState(params, self.optimizer.init(params), jax.tree.map(jnp.copy, params))

    def update(
        self, state: SoftQState, bootstrap: SoftQBootstrap, imagined: Transitions, real: Transitions, key: jax.Array
    ) -> SoftQState:
        """One step on L_Q(ω, θ), the Bellman error on `imagined`, then one of the target's average."""
        gradient = jax.grad(self.loss)(state.params, bootstrap, imagined)
        params, opt_state = optimizers.step(self.optimizer, Trained(state.params, state.opt_state), gradient)
        target = optax.incremental_update(params, state.target_params, self.settings.tau)
        return SoftQState(params, opt_state, target)

    def act(
        self, state: SoftQState, key: jax.Array, observation: jax.Array,
        explore: jax.Array | bool = False, random: jax.Array | bool = False,
    ) -> jax.Array:  # fmt: skip
        """An action, int scalar, from softmax(Q(s, ·)/α) with Q the mean of the heads, or uniform with probability ε.

        `key` is consumed. One draw from the mixture of the two; ε is 0 unless `explore`, 1 if `random`.
        """
        params = state.target_params if self.settings.policy == "target" else state.params
        epsilon = jnp.where(random, 1.0, jnp.where(explore, self.settings.epsilon, 0.0))
        soft = jax.nn.softmax(jnp.mean(self.action_values(params, observation), axis=0) / self.settings.temperature)
        mixture = (1 - epsilon) * soft + epsilon / self.action_space.size
        return jax.random.categorical(key, jnp.log(mixture)).astype(jnp.int32)

    def bootstrap(self, state: SoftQState, key: jax.Array) -> SoftQBootstrap:
        """ω̄, and `key`, which is consumed."""
        return SoftQBootstrap(state.target_params, key)

    def follow(
        self, bootstrap: SoftQBootstrap, observation: Float[Array, "*batch n"], step: int
    ) -> tuple[Float[Array, "*batch m"], Float[Array, "*batch"]]:
        """a ~ softmax(min_k Q_ω̄k(s, ·)/α), one-hot, and −α log of its probability."""
        alpha = self.settings.temperature
        smaller = smaller_head(self.action_values(bootstrap.target_params, jax.lax.stop_gradient(observation)))
        log_policy = jax.nn.log_softmax(smaller / alpha)
        action = self.action_space.encode(jax.random.categorical(jax.random.fold_in(bootstrap.key, step), log_policy))
        return action, -alpha * jnp.sum(action * log_policy, axis=-1)

    def action_values(self, params: PyTree, observation: Float[Array, "*batch n"]) -> Float[Array, "heads *batch actions"]:
        """Q_ω(s, ·) of both heads: (..., n) → (2, ..., actions)."""
        return jax.vmap(lambda head: apply(self._network, head, observation))(params)

    def predict(self, params: PyTree, transitions: Transitions) -> Float[Array, "heads batch"]:
        """Q_ω(s, a) of both heads, (2, batch)."""
        return jnp.sum(self.action_values(params, transitions.observation) * transitions.action, axis=-1)

    def value(self, bootstrap: SoftQBootstrap, observation: Float[Array, "*batch n"]) -> Float[Array, "*batch"]:
        """V_ω̄(s), the soft value of the smaller head per action: (..., n) → (...)."""
        return soft_value(smaller_head(self.action_values(bootstrap.target_params, observation)), self.settings.temperature)

    def head_values(
        self, params: PyTree, state: SoftQState, observation: Float[Array, "*batch n"]
    ) -> Float[Array, "heads *batch"]:
        """The soft value of each head, (..., n) → (2, ...)."""
        return soft_value(self.action_values(params, observation), self.settings.temperature)
