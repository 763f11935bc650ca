"""Environments of brax, by name and backend."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from typing_extensions import override

from mbrl_taskmet.core.settings import nearest
from mbrl_taskmet.rl.contract import brief
from mbrl_taskmet.rl.environment import Environment, State, UnsupportedEnvironment
from mbrl_taskmet.rl.spaces import Box

STARTS = 1024
"""Episodes begin in one of so many states."""

_JOINTS = {
    "halfcheetah": ("z", "pitch", "back_thigh", "back_shin", "back_foot", "front_thigh", "front_shin", "front_foot"),
    "hopper": ("z", "pitch", "thigh", "leg", "foot"),
    "walker2d": ("z", "pitch", "thigh", "leg", "foot", "left_thigh", "left_leg", "left_foot"),
}
_STATE_NAMES = {
    "inverted_pendulum": ("cart_position", "pole_angle", "cart_velocity", "pole_velocity"),
    **{name: (*joints, "x_velocity", *(f"{joint}_velocity" for joint in joints)) for name, joints in _JOINTS.items()},
}


class BraxState(NamedTuple):
    """What brax needs to step again; its metrics, reward and flag it only writes."""

    pipeline: Any  # brax.base.State
    info: dict[str, Any]


class _Pose(NamedTuple):
    """All that the viewer needs of a state."""

    x: Any  # brax.base.Transform


class BraxEnvironment(Environment):
    """The environment `name` of brax, with actions from −1 to 1 and episodes of at most 1000 steps, as brax trains on it.

    brax' own wrappers are left out: its automatic reset starts every episode in one state and loses the observation before it.
    A reset of brax takes as long as a step and a third again to compile. So `STARTS` states are made once, always the same,
    and an episode begins in one of them; that is also cheap where runs are vmapped and a branch becomes a select.

    Raises:
        UnsupportedEnvironment: brax is not installed, the name is unknown, it does not work with the backend, or it observes
            anything but a vector.
    """

    costly_reset = True  # for the start is gathered from memory: a branch is cheaper
    max_episode_steps = 1000

    def __init__(self, name: str, backend: str = "spring"):
        made = _registered(name)
        self.name = name
        try:
            with _without_advice():
                self._env = made(backend=backend)
            like = jax.eval_shape(self._env.reset, jax.random.key(0))
        except Exception as error:  # brax checks little; what a backend lacks shows in any error
            raise UnsupportedEnvironment(
                f"{name} does not work with --backend {backend} ({type(error).__name__}: {brief(error)}); "
                "give another --backend, or another --env"
            ) from error
        if not hasattr(like.obs, "shape") or len(like.obs.shape) != 1:
            raise UnsupportedEnvironment(
                f"{name} observes {_describe(like.obs)} and this agent needs a vector; wrap it in an Environment of your own"
            )
        size = like.obs.size
        self.state_names = _STATE_NAMES.get(name, tuple(f"dimension_{i}" for i in range(size)))
        self.action_space = Box((-1.0,) * self._env.action_size, (1.0,) * self._env.action_size)
        self._metrics = tuple(like.metrics)
        self._starts = jax.jit(jax.vmap(self._start))(jax.random.split(jax.random.key(0), STARTS))

    @override
    def reset(self, key: jax.Array) -> tuple[State, jax.Array]:
        index = jax.random.randint(key, (), 0, STARTS)
        return jax.tree.map(lambda leaf: leaf[index], self._starts)

    @override
    def transition(
        self, key: jax.Array, state: State, action: jax.Array
    ) -> tuple[State, jax.Array, jax.Array, jax.Array, jax.Array]:
        from brax.envs import State as Full

        nothing = jnp.zeros(())
        full = Full(state.pipeline, nothing, nothing, nothing, dict.fromkeys(self._metrics, nothing), state.info)
        after = self._env.step(full, action)
        ended = jnp.asarray(after.done) != 0
        return BraxState(after.pipeline_state, after.info), after.obs, after.reward, ended, jnp.array(False)

    def page(self, states: BraxState) -> str:
        """HTML of brax' viewer that shows `states`, leaves (T, …)."""
        from brax.io import html

        poses = jax.tree.map(np.asarray, states.pipeline.x)
        frames = [_Pose(jax.tree.map(lambda leaf: leaf[i], poses)) for i in range(len(poses.pos))]  # noqa: B023
        return html.render(self._env.sys.tree_replace({"opt.timestep": self._env.dt}), frames, height="100vh", colab=False)

    def _start(self, key: jax.Array) -> tuple[BraxState, jax.Array]:
        start = self._env.reset(key)
        return BraxState(start.pipeline_state, start.info), start.obs


def _registered(name: str) -> Any:
    """The class that brax registers under `name`."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # mujoco says there that it has no warp, which nothing here needs
            from brax import envs
    except ImportError as error:
        raise UnsupportedEnvironment(
            f"brax cannot be imported ({brief(error)}); install it with pip install 'mbrl-taskmet[brax]'"
        ) from None
    known = {name: made for name, made in envs._envs.items() if name != "fast"}  # which moves no bodies: brax' tests use it
    if name not in known:
        raise UnsupportedEnvironment(f"unknown environment {name!r}; did you mean {nearest(name, known)!r}? "
                                     f"brax has {', '.join(sorted(known))}")  # fmt: skip
    return known[name]


@contextlib.contextmanager
def _without_advice() -> Iterator[None]:
    """brax advises against itself, and mujoco against what brax' files say, on the screen and in a file that it leaves."""
    import mujoco

    before = mujoco.get_mju_user_warning()
    mujoco.set_mju_user_warning(lambda message: None)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Brax System", UserWarning)
            yield
    finally:
        mujoco.set_mju_user_warning(before)


def _describe(observation: Any) -> str:
    shape = getattr(observation, "shape", None)
    return f"a {type(observation).__name__}" if shape is None else f"an array of shape {shape}"
