"""f_θ: what is learned of the environment, the next observation, the reward and, where need be, the end of an episode."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from mbrl_taskmet.core.networks import MLP, apply
from mbrl_taskmet.core.optimizers import Name, model_optimizer
from mbrl_taskmet.core.settings import setting
from mbrl_taskmet.rl.environment import Environment, Termination
from mbrl_taskmet.rl.normalization import Moments, denormalize
from mbrl_taskmet.rl.replay import Transitions

PyTree = Any


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """The networks of a model and their optimiser."""

    hidden: int = setting(32, "units in each of the model's two hidden layers", flag="model_hidden", low=1)
    optimizer: Name = setting(
        "adam", "optimiser; first_adam takes Adam's first step at every update, about lr·sign(gradient)", flag="model_optimizer"
    )
    lr: float = setting(1e-3, "learning rate of the model, per update", flag="model_lr", above=0)
    sparsity: float = setting(
        0.1, "strength λ of the group lasso that shrinks small weights of the dynamics network's first and last layers, in "
        "learning rates per update", flag="model_sparsity", low=0, before=0.0,
    )  # fmt: skip

    output_scale: float = setting(
        0.01,
        "scale of the orthogonal initialisation of the model's last layers",
        flag="model_output_scale",
        above=0,
        traced=False,
    )
    target: Literal["observation", "difference"] = setting(
        "observation",
        "what the model predicts: the next observation, or its difference from the current one",
        flag="model_target",
    )
    horizon: int = setting(1, "length H of imagined rollouts; the critic is trained on all H states", low=1)

    def make(self, env: Environment) -> Model:
        """The model of these settings, for the observations (n,), the actions and the terminations of an environment."""
        return Model(env.observation_size, env.action_space.size, self, env.known_termination())


class ModelParams(NamedTuple):
    """Parameters θ of `Model`, one pytree per network."""

    dynamics: PyTree
    reward: PyTree
    termination: PyTree = ()


class Model:
    """Separate networks for the next observation, for the reward and for termination.

    The last is there where rollouts need it: beyond one step, in an environment that does not know its own termination.
    Inputs are an observation (..., n) and an action as a vector (..., m), one-hot where actions are discrete.

    Attributes:
        observation_size: n.
        horizon: H, the length of rollouts.
        optimizer: what moves θ.
    """

    observation_size: int
    horizon: int = 1
    optimizer: optax.GradientTransformation
    _known: Termination | None = None
    _termination: MLP | None = None

    def __init__(
        self, observation_size: int, action_size: int, settings: ModelSettings, termination: Termination | None = None
    ):
        hidden = (settings.hidden,) * 2
        self.observation_size, self.horizon = observation_size, settings.horizon
        self._inputs, self._difference = observation_size + action_size, settings.target == "difference"
        self._dynamics = MLP(hidden, observation_size, settings.output_scale)
        self._reward = MLP(hidden, 1, settings.output_scale)
        self._known = termination
        self._termination = MLP(hidden, 1) if settings.horizon > 1 and termination is None else None
        self.optimizer = model_optimizer(settings.optimizer, settings.lr, settings.sparsity, len(hidden))

    def init(self, key: jax.Array) -> ModelParams:
        """Parameters from `key`, which is consumed."""
        dynamics_key, reward_key = jax.random.split(key)
        inputs = jnp.zeros(self._inputs)
        params = ModelParams(self._dynamics.init(dynamics_key, inputs), self._reward.init(reward_key, inputs))
        if self._termination is None:
            return params
        return params._replace(termination=self._termination.init(jax.random.fold_in(key, 1), inputs))

    def next_observation(
        self, params: PyTree, observation: Float[Array, "*batch n"], action: Float[Array, "*batch m"]
    ) -> Float[Array, "*batch n"]:
        """ŝ' of shape (..., n), from the parameters `ModelParams.dynamics`."""
        predicted = apply(self._dynamics, params, jnp.concatenate([observation, action], axis=-1))
        return observation + predicted if self._difference else predicted

    def reward(
        self, params: PyTree, observation: Float[Array, "*batch n"], action: Float[Array, "*batch m"]
    ) -> Float[Array, "*batch"]:
        """r̂ of shape (...), from the parameters `ModelParams.reward`."""
        return apply(self._reward, params, jnp.concatenate([observation, action], axis=-1))[..., 0]

    def ends(
        self, params: ModelParams, observation: Float[Array, "*batch n"], action: Float[Array, "*batch m"],
        following: Float[Array, "*batch n"], moments: Moments | tuple[()],
    ) -> Float[Array, "*batch"]:  # fmt: skip
        """The probability (...) that a step ends the episode by itself; constant while losses are differentiated.

        The environment's own function tells it where there is one, else the network. `moments` are those by which the
        observations are normalised, () where they are not.
        """
        if self._known is not None:
            before, after = (denormalize(moments, x) if moments else x for x in (observation, following))
            return self._known(before, action, after).astype(observation.dtype)
        return jax.lax.stop_gradient(jax.nn.sigmoid(self._logits(params.termination, observation, action)))

    def termination_loss(self, params: PyTree, batch: Transitions) -> Float[Array, ""]:
        """The mean negative log-likelihood of the terminations of a batch, scalar; 0 without a network for them.

        `params` are `ModelParams.termination`.
        """
        if self._termination is None:
            return jnp.zeros(())
        logits = self._logits(params, batch.observation, batch.action)
        return jnp.mean(optax.sigmoid_binary_cross_entropy(logits, batch.terminated))

    def _logits(self, params: PyTree, observation: jax.Array, action: jax.Array) -> jax.Array:
        assert self._termination is not None
        return apply(self._termination, params, jnp.concatenate([observation, action], axis=-1))[..., 0]
