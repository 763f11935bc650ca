"""What the environments of brax and of MuJoCo Playground share: states of simulated bodies, and the way episodes start."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from typing_extensions import override

from mbrl_taskmet.core.settings import nearest
from mbrl_taskmet.rl.contract import brief
from mbrl_taskmet.rl.environment import Environment, State, UnsupportedEnvironment
from mbrl_taskmet.rl.spaces import Box

STARTS = 1024
"""Episodes begin in one of so many states."""

WRITTEN = ("reward", "done", "metrics")
"""What a simulator's step writes into its state and does not read, but where it leaves the flag as it is."""


class Simulated(NamedTuple):
    """What a simulator needs to step again."""

    bodies: Any
    info: dict[str, Any]


class Physics(Environment):
    """An environment of a simulator, without the simulator's own wrappers, which lose the observation before a reset.

    A reset is compiled into a run four times: in training and in evaluation, each at the start and in the step. So `STARTS`
    states are made once, always the same, and an episode begins in one of them: on a CPU hopper then compiles in 25 s and not
    in 36 s, and runs as fast. The price is 13 to 18 % of a step where episodes are vmapped, for a branch is a select there.

    Args:
        name: what logs call it.
        simulator: has `reset` and `step`, whose states have obs, reward, done, metrics, info and what `bodies` names.
        bodies: the name of the bodies' state.
        state_names: where the dimensions have names.

    Raises:
        UnsupportedEnvironment: it observes anything but a vector.
        Exception: whatever the simulator raises for an environment that it cannot step.
    """

    costly_reset = True  # hundreds of numbers are gathered from memory: a branch is cheaper (hopper: 0.03 ms and not 0.06)
    max_episode_steps = 1000

    def __init__(self, name: str, simulator: Any, bodies: str, state_names: tuple[str, ...] | None = None):
        self._simulator, self._bodies = simulator, bodies
        with _single_precision():
            self._like = jax.eval_shape(simulator.reset, jax.random.key(0))
        shape = getattr(self._like.obs, "shape", None)
        if shape is None or len(shape) != 1:
            what = f"a {type(self._like.obs).__name__}" if shape is None else f"an array of shape {shape}"
            raise UnsupportedEnvironment(
                f"{name} observes {what} and this agent needs a vector; wrap it in an Environment of your own"
            )
        self.name = name
        self.state_names = state_names or tuple(f"dimension_{i}" for i in range(shape[0]))
        self.action_space = Box((-1.0,) * simulator.action_size, (1.0,) * simulator.action_size)
        jax.eval_shape(lambda key: self.transition(key, self._start(key)[0], self.action_space.sample(key)), jax.random.key(0))
        with _single_precision():
            self._starts = jax.jit(jax.vmap(self._start))(jax.random.split(jax.random.key(0), STARTS))

    @override
    def reset(self, key: jax.Array) -> tuple[State, jax.Array]:
        index = jax.random.randint(key, (), 0, STARTS)
        return jax.tree.map(lambda leaf: leaf[index], self._starts)

    @override
    def transition(
        self, key: jax.Array, state: State, action: jax.Array
    ) -> tuple[State, jax.Array, jax.Array, jax.Array, jax.Array]:
        blank = {name: jax.tree.map(_zeros, getattr(self._like, name)) for name in WRITTEN}
        full = self._like.replace(**blank, info=state.info, **{self._bodies: state.bodies})
        with _single_precision():
            after = self._simulator.step(full, action.astype(jnp.float32))
        ended = jnp.asarray(after.done) != 0
        return Simulated(getattr(after, self._bodies), after.info), after.obs, after.reward, ended, jnp.array(False)

    def _start(self, key: jax.Array) -> tuple[Simulated, jax.Array]:
        start = self._simulator.reset(key)
        return Simulated(getattr(start, self._bodies), start.info), start.obs


def _zeros(leaf: jax.ShapeDtypeStruct) -> jax.Array:
    return jnp.zeros(leaf.shape, leaf.dtype)


def _single_precision() -> Any:
    """Where simulators compute, also in a run in float64: their bodies are made of float32, and they mix no types."""
    return jax.enable_x64(False)


def known(name: str, names: tuple[str, ...], suite: str) -> str:
    """`name`, if it is one of a suite's.

    Raises:
        UnsupportedEnvironment: it is not.
    """
    if name not in names:
        raise UnsupportedEnvironment(f"unknown environment {name!r}; did you mean {nearest(name, names)!r}? "
                                     f"{suite} has {', '.join(names)}")  # fmt: skip
    return name


@contextlib.contextmanager
def simulators(suite: str) -> Iterator[None]:
    """Import a suite and make its environments without the warnings about warp, deprecated code and brax' own files.

    MuJoCo would also leave a file of its warnings in the working directory.

    Raises:
        UnsupportedEnvironment: something that the suite needs is not installed.
    """
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Brax System", UserWarning)
            import mujoco

            before = mujoco.get_mju_user_warning()
            mujoco.set_mju_user_warning(lambda message: None)
            try:
                yield
            finally:
                mujoco.set_mju_user_warning(before)
    except ImportError as error:
        raise UnsupportedEnvironment(
            f"{suite} cannot be imported ({brief(error)}); install it with pip install 'mbrl-taskmet[{suite}]'"
        ) from None
