"""f_θ: what is learned of the environment, the next observation and the reward."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from mbrl_taskmet.core.networks import MLP, apply
from mbrl_taskmet.core.optimizers import Name, model_optimizer
from mbrl_taskmet.core.settings import setting

PyTree = Any


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """The networks of a model and what moves them."""

    hidden: int = setting(32, "units in each of the model's two hidden layers", flag="model_hidden", low=1)
    optimizer: Name = setting(
        "adam", "adam, or every step as Adam's first one, about lr·sign(gradient)", flag="model_optimizer"
    )
    lr: float = setting(1e-3, "model's learning rate, per update", flag="model_lr", above=0)
    sparsity: float = setting(
        0.1, "how fast what joins the dynamics network to an input or output goes to 0, where it is small, in learning rates "
        "per update", flag="model_sparsity", low=0, before=0.0,
    )  # fmt: skip

    def make(self, observation_size: int, action_size: int) -> Model:
        """The model of these settings, for observations (n,) and action vectors (m,)."""
        return Model(observation_size, action_size, self)


class ModelParams(NamedTuple):
    """Parameters θ of `Model`, one pytree per network."""

    dynamics: PyTree
    reward: PyTree


class Model:
    """Separate networks for the next observation, predicted directly, and for the reward.

    Inputs are an observation (..., n) and an action as a vector (..., m), one-hot where actions are discrete.

    Attributes:
        observation_size: n.
        optimizer: what moves θ.
    """

    observation_size: int
    optimizer: optax.GradientTransformation

    def __init__(self, observation_size: int, action_size: int, settings: ModelSettings):
        hidden = (settings.hidden,) * 2
        self.observation_size, self._inputs = observation_size, observation_size + action_size
        self._dynamics = MLP(hidden, observation_size)
        self._reward = MLP(hidden, 1)
        self.optimizer = model_optimizer(settings.optimizer, settings.lr, settings.sparsity, len(hidden))

    def init(self, key: jax.Array) -> ModelParams:
        """Parameters from `key`, which is consumed."""
        dynamics_key, reward_key = jax.random.split(key)
        inputs = jnp.zeros(self._inputs)
        return ModelParams(self._dynamics.init(dynamics_key, inputs), self._reward.init(reward_key, inputs))

    def next_observation(
        self, params: PyTree, observation: Float[Array, "*batch n"], action: Float[Array, "*batch m"]
    ) -> Float[Array, "*batch n"]:
        """ŝ' of shape (..., n), from the parameters `ModelParams.dynamics`."""
        return apply(self._dynamics, params, jnp.concatenate([observation, action], axis=-1))

    def reward(
        self, params: PyTree, observation: Float[Array, "*batch n"], action: Float[Array, "*batch m"]
    ) -> Float[Array, "*batch"]:
        """r̂ of shape (...), from the parameters `ModelParams.reward`."""
        return apply(self._reward, params, jnp.concatenate([observation, action], axis=-1))[..., 0]
