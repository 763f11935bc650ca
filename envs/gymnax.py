"""Environments of gymnax 1.0, by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from typing_extensions import override

from mbrl_taskmet.core.settings import nearest
from mbrl_taskmet.rl.environment import Environment, State, Step, UnsupportedEnvironment
from mbrl_taskmet.rl.spaces import ActionSpace, Box, Discrete

_STATE_NAMES = {
    "CartPole-v1": ("cart_position", "cart_velocity", "pole_angle", "pole_velocity"),
    "Acrobot-v1": ("cos_angle1", "sin_angle1", "cos_angle2", "sin_angle2", "velocity1", "velocity2"),
    "MountainCar-v0": ("position", "velocity"),
    "MountainCarContinuous-v0": ("position", "velocity"),
    "Pendulum-v1": ("cos_angle", "sin_angle", "velocity"),
}


TERMINATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "CartPole-v1": lambda s: (jnp.abs(s[0]) > 2.4) | (jnp.abs(s[2]) > 12 * 2 * jnp.pi / 360),
    # the height of the hand, −cos θ₁ − cos(θ₁ + θ₂)
    "Acrobot-v1": lambda s: -s[0] - (s[0] * s[2] - s[1] * s[3]) > 1.0,
    "MountainCar-v0": lambda s: (s[0] >= 0.5) & (s[1] >= 0),
    "MountainCarContinuous-v0": lambda s: (s[0] >= 0.45) & (s[1] >= 0),
    "Pendulum-v1": lambda s: jnp.array(False),
}
"""Whether an episode has ended by itself in an observation (n,), by name, where the observation tells."""


class GymnaxEnvironment(Environment):
    """The registered gymnax environment `name` with its default parameters. A board (two dimensions) is read row by row.

    Raises:
        UnsupportedEnvironment: unknown name, unbounded actions, or an observation that is neither vector nor board.
    """

    def __init__(self, name: str):
        import gymnax  # here, because importing it takes seconds
        from gymnax.environments import spaces

        if name not in gymnax.registered_envs:
            near = nearest(name, gymnax.registered_envs)
            raise UnsupportedEnvironment(f"unknown environment {name!r}; the nearest registered gymnax name is {near!r}")
        try:
            self._env, self._params = gymnax.make(name)
        except OSError as error:  # one of them downloads its data
            raise UnsupportedEnvironment(f"{name} cannot be made ({error}); it needs data from the network") from None
        space = self._env.observation_space(self._params)
        shape: tuple[int, ...] | Any = getattr(space, "shape", None)
        if not isinstance(space, spaces.Box) or shape is None or len(shape) not in (1, 2):
            raise UnsupportedEnvironment(
                f"{name} observes {_describe(space)} and this agent needs a vector; "
                "wrap it in an Environment of your own that flattens it, or use an agent with a convolutional network"
            )
        self.name = name
        self.action_space = _action_space(name, self._env.action_space(self._params))
        self.max_episode_steps = int(self._params.max_steps_in_episode)
        size = jax.eval_shape(self.reset, jax.random.key(0))[1].size  # what a space says of its size is not always so
        self.state_names = _STATE_NAMES.get(name, tuple(f"dimension_{i}" for i in range(size)))

    @override
    def reset(self, key: jax.Array) -> tuple[State, jax.Array]:
        observation, state = self._env.reset(key, self._params)
        return state, _vector(observation)

    @override
    def termination(self, observation: jax.Array, action: jax.Array, next_observation: jax.Array) -> jax.Array | None:
        ended = TERMINATIONS.get(self.name)
        return None if ended is None else ended(next_observation)

    @override
    def step(self, key: jax.Array, state: State, action: jax.Array) -> tuple[State, Step]:
        observation, state, reward, terminated, truncated, info = self._env.step(key, state, action, self._params)
        return state, Step(
            observation=_vector(observation),
            next_observation=_vector(info["final_observation"]),
            reward=jnp.asarray(reward, float),
            terminated=jnp.asarray(terminated, bool),
            truncated=jnp.asarray(truncated, bool),
        )


def _action_space(name: str, space: Any) -> ActionSpace:
    if hasattr(space, "n"):
        return Discrete(int(space.n))
    low, high = (np.broadcast_to(np.asarray(bound, float), space.shape).ravel() for bound in (space.low, space.high))
    if len(space.shape) != 1 or not np.all(np.isfinite([low, high])):
        raise UnsupportedEnvironment(f"{name} acts by {_describe(space)} between {space.low} and {space.high} and this agent "
                                     "needs a bounded vector; wrap it in an Environment of your own")  # fmt: skip
    return Box(tuple(low.tolist()), tuple(high.tolist()))


def _vector(observation: jax.Array) -> jax.Array:
    return jnp.asarray(observation, float).ravel()


def _describe(space: Any) -> str:
    shape = getattr(space, "shape", None)
    return f"an array of shape {shape}" if shape is not None and len(shape) > 2 else f"a {type(space).__name__}"
