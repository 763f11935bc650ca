"""The contract between an environment and the training loop, for vector observations.

An environment of your own is a subclass with `reset` and `transition`. `Episodic` steps it: it converts what they give, counts
the steps, cuts an episode at its limit and starts the next. `check_environment` tells before a run whether that will work.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from typing_extensions import override

from mbrl_taskmet.core.settings import choice, setting
from mbrl_taskmet.rl import contract
from mbrl_taskmet.rl.contract import UnsupportedEnvironment as UnsupportedEnvironment
from mbrl_taskmet.rl.spaces import ActionSpace
from mbrl_taskmet.rl.suites import SUITES, Suite

State = Any
Termination = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
"""(observation (..., n), action vector (..., m), next observation (..., n)) → bool (...)."""
_TRANSITION = ("state", "observation", "reward", "terminated", "truncated")


@dataclass(frozen=True, kw_only=True)
class EnvironmentSettings:
    """The environment and the disturbance of its observations."""

    suite: Suite = choice(SUITES, "gymnax", "where the environment comes from")
    name: str = setting("CartPole-v1", "environment of the suite, or module:Class of your own", flag="env")
    distractors: int = setting(0, "dimensions of distraction that are added to every observation", low=0)
    disturbance: str = setting(
        "noise",
        "kind of distraction: noise; oscillators (an even number of dimensions); nonlinear dynamics; companions, copies of the "
        "environment (a multiple of its observation's size); projected, noise rotated together with the state",
    )


class Step(NamedTuple):
    """What one environment step gives. Termination and truncation are two facts: only the first ends the bootstrap."""

    observation: jax.Array  # (n,), what the next step starts from: after the reset, where the episode ended
    next_observation: jax.Array  # (n,), what this step led to: before any reset
    reward: jax.Array  # ()
    terminated: jax.Array  # (), bool: the environment itself ended the episode
    truncated: jax.Array  # (), bool: a time limit cut it


class Environment:
    """One environment, as pure functions of explicit state and keys.

    name: what logs call it.
    state_names: names of the k leading dimensions of an observation, those that belong to the task. The others (n − k) are
        noise: they are not reset with an episode.
    observation_size: n, which is k unless noise is appended.
    noise_dtype: a smaller type that represents the noise exactly, for the replay; None where there is none.
    mixing: where the leading dimensions are a mixture, the matrix (number of state_names, k) that takes the task's own k out
        of them by `state_of`; None where they are the task's own.
    action_space: what an action is.
    max_episode_steps: no episode is longer: where the environment has not ended one by then, it is truncated.
    made_of: the settings that it was made of, where it was; records of a run then name it as the command line does.
    costly_reset: a reset costs as much as a step, or more: it is then computed only where an episode has ended. Otherwise it
        is computed at every step, which is cheaper than a branch.
    """

    name: str
    state_names: tuple[str, ...]
    action_space: ActionSpace
    max_episode_steps: int
    noise_dtype: DTypeLike | None = None
    mixing: np.ndarray | None = None
    made_of: EnvironmentSettings | None = None
    costly_reset: ClassVar[bool] = False

    @property
    def observation_size(self) -> int:
        """n, the length of an observation."""
        return len(self.state_names)

    @property
    def state_size(self) -> int:
        """k, the number of the task's own dimensions."""
        return len(self.state_names) if self.mixing is None else self.mixing.shape[1]

    def state_of(self, observation: jax.Array) -> jax.Array:
        """The task's own dimensions (..., k) of observations (..., n), or of differences of such: it is linear."""
        leading = observation[..., : len(self.state_names)]
        return leading if self.mixing is None else jnp.matmul(leading, self.mixing.astype(leading.dtype), precision="highest")

    def reset(self, key: jax.Array) -> tuple[State, jax.Array]:
        """Start an episode: (state, observation (n,)). `key` is consumed."""
        raise NotImplementedError(f"{type(self).__name__} does not say how an episode starts")

    def transition(
        self, key: jax.Array, state: State, action: jax.Array
    ) -> tuple[State, jax.Array, jax.Array, jax.Array, jax.Array]:
        """One step without any reset: (state, observation, reward, terminated, truncated). `key` is consumed."""
        raise NotImplementedError(f"{type(self).__name__} does not say how it moves")

    def termination(self, observation: jax.Array, action: jax.Array, next_observation: jax.Array) -> jax.Array | None:
        """Whether a step terminates the episode, bool (), from observations and action; None if these do not determine it.

        Rollouts of a model then end as the environment does; without it, the model learns when they end. Observations are
        (n,) and in the environment's units, `action` is as `transition` takes it.
        """
        return None

    def known_termination(self) -> Termination | None:
        """`termination` of any number of observations (..., n) and action vectors (..., m), or None if it is not known."""

        def one(observation: jax.Array, vector: jax.Array, following: jax.Array) -> jax.Array | None:
            return contract.ended(self, observation, self.action_space.decode(vector), following)

        observation, action = jnp.zeros(self.observation_size), jnp.zeros(self.action_space.size)
        known = jax.eval_shape(one, observation, action, observation) is not None
        return jnp.vectorize(one, signature="(n),(m),(n)->()") if known else None

    def step(self, key: jax.Array, state: State, action: jax.Array) -> tuple[State, Step]:
        """One step, and a reset where it ended the episode. `key` is consumed; `action` is one of `action_space`.

        What `episodic` makes of an environment has it. A subclass that has its own is stepped as it is: it resets by itself and
        keeps its limit.
        """
        raise NotImplementedError(f"{type(self).__name__} does not step by itself; step check_environment(env)")


class Episode(NamedTuple):
    """The state of an environment of one's own, and how long its episode has lasted."""

    state: State
    steps: jax.Array  # (), int32


class Episodic(Environment):
    """`env`, which has a `transition`, episode after episode.

    Observations and rewards become floats and flags bools where they are not. The last step that `max_episode_steps` allows
    is a truncation, unless it is a termination.
    """

    def __init__(self, env: Environment):
        self.env = env
        _copy_attributes(env, self)
        self._who = type(env).__name__

    @property
    @override
    def observation_size(self) -> int:
        return self.env.observation_size

    @override
    def termination(self, observation: jax.Array, action: jax.Array, next_observation: jax.Array) -> jax.Array | None:
        return contract.ended(self.env, observation, action, next_observation)

    @override
    def reset(self, key: jax.Array) -> tuple[State, jax.Array]:
        state, observation = contract.called(self.env, "reset", ("state", "observation"), key)
        state = contract.arrays(state, f"{self._who}.reset's state")
        return Episode(state, jnp.int32(0)), self._observed(observation, "reset")

    @override
    def transition(
        self, key: jax.Array, state: State, action: jax.Array
    ) -> tuple[State, jax.Array, jax.Array, jax.Array, jax.Array]:
        own, observation, reward, terminated, truncated = contract.called(
            self.env, "transition", _TRANSITION, key, state.state, action
        )
        where = f"{self._who}.transition's"
        steps, terminated = state.steps + 1, contract.truth(terminated, f"{where} terminated")
        return (
            Episode(contract.arrays(own, f"{where} state"), steps),
            self._observed(observation, "transition"),
            contract.number(reward, f"{where} reward"),
            terminated,
            contract.truth(truncated, f"{where} truncated") | ((steps >= self.max_episode_steps) & ~terminated),
        )

    @override
    def step(self, key: jax.Array, state: State, action: jax.Array) -> tuple[State, Step]:
        step_key, reset_key = jax.random.split(key)
        state, next_observation, reward, terminated, truncated = self.transition(step_key, state, action)
        fresh = self.reset(reset_key) if not self.env.costly_reset else jax.eval_shape(self.reset, reset_key)
        state = Episode(contract.alike(self._who, fresh[0].state, state.state), state.steps)
        done, now = terminated | truncated, (state, next_observation)
        if self.env.costly_reset:
            state, observation = jax.lax.cond(done, lambda: self.reset(reset_key), lambda: now)
        else:
            state, observation = jax.tree.map(lambda fresh, old: jnp.where(done, fresh, old), fresh, now)
        return state, Step(observation, next_observation, reward, terminated, truncated)

    def _observed(self, value: Any, function: str) -> jax.Array:
        observation = contract.vector(value, f"{self._who}.{function}'s observation")
        if observation.size != self.observation_size:
            raise UnsupportedEnvironment(
                f"{self._who}.{function} observes {observation.size} number(s) and its observation_size, by default the number "
                f"of state_names, is {self.observation_size}; name each number once"
            )
        return observation


class Wrapper(Environment):
    """Base of wrappers: delegates to `env` what a subclass does not override."""

    def __init__(self, env: Environment):
        if type(self).transition is not Environment.transition and type(self).step is Wrapper.step:
            raise UnsupportedEnvironment(f"{type(self).__name__} has a transition, which no Wrapper takes; "
                                         "override its reset and step, or derive it from Environment")  # fmt: skip
        self.env = episodic(env)
        _copy_attributes(self.env, self)

    @property
    @override
    def observation_size(self) -> int:
        """n of the wrapped environment, unless a subclass adds to it."""
        return self.env.observation_size

    @override
    def termination(self, observation: jax.Array, action: jax.Array, next_observation: jax.Array) -> jax.Array | None:
        """The wrapped environment's, which sees its own part of the observations, the first."""
        own = slice(self.env.observation_size)
        return self.env.termination(observation[own], action, next_observation[own])

    @override
    def reset(self, key: jax.Array) -> tuple[State, jax.Array]:
        """Start an episode of the wrapped environment."""
        return self.env.reset(key)

    @override
    def step(self, key: jax.Array, state: State, action: jax.Array) -> tuple[State, Step]:
        """One step of the wrapped environment."""
        return self.env.step(key, state, action)


def episodic(env: Environment) -> Environment:
    """`env` as the agents step it: itself where it has a `step`, else `Episodic`.

    Raises:
        UnsupportedEnvironment: it is no environment, or an attribute is missing or will not do.
    """
    if not isinstance(env, Environment):
        what = f"the class {env.__name__}" if isinstance(env, type) else f"a {type(env).__name__}"
        raise UnsupportedEnvironment(f"the environment is {what}; give an instance of a subclass of mbrl_taskmet.Environment")
    contract.check_attributes(env)
    return Episodic(env) if type(env).step is Environment.step else env


def check_environment(env: Environment) -> Environment:
    """The environment as the agents step it, after its functions were checked by tracing; nothing is computed.

    What `reset` and `transition` give is converted where it can be: rewards and flags that are Python's, whole or bools, and
    observations of any real type. `max_episode_steps` holds.

    Raises:
        UnsupportedEnvironment: it breaks the contract; the message names the class, what is wrong and what to do.
    """
    env = episodic(env)
    who, key = type(env.env if isinstance(env, Episodic) else env).__name__, jax.random.key(0)
    try:
        state, observation = jax.eval_shape(env.reset, key)
        after, step = jax.eval_shape(env.step, key, state, jax.eval_shape(env.action_space.sample, key))
        step = Step(*step)
    except UnsupportedEnvironment:
        raise
    except Exception as error:  # code of the user's
        raise contract.failed(f"{who}'s reset or step", error) from error
    contract.check_same(who, state, after, ("reset", "step"))
    env.known_termination()
    real, flag = jnp.result_type(float).name, "bool[]"
    vector = f"{real}[{env.observation_size}]"
    given = {"reset's observation": observation, **{f"step's {name}": array for name, array in step._asdict().items()}}
    for (name, array), right in zip(given.items(), (vector, vector, vector, f"{real}[]", flag, flag), strict=True):
        what = jax.tree.map(contract.kind, array)
        if what != right:
            raise UnsupportedEnvironment(f"{who}.{name} is {what}; give {right}")
    return env


def _copy_attributes(env: Environment, to: Environment) -> None:
    to.name, to.state_names, to.action_space = env.name, tuple(env.state_names), env.action_space
    to.max_episode_steps, to.noise_dtype = operator.index(env.max_episode_steps), env.noise_dtype
    to.mixing = env.mixing
