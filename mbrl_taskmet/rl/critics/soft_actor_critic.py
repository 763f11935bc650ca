"""Soft actor-critic for continuous actions (Haarnoja et al. 2018, *Soft Actor-Critic Algorithms and Applications*).

    V(s) = min_k Q_ω̄k(s, a') − α ℓ',    a', ℓ' = log π(a'|s) drawn from π_ψ(·|s)
    ω ← Adam on E Σ_k (Q_ωk(s, a) − r̂ − γ·V(ŝ'))²                  on imagined transitions; then ω̄, the moving average of ω
    ψ ← Adam on E [α ℓ − min_k Q_ωk(s, a)],    a, ℓ from π_ψ(·|s)      at the new ω, on real observations
    log α ← Adam on α·(H − H̄),    H = −E ℓ                             of the actions of the line before

As OMD trains its model (Nikishin et al. 2022, HalfCheetah): what is differentiated in an imagined ŝ' is Q alone, neither a'
nor ℓ' (their public code stops both). Published there: H̄ = −m/2 (`target_entropy` −½), and one random key for two uses, which
is not so here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

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
from mbrl_taskmet.rl.spaces import ActionSpace, Box
from mbrl_taskmet.rl.values import smaller_head

PyTree = Any

LOG_STD = (-10.0, 2.0)
"""Bounds of the logarithm of the actor's standard deviation before the tanh."""


@dataclass(frozen=True, kw_only=True)
class SoftActorCriticSettings(CriticSettings):
    """Soft actor-critic; actions are drawn from the actor while training, and are by default its mean in evaluations."""

    acts_in: ClassVar = Box

    hidden: int = setting(64, "units in each of the Q network's two hidden layers", flag="q_hidden", low=1)
    lr: float = setting(1e-3, "learning rate of the critic, per update", flag="critic_lr", above=0)
    actor_hidden: int = setting(64, "units in each of the actor's two hidden layers", low=1)
    actor_lr: float = setting(1e-3, "Adam learning rate of the actor, per update", above=0)
    temperature: float = setting(1.0, "initial temperature α of the entropy bonus, in units of reward", above=0)
    temperature_lr: float = setting(
        1e-3, "Adam learning rate of log α, per update; 0: α is constant. A learned α adapts to the rewards' scale", low=0,
    )  # fmt: skip
    target_entropy: float = setting(-1.0, "target entropy of the policy, per dimension of an action that is scaled to [-1, 1]")
    deterministic_evaluation: bool = setting(True, "evaluate the policy's mean action, not a sampled one")

    @override
    def make(self, observation_size: int, action_space: ActionSpace) -> SoftActorCritic:
        return SoftActorCritic(observation_size, action_space, self)


class SoftActorCriticState(NamedTuple):
    """The learned state."""

    params: PyTree  # ω of both heads, stacked on a leading axis of 2
    opt_state: optax.OptState
    target_params: PyTree  # ω̄
    actor: Trained  # ψ
    log_temperature: Trained  # log α, scalar


class SoftBootstrap(NamedTuple):
    """All that V(s') needs beside s'."""

    target_params: PyTree  # ω̄
    actor: PyTree  # ψ
    log_temperature: jax.Array  # ()
    key: jax.Array  # of the noise in imagined actions: the same noise for every batch of the same shape


class SoftActorCritic(Critic):
    """Two Q networks of (s, a), regressed to one target, and an actor that is a diagonal normal through tanh.

    Actions are vectors in [−1, 1] inside, as models and the replay know them; `act` gives the environment's.
    """

    def __init__(self, observation_size: int, action_space: ActionSpace, settings: SoftActorCriticSettings, layers: int = 2):
        self.observation_size, self.action_space, self.settings = observation_size, action_space, settings
        self.optimizer = optimizers.critic_optimizer(settings.optimizer, settings.lr, settings.sparsity)
        self.actor_optimizer = optax.adam(settings.actor_lr)
        self.temperature_optimizer = optax.adam(settings.temperature_lr)
        self.target_entropy = settings.target_entropy * action_space.size
        self._network = MLP((settings.hidden,) * layers, 1, settings.output_scale, settings.layer_norm)
        self._actor = MLP((settings.actor_hidden,) * layers, 2 * action_space.size, settings.output_scale)

    def init(self, key: jax.Array) -> SoftActorCriticState:
        """New heads and a new actor, whose actions are about tanh of N(0, 1). `key` is consumed."""
        critic_key, actor_key = jax.random.split(key)
        observation, action = jnp.zeros(self.observation_size), jnp.zeros(self.action_space.size)
        inputs = jnp.concatenate([observation, action])
        # one after the other: see `SoftQ.init`
        params = jax.lax.map(lambda k: self._network.init(k, inputs), jax.random.split(critic_key))
        actor = self._actor.init(actor_key, observation)
        log_temperature = jnp.log(jnp.full((), self.settings.temperature, float))
        return SoftActorCriticState(
            params=params,
            opt_state=self.optimizer.init(params),
            target_params=jax.tree.map(jnp.copy, params),
            actor=Trained(actor, self.actor_optimizer.init(actor)),
            log_temperature=Trained(log_temperature, self.temperature_optimizer.init(log_temperature)),
        )

    def update(
        self, state: SoftActorCriticState, bootstrap: SoftBootstrap, imagined: Transitions, real: Transitions, key: jax.Array
    ) -> SoftActorCriticState:
        """One step of the critic on `imagined`, of the target's average, of the actor and of the temperature on `real`."""
        gradient = jax.grad(self.loss)(state.params, bootstrap, imagined)
        params, opt_state = optimizers.step(self.optimizer, Trained(state.params, state.opt_state), gradient)
        target = optax.incremental_update(params, state.target_params, self.settings.tau)

        log_temperature = state.log_temperature.params
        slope = jax.grad(self.actor_loss, has_aux=True)
        gradient, entropy = slope(state.actor.params, params, log_temperature, real.observation, key)
        actor = optimizers.step(self.actor_optimizer, state.actor, gradient)
        gradient = jax.grad(lambda x: jnp.exp(x) * (entropy - self.target_entropy))(log_temperature)
        temperature = optimizers.step(self.temperature_optimizer, state.log_temperature, gradient)
        return SoftActorCriticState(params, opt_state, target, actor, temperature)

    def act(
        self, state: SoftActorCriticState, key: jax.Array, observation: jax.Array,
        explore: jax.Array | bool = False, random: jax.Array | bool = False,
    ) -> jax.Array:  # fmt: skip
        """An action (m,) of the environment for one observation (n,). `key` is consumed.

        tanh of the actor's mean, by default; drawn from the actor if `explore`, uniform if `random`.
        """
        explore_key, random_key = jax.random.split(key)
        drawn, _ = self.sample(state.actor.params, observation, explore_key)
        noisy = explore if self.settings.deterministic_evaluation else True
        chosen = jnp.where(noisy, drawn, self.mean_action(state.actor.params, observation))
        return jnp.where(random, self.action_space.sample(random_key), self.action_space.decode(chosen))

    def sample(
        self, actor: PyTree, observation: Float[Array, "*batch n"], key: jax.Array
    ) -> tuple[Float[Array, "*batch m"], Float[Array, "*batch"]]:
        """a ~ π(·|s) and ℓ = log π(a|s): (..., n) → (..., m), (...); differentiable in ψ and s. `key` is consumed."""
        import distrax  # here, because importing it takes as long as JAX and no `--help` needs it

        mean, log_std = self._normal(actor, observation)
        normal = distrax.Independent(distrax.Normal(mean, jnp.exp(log_std)), 1)
        # Together, for the density of an action that tanh has rounded to 1 cannot be found again.
        return distrax.Transformed(normal, distrax.Block(distrax.Tanh(), 1)).sample_and_log_prob(seed=key)

    def mean_action(self, actor: PyTree, observation: Float[Array, "*batch n"]) -> Float[Array, "*batch m"]:
        """The actor's action without noise, tanh of its mean: (..., n) → (..., m)."""
        return jnp.tanh(self._normal(actor, observation)[0])

    def actor_loss(
        self, actor: PyTree, params: PyTree, log_temperature: Float[Array, ""], observation: Float[Array, "batch n"],
        key: jax.Array,
    ) -> tuple[Float[Array, ""], Float[Array, ""]]:  # fmt: skip
        """(E [α ℓ − min_k Q_ωk(s, a)], E −ℓ), scalars, over observations (batch, n). `key` is consumed."""
        action, log_prob = self.sample(actor, observation, key)
        smaller = smaller_head(self.action_values(params, observation, action))
        return jnp.mean(jnp.exp(log_temperature) * log_prob - smaller), -jnp.mean(log_prob)

    def bootstrap(self, state: SoftActorCriticState, key: jax.Array) -> SoftBootstrap:
        """ω̄, ψ, log α and the noise of a'. `key` is consumed."""
        return SoftBootstrap(state.target_params, state.actor.params, state.log_temperature.params, key)

    def follow(
        self, bootstrap: SoftBootstrap, observation: Float[Array, "*batch n"], step: int
    ) -> tuple[Float[Array, "*batch m"], Float[Array, "*batch"]]:
        """a ~ π(·|s) of the actor, and −α log π(a|s)."""
        drawn = self.sample(bootstrap.actor, observation, jax.random.fold_in(bootstrap.key, step))
        action, log_prob = jax.lax.stop_gradient(drawn)
        return action, -jnp.exp(bootstrap.log_temperature) * log_prob

    def action_values(
        self, params: PyTree, observation: Float[Array, "*batch n"], action: Float[Array, "*batch m"]
    ) -> Float[Array, "heads *batch"]:
        """Q_ω(s, a) of both heads: (..., n), (..., m) → (2, ...)."""
        inputs = jnp.concatenate([observation, action], axis=-1)
        return jax.vmap(lambda head: apply(self._network, head, inputs)[..., 0])(params)

    def predict(self, params: PyTree, transitions: Transitions) -> Float[Array, "heads batch"]:
        """Q_ω(s, a) of both heads, (2, batch)."""
        return self.action_values(params, transitions.observation, transitions.action)

    def value(self, bootstrap: SoftBootstrap, observation: Float[Array, "*batch n"]) -> Float[Array, "*batch"]:
        """V(s) of one drawn action: (..., n) → (...); differentiable in s through Q alone."""
        action, log_prob = self.sample(bootstrap.actor, jax.lax.stop_gradient(observation), bootstrap.key)
        smaller = smaller_head(self.action_values(bootstrap.target_params, observation, action))
        return smaller - jnp.exp(bootstrap.log_temperature) * log_prob

    def head_values(
        self, params: PyTree, state: SoftActorCriticState, observation: Float[Array, "*batch n"]
    ) -> Float[Array, "heads *batch"]:
        """Q_ω(s, a) of each head at the actor's mean action, which is held: (..., n) → (2, ...).

        Without noise and entropy, as VaGraM takes values of continuous actions (Voelcker et al. 2022).
        """
        action = self.mean_action(state.actor.params, jax.lax.stop_gradient(observation))
        return self.action_values(params, observation, action)

    def _normal(
        self, actor: PyTree, observation: Float[Array, "*batch n"]
    ) -> tuple[Float[Array, "*batch m"], Float[Array, "*batch m"]]:
        """Mean and logarithm of the standard deviation before the tanh, the two halves of the last layer: 2 × (..., m)."""
        mean, log_std = jnp.split(apply(self._actor, actor, observation), 2, axis=-1)
        return mean, jnp.clip(log_std, *LOG_STD)
