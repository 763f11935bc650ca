"""The interface of critics to the methods, and the settings that all critics share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

import jax
from jaxtyping import Array, Float

from mbrl_taskmet.core.optimizers import Name
from mbrl_taskmet.core.settings import setting
from mbrl_taskmet.rl.replay import Transitions
from mbrl_taskmet.rl.spaces import ActionSpace, Box, Discrete
from mbrl_taskmet.rl.values import bellman_error, bellman_target

PyTree = Any
Bootstrap = Any
"""All that the value of a next observation needs beside it; constant while losses are differentiated."""


@dataclass(frozen=True, kw_only=True)
class CriticSettings:
    """The Q networks, their optimiser and the target network."""

    acts_in: ClassVar[type[Discrete] | type[Box]]
    """The action spaces that the critic is for."""

    hidden: int = setting(32, "units in each of the Q network's two hidden layers", flag="q_hidden", low=1)
    layer_norm: bool = setting(True, "layer normalisation in the Q network's hidden layers", flag="q_layer_norm", before=False)
    output_scale: float = setting(
        0.01, "scale of the orthogonal initialisation of the last layers of critic and actor", flag="q_output_scale",
        above=0, traced=False,
    )  # fmt: skip
    sparsity: float = setting(
        0.1, "strength λ of the group lasso that shrinks small weights of the Q network's first layer, in learning rates per "
        "update",
        flag="q_sparsity", low=0, before=0.0,
    )  # fmt: skip
    optimizer: Name = setting(
        "adam",
        "optimiser; first_adam takes Adam's first step at every update, about lr·sign(gradient)",
        flag="critic_optimizer",
    )
    lr: float = setting(3e-4, "learning rate of the critic, per update", flag="critic_lr", above=0)
    head_reduction: Literal["sum", "mean"] = setting("sum", "reduction of the Bellman error over the two Q heads")
    discount: float = setting(0.99, "discount γ, per environment step", low=0, high=1)
    tau: float = setting(0.01, "step τ of the target network's moving average, per update", low=0, high=1)

    def make(self, observation_size: int, action_space: ActionSpace) -> Critic:
        """The critic of these settings for observations (n,) and an action space."""
        raise NotImplementedError(f"{type(self).__name__} does not say which critic it makes")


@runtime_checkable
class CriticState(Protocol):
    """The learned state of a critic: at least ω and ω̄. A pytree."""

    @property
    def params(self) -> PyTree:
        """ω."""

    @property
    def target_params(self) -> PyTree:
        """ω̄, the moving average of ω."""


@runtime_checkable
class Critic(Protocol):
    """Values actions and chooses them. A critic owns ω, ω̄, their optimisers, τ, exploration and, if it has one, its actor.

    A method trains its model through `bootstrap`, `follow`, `predict`, `value`, `target` and `error` alone. The inner loss L_Q
    and the outer one L_task of an update share one bootstrap, so that their difference is the model's and not the noise's.

    Target, error and loss are the same for every critic that derives from this class.
    """

    action_space: ActionSpace
    settings: Any

    def init(self, key: jax.Array) -> Any:
        """A new state. `key` is consumed."""

    def update(self, state: Any, bootstrap: Bootstrap, imagined: Transitions, real: Transitions, key: jax.Array) -> Any:
        """One update: ω on the imagined transitions, then ω̄, then the actor on the real ones.

        `bootstrap` is that of `state`, which the transitions were imagined with. `key` is consumed.
        """

    def act(
        self, state: Any, key: jax.Array, observation: jax.Array,
        explore: jax.Array | bool = False, random: jax.Array | bool = False,
    ) -> jax.Array:  # fmt: skip
        """An action for one observation (n,): greedy, exploring or random. `key` is consumed."""

    def bootstrap(self, state: Any, key: jax.Array) -> Bootstrap:
        """The inputs of V(s') beside s': ω̄, an actor, and the noise of imagined actions. `key` is consumed."""

    def follow(
        self, bootstrap: Bootstrap, observation: Float[Array, "*batch n"], step: int
    ) -> tuple[Float[Array, "*batch m"], Float[Array, "*batch"]]:
        """Action vectors a ~ π(·|s) at step `step` of a rollout, and their entropy bonus −α log π(a|s), both constant.

        (..., n) → (..., m), (...). π is the policy of V: V(s) = E [Q_ω̄(s, a) − α log π(a|s)].
        """

    def predict(self, params: PyTree, transitions: Transitions) -> Float[Array, "heads batch"]:
        """Q_ω(s, a) of every head, (heads, batch); differentiable in ω."""

    def value(self, bootstrap: Bootstrap, observation: Float[Array, "*batch n"]) -> Float[Array, "*batch"]:
        """V(s): (..., n) → (...); differentiable in s."""

    def head_values(self, params: PyTree, state: Any, observation: Float[Array, "*batch n"]) -> Float[Array, "heads *batch"]:
        """The value of each head of `params`, the state's ω or ω̄: (..., n) → (heads, ...); no noise, differentiable in s."""

    def target(self, bootstrap: Bootstrap, transitions: Transitions) -> Float[Array, " batch"]:
        """r + γ·V(s'), (batch,); differentiable in the transitions' reward and next observation."""
        value = self.value(bootstrap, transitions.next_observation)
        return bellman_target(transitions.reward, transitions.terminated, value, self.settings.discount)

    def error(self, prediction: Float[Array, "heads batch"], target: Float[Array, " batch"]) -> Float[Array, ""]:
        """The Bellman error of predictions (heads, batch) against targets (batch,), scalar."""
        return bellman_error(prediction, target, self.settings.head_reduction)

    def loss(self, params: PyTree, bootstrap: Bootstrap, transitions: Transitions) -> Float[Array, ""]:
        """The Bellman error of ω, L_Q(ω, θ) on a model's transitions (paper eqs. 9–10), scalar."""
        return self.error(self.predict(params, transitions), self.target(bootstrap, transitions))

    def task_loss(self, params: PyTree, bootstrap: Bootstrap, transitions: Transitions) -> Float[Array, ""]:
        """L_task(ω), the same error on real transitions, scalar."""
        return self.loss(params, bootstrap, transitions)
