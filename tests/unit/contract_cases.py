"""Environments as people write them, each another step from the contract: what converts, what trains, what is refused why."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import config

from mbrl_taskmet import Discrete, Environment


@contextmanager
def untyped() -> Iterator[None]:
    """A user's program, in which nothing but the library itself checks what it is given."""
    config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        config.update("jaxtyping_disable", False)


def actions(n: Any) -> Discrete:
    """A space of `n` actions, whatever type that has."""
    with untyped():
        return Discrete(n)


class Line(Environment):
    """A walk along a line in steps of 0.2 that ends at −1 and at 1, which pays 1; a step costs 0.1. Keeps the contract."""

    name, state_names, action_space, max_episode_steps = "line", ("x",), Discrete(2), 20

    def reset(self, key: jax.Array) -> Any:
        return jnp.zeros(()), jnp.zeros(1)

    def observe(self, state: Any) -> Any:
        return state[None]

    def transition(self, key: jax.Array, state: Any, action: jax.Array) -> Any:
        state = state + 0.2 * (2 * action - 1)
        reward = jnp.where(state >= 1, 1.0, -0.1)
        return state, self.observe(state), reward, jnp.abs(state) >= 1, jnp.array(False)


def having(**attributes: Any) -> type[Environment]:
    """A `Line` with other attributes or functions."""
    return type("Own", (Line,), attributes)


def without(attribute: str) -> type[Environment]:
    """A `Line` that lacks an attribute."""
    kept = {name: value for name, value in vars(Line).items() if not name.startswith("__") and name != attribute}
    return type("Own", (Environment,), kept)


def giving(change: Callable[..., Any]) -> type[Environment]:
    """A `Line` whose `transition` gives what `change` makes of its five parts."""

    def transition(self: Any, *args: Any) -> Any:
        return change(*Line.transition(self, *args))

    return having(transition=transition)


def observing(first: Any, then: Callable[[Any], Any], **attributes: Any) -> type[Environment]:
    """A `Line` that is observed otherwise."""
    return having(reset=lambda self, key: (jnp.zeros(()), first), observe=lambda self, state: then(state), **attributes)


def starting(state: Any, **attributes: Any) -> type[Environment]:
    """A `Line` whose first state is written otherwise."""
    return having(reset=lambda self, key: (state, jnp.zeros(1)), **attributes)


def keeping(first: Callable[[jax.Array], Any], then: Callable[[Any], Any] = lambda kept: kept) -> type[Environment]:
    """A `Line` that keeps something else in its state."""

    def transition(self: Any, key: jax.Array, state: Any, action: jax.Array) -> Any:
        moved, *rest = Line.transition(self, key, state[1], action)
        return (then(state[0]), moved), *rest

    return having(reset=lambda self, key: ((first(key), jnp.zeros(())), jnp.zeros(1)), transition=transition)


def _branching(self: Any, key: jax.Array, state: Any, action: jax.Array) -> Any:
    if action == 1:
        return Line.transition(self, key, state, action)
    return Line.transition(self, key, state, 0)


def _counting(self: Any, key: jax.Array, state: Any, action: jax.Array) -> Any:
    state = state + 2 * action - 1
    return state, state[None], jnp.where(state >= 5, 1.0, -0.1), jnp.abs(state) >= 5, jnp.array(False)


def _byte(self: Any, key: jax.Array, state: Any, action: jax.Array) -> Any:
    state = state + 20 * (2 * action - 1)
    return state, state[None].astype(jnp.uint8), 0.0, (state >= 200) | (state <= 0), jnp.array(False)


TAKEN: dict[str, type[Environment]] = {
    "as it should be": Line,
    "observation uint8": having(reset=lambda self, key: (jnp.int32(100), jnp.array([100], jnp.uint8)), transition=_byte),
    "observation int32": having(reset=lambda self, key: (jnp.int32(0), jnp.array([0])), transition=_counting),
    "observation bool": observing(jnp.array([False]), lambda state: (state > 0)[None]),
    "observation float16": observing(jnp.zeros(1, jnp.float16), lambda state: state[None].astype(jnp.float16)),
    "observation a list": observing([0.0], lambda state: [state]),
    "observation numpy's": observing(np.zeros(1), lambda state: state[None]),
    "reward int": giving(lambda s, o, r, d, t: (s, o, jnp.where(d, 1, 0), d, t)),
    "reward bool": giving(lambda s, o, r, d, t: (s, o, d, d, t)),
    "reward Python's": giving(lambda s, o, r, d, t: (s, o, -0.1, d, t)),
    "truncated Python's": giving(lambda s, o, r, d, t: (s, o, r, d, False)),
    "both flags Python's": giving(lambda s, o, r, d, t: (s, o, r, False, False)),
    "truncated numpy's": giving(lambda s, o, r, d, t: (s, o, r, d, np.bool_(False))),
    "terminated int": giving(lambda s, o, r, d, t: (s, o, r, d.astype(int), t)),
    "a list of five": giving(lambda *parts: list(parts)),
    "one action": having(action_space=Discrete(1)),
    "actions numpy's": having(action_space=actions(np.int64(2))),
    "actions JAX's": having(action_space=actions(jnp.array(2))),
    "limit numpy's": having(max_episode_steps=np.int64(20)),
    "names in a list": having(state_names=["x"]),
    "a name with a slash": having(name="a/b: c"),
    "state numpy's": starting(np.zeros(())),
    "state Python's": starting(0.0),
    "state with a key": keeping(lambda key: key, lambda key: jax.random.split(key)[0]),
    "state with an old key": keeping(jax.random.key_data),
    "state with None": keeping(lambda key: None),
    "observation NaN": observing(jnp.zeros(1), lambda state: jnp.where(state > 0.7, jnp.nan, state)[None]),
    "reward huge": giving(lambda s, o, r, d, t: (s, o, jnp.float32(1e30), d, t)),
    "reward infinite": giving(lambda s, o, r, d, t: (s, o, jnp.where(d, -jnp.inf, 0.0), d, t)),
    "costly reset": having(costly_reset=True),
}
"""What is trained; what is no float of the right type is converted."""

REFUSED: dict[str, tuple[type[Environment], str]] = {
    "terminated float": (
        giving(lambda s, o, r, d, t: (s, o, r, d.astype(float), t)),
        "Own.transition's terminated is float32[]; give one bool, of shape (), such as jnp.abs(state) >= 1",
    ),
    "terminated a vector": (
        giving(lambda s, o, r, d, t: (s, o, r, d[None], t)), "Own.transition's terminated is bool[1]; give one bool",
    ),
    "reward a vector": (
        giving(lambda s, o, r, d, t: (s, o, r[None], d, t)), "Own.transition's reward is float32[1]; give one number",
    ),
    "reward None": (giving(lambda s, o, r, d, t: (s, o, None, d, t)), "Own.transition's reward is None; give one number"),
    "reward complex": (
        giving(lambda s, o, r, d, t: (s, o, 1j * r, d, t)), "Own.transition's reward is complex64[]; give one number",
    ),
    "observation too long": (
        observing(jnp.zeros(3), lambda state: jnp.stack([state] * 3)),
        "Own.reset observes 3 number(s) and its observation_size, by default the number of state_names, is 1; name each",
    ),
    "observation too short": (having(state_names=("x", "y", "z")), "Own.reset observes 1 number(s) and its observation_size"),
    "observation longer after a step": (
        observing(jnp.zeros(1), lambda state: jnp.stack([state] * 2)), "Own.transition observes 2 number(s)",
    ),
    "observation a scalar": (
        observing(jnp.zeros(()), lambda state: state), "Own.reset's observation is float32[]; give a vector (n,) of numbers",
    ),
    "observation a matrix": (
        observing(jnp.zeros((2, 2)), lambda state: jnp.full((2, 2), state), state_names=tuple("abcd")),
        "Own.reset's observation is float32[2, 2]; give a vector (n,) of numbers, such as jnp.concatenate or jnp.ravel",
    ),
    "observation a dict": (
        observing({"at": jnp.zeros(1)}, lambda state: {"at": state[None]}), "Own.reset's observation is {'at': ",
    ),
    "no name": (without("name"), 'Own has no name; give it a text, such as name = "corridor"'),
    "no limit": (without("max_episode_steps"), "Own has no max_episode_steps; give it a whole number from 1 to 2147483647"),
    "no action space": (without("action_space"), "Own has no action_space; give it Discrete or Box, such as action_space ="),
    "no reset": (without("reset"), "Own.reset fails (NotImplementedError: Own does not say how an episode starts)"),
    "no transition": (without("transition"), "Own.transition fails (NotImplementedError: Own does not say how it moves)"),
    "a property that fails": (having(name=property(lambda self: self.nome)), "Own has no name (AttributeError: 'Own' object"),
    "a name of two lines": (having(name="a\nb"), r"Own.name is 'a\nb'; give a text"),
    "action space a number": (having(action_space=2), "Own.action_space is 2; give Discrete or Box"),
    "names empty": (having(state_names=()), "Own.state_names is (); give different texts, one for each number it observes"),
    "names twice": (having(state_names=("x", "x")), "Own.state_names is ('x', 'x'); give different texts"),
    "names a text": (having(state_names="x"), "Own.state_names is 'x'; give different texts"),
    "names of the record": (having(state_names=("diagonal",)), "none of them diagonal or distractors_mean"),
    "limit None": (having(max_episode_steps=None), "Own.max_episode_steps is None; give a whole number from 1 to 2147483647"),
    "limit infinite": (having(max_episode_steps=float("inf")), "Own.max_episode_steps is inf; give a whole number"),
    "limit huge": (having(max_episode_steps=10**10), "Own.max_episode_steps is 10000000000; give a whole number"),
    "limit 0": (having(max_episode_steps=0), "Own.max_episode_steps is 0; give a whole number from 1"),
    "limit a bool": (having(max_episode_steps=True), "Own.max_episode_steps is True; give a whole number"),
    "noise of integers": (having(noise_dtype=jnp.int8), "int8'>; give None or a type of floats"),
    "mixing a list": (having(mixing=[[1.0]]), "Own.mixing is [[1.0]]; give None or a NumPy matrix of floats"),
    "mixing of other names": (having(mixing=np.eye(3)), "Own.mixing has 3 rows for 1 state_names; give it a row for each"),
    "names more than numbers": (
        having(observation_size=1, state_names=("x", "y")), "Own.observation_size is 1 for 2 state_names",
    ),
    "state of two types": (
        starting(0), "Own's state is int32[] after reset and float32[] after transition; give both the same type and shape",
    ),
    "state of two structures": (starting({"x": jnp.zeros(())}, transition=_counting), "Own.transition fails (TypeError: "),
    "state grows": (keeping(lambda key: (), lambda kept: (jnp.zeros(()),)), "Own's state is PyTreeDef(((), *)) after reset"),
    "state of no arrays": (starting("left"), "Own.reset's state is or holds a str; make it of arrays"),
    "if": (having(transition=_branching), "Own.transition fails (TracerBoolConversionError: Attempted boolean conversion"),
    "four parts": (
        giving(lambda s, o, r, d, t: (s, o, r, d)),
        "Own.transition gives 4 values; give 5: state, observation, reward, terminated, truncated",
    ),
    "no tuple": (having(reset=lambda self, key: jnp.zeros(2)), "Own.reset gives no tuple; give 2: state, observation"),
    "an error of its own": (having(reset=lambda self, key: 1 / 0), "Own.reset fails (ZeroDivisionError: division by zero)"),
}  # fmt: skip
"""What is refused, and how the sentence begins or what it has."""
