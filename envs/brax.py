"""Environments of brax, by name and backend."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from typing_extensions import override

from envs.physics import Physics, Simulated, known, simulators
from mbrl_taskmet.rl.contract import brief
from mbrl_taskmet.rl.environment import UnsupportedEnvironment

_JOINTS = {
    "halfcheetah": ("z", "pitch", "back_thigh", "back_shin", "back_foot", "front_thigh", "front_shin", "front_foot"),
    "hopper": ("z", "pitch", "thigh", "leg", "foot"),
    "walker2d": ("z", "pitch", "thigh", "leg", "foot", "left_thigh", "left_leg", "left_foot"),
}
_STATE_NAMES = {
    "inverted_pendulum": ("cart_position", "pole_angle", "cart_velocity", "pole_velocity"),
    **{name: (*joints, "x_velocity", *(f"{joint}_velocity" for joint in joints)) for name, joints in _JOINTS.items()},
}

NEVER = ("halfcheetah", "pusher", "reacher")
"""Environments whose episodes only a limit ends."""


class BraxEnvironment(Physics):
    """The environment `name` of brax, with actions from −1 to 1 and episodes of at most 1000 steps, as brax trains on it.

    Raises:
        UnsupportedEnvironment: brax is not installed, the name is unknown, it does not work with the backend, or it observes
            anything but a vector.
    """

    def __init__(self, name: str, backend: str = "spring"):
        try:
            super().__init__(name, made(name, backend), "pipeline_state", _STATE_NAMES.get(name))
        except UnsupportedEnvironment:
            raise
        except Exception as error:  # what a backend cannot do shows in any error
            raise UnsupportedEnvironment(
                f"{name} does not work with --backend {backend} ({type(error).__name__}: {brief(error)}); "
                "give another --backend, or another --env"
            ) from error

    @override
    def termination(self, observation: jax.Array, action: jax.Array, next_observation: jax.Array) -> jax.Array | None:
        if self.name == "inverted_pendulum":
            return jnp.abs(next_observation[1]) > 0.2
        return jnp.array(False) if self.name in NEVER else None

    def page(self, states: Simulated) -> str:
        """HTML of brax' viewer that shows `states`, leaves (T, …)."""
        from brax.io import html

        poses = jax.tree.map(np.asarray, states.bodies.x)
        frames = [_Pose(jax.tree.map(lambda leaf, i=i: leaf[i], poses)) for i in range(len(poses.pos))]
        system = self._simulator.sys.tree_replace({"opt.timestep": self._simulator.dt})  # of a frame, for the viewer
        return html.render(system, frames, height="100vh", colab=False)


def made(name: str, backend: str) -> Any:
    """brax' own environment, made without output.

    Raises:
        UnsupportedEnvironment: brax is not installed, or the name is unknown.
        Exception: whatever brax raises for a backend.
    """
    with simulators("brax"):
        from brax import envs

        names = tuple(sorted(envs._envs.keys() - {"fast"}))  # which has no bodies: brax' own tests step it
        return envs._envs[known(name, names, "brax")](backend=backend)


class _Pose(NamedTuple):
    """All that the viewer takes of a state."""

    x: Any  # brax.base.Transform
