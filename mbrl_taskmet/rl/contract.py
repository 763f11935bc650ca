"""The checks of an environment's attributes and of its functions' results: each is converted or refused.

Every refusal is one sentence that names the class, what is wrong with it and what to do.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mbrl_taskmet.core.settings import MOST, ConfigError
from mbrl_taskmet.rl.spaces import Box, Discrete

RESERVED = ("diagonal", "distractors_mean")
"""What a run's record calls figures of the metric beside those of the dimensions."""

_KINDS = (jnp.integer, jnp.floating)


class UnsupportedEnvironment(ConfigError):
    """An environment that the agents cannot run; its message names the reason and the remedy."""


class _Attribute(NamedTuple):
    """A required attribute of an environment: its check, its description and an example."""

    fits: Callable[[Any], bool]
    wanted: str
    example: str


def check_attributes(env: Any) -> None:
    """Raise UnsupportedEnvironment unless every attribute of an environment is there and valid."""
    who = type(env).__name__
    for name, attribute in _ATTRIBUTES.items():
        try:
            value = getattr(env, name)
        except Exception as error:  # a property may raise whatever it likes
            why = f" ({type(error).__name__}: {brief(error)})" if hasattr(type(env), name) else ""
            raise UnsupportedEnvironment(
                f"{who} has no {name}{why}; give it {attribute.wanted}, such as {attribute.example}"
            ) from error
        if not attribute.fits(value):
            raise UnsupportedEnvironment(
                f"{who}.{name} is {_short(repr(value))}; give {attribute.wanted}, such as {attribute.example}"
            )
    if env.observation_size < len(env.state_names):
        raise UnsupportedEnvironment(
            f"{who}.observation_size is {env.observation_size} for {len(env.state_names)} state_names; "
            "give the length of an observation, which begins with those that have names"
        )
    if env.mixing is not None and len(env.mixing) != len(env.state_names):
        raise UnsupportedEnvironment(
            f"{who}.mixing has {len(env.mixing)} rows for {len(env.state_names)} state_names; give it a row for each"
        )


def called(env: Any, function: str, parts: tuple[str, ...], *args: Any) -> tuple[Any, ...]:
    """The result of `env`'s function.

    Args:
        env: the environment.
        function: the function's name.
        parts: names of what it is to give.
        *args: what it takes.

    Raises:
        UnsupportedEnvironment: it raises an error, or gives something else than so many parts.
    """
    where = f"{type(env).__name__}.{function}"
    try:
        given = getattr(env, function)(*args)
    except UnsupportedEnvironment:
        raise
    except Exception as error:  # code of the user's
        raise failed(where, error) from error
    if not isinstance(given, (tuple, list)) or len(given) != len(parts):
        what = f"{len(given)} values" if isinstance(given, (tuple, list)) else "no tuple"
        raise UnsupportedEnvironment(f"{where} gives {what}; give {len(parts)}: {', '.join(parts)}")
    return tuple(given)


def ended(env: Any, *args: Any) -> jax.Array | None:
    """The result of `env`'s termination for a step, as a bool (), or None.

    Raises:
        UnsupportedEnvironment: it raises an error, or gives something else.
    """
    where = f"{type(env).__name__}.termination"
    try:
        given = env.termination(*args)
    except UnsupportedEnvironment:
        raise
    except Exception as error:  # code of the user's
        raise failed(where, error) from error
    return None if given is None else truth(given, where)


def failed(where: str, error: Exception) -> UnsupportedEnvironment:
    """The refusal of a function that raises an error."""
    return UnsupportedEnvironment(
        f"{where} fails ({type(error).__name__}: {brief(error)}); fix it; it is compiled, so use jnp.where in the place of if"
    )


def vector(value: Any, where: str) -> jax.Array:
    """An observation as floats (n,).

    Raises:
        UnsupportedEnvironment: it is no vector of real numbers.
    """
    return _converted(value, where, 1, float, "a vector (n,) of numbers, such as jnp.concatenate or jnp.ravel make of others")


def number(value: Any, where: str) -> jax.Array:
    """A reward as a float ().

    Raises:
        UnsupportedEnvironment: it is no real number.
    """
    return _converted(value, where, 0, float, "one number, of shape ()")


def truth(value: Any, where: str) -> jax.Array:
    """A flag as a bool ().

    Raises:
        UnsupportedEnvironment: it is neither bool nor whole number.
    """
    return _converted(value, where, 0, bool, "one bool, of shape (), such as jnp.abs(state) >= 1")


def arrays(state: Any, where: str) -> Any:
    """A state with arrays for leaves, of types that arithmetic keeps as those of arrays are.

    Raises:
        UnsupportedEnvironment: something in it is no array.
    """

    def array(leaf: Any) -> jax.Array:
        try:
            made = jnp.asarray(leaf)
        except Exception as error:  # JAX has several, by what it is given
            raise UnsupportedEnvironment(
                f"{where} is or holds a {type(leaf).__name__}; make it of arrays, in tuples, dicts or registered classes"
            ) from error
        return made if jnp.issubdtype(made.dtype, jax.dtypes.prng_key) else jax.lax.convert_element_type(made, made.dtype)

    return jax.tree.map(array, state)


def alike(who: str, fresh: Any, moved: Any) -> Any:
    """The state after a transition, cast to the types of the state after a reset where both are of one kind.

    Raises:
        UnsupportedEnvironment: their structures, shapes or kinds differ.
    """
    check_same(who, fresh, moved, ("reset", "transition"), wider=True)
    return jax.tree.map(lambda old, new: new if new.dtype == old.dtype else new.astype(old.dtype), fresh, moved)


def check_same(who: str, first: Any, then: Any, functions: tuple[str, str], wider: bool = False) -> None:
    """Raise UnsupportedEnvironment unless the states of two functions have the same structure, shapes and types.

    With `wider`, two types of integers are the same, and two of floats.
    """
    flat: Any = [jax.tree_util.tree_flatten_with_path(state) for state in (first, then)]
    (before, tree), (after, other) = flat
    trees = str(tree), str(other)
    if trees[0] != trees[1] and not tree == other:  # they may be equal and name objects by their addresses
        raise UnsupportedEnvironment(f"{who}'s state is {_short(trees[0])} after {functions[0]} and {_short(trees[1])} "
                                     f"after {functions[1]}; give it the same structure")  # fmt: skip
    for (path, old), (_, new) in zip(before, after, strict=True):
        near = wider and any(all(jnp.issubdtype(each.dtype, sort) for each in (old, new)) for sort in _KINDS)
        if old.shape != new.shape or not (near or old.dtype == new.dtype):
            raise UnsupportedEnvironment(
                f"{who}'s state{jax.tree_util.keystr(path)} is {kind(old)} after {functions[0]} and {kind(new)} "
                f"after {functions[1]}; give both the same type and shape"
            )


def brief(error: BaseException) -> str:
    """The message of an error in one short line; its type if it has none."""
    first = str(error).strip().split("\n", 1)[0]
    return _short(first, 160) if first else type(error).__name__


def kind(array: Any) -> str:
    """The type and shape of an array, as messages print them."""
    return f"{array.dtype}{list(array.shape)}"


def _converted(value: Any, where: str, dimensions: int, wanted: type, remedy: str) -> jax.Array:
    try:
        array = jnp.asarray(value)
    except Exception as error:  # JAX has several, by what it is given
        raise UnsupportedEnvironment(f"{where} is {_short(repr(value))}; give {remedy}") from error
    kinds = (bool, jnp.integer, jnp.floating) if wanted is float else (bool, jnp.integer)
    if array.ndim != dimensions or not any(jnp.issubdtype(array.dtype, kind) for kind in kinds):
        raise UnsupportedEnvironment(f"{where} is {kind(array)}; give {remedy}")
    return jnp.asarray(array, wanted)


def _text(value: Any) -> bool:
    return isinstance(value, str) and value.strip() != "" and value.isprintable()


def _names(value: Any) -> bool:
    if not isinstance(value, (tuple, list)) or not all(map(_text, value)):
        return False
    return len(value) == len(set(value)) > 0 and not set(value) & set(RESERVED)


def _count(value: Any) -> bool:
    try:
        return not isinstance(value, (bool, np.bool_)) and 1 <= operator.index(value) <= MOST
    except Exception:  # an array or a traced value may raise its own
        return False


def _narrow(value: Any) -> bool:
    try:
        return value is None or bool(jnp.issubdtype(jnp.dtype(value), jnp.floating))
    except TypeError:
        return False


def _matrix(value: Any) -> bool:
    if not isinstance(value, np.ndarray):
        return value is None
    floats = value.ndim == 2 and np.issubdtype(value.dtype, np.floating)
    return bool(floats and 1 <= value.shape[1] <= value.shape[0] and np.isfinite(value).all())


def _short(text: str, most: int = 60) -> str:
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[:most]}…"


_ATTRIBUTES: Mapping[str, _Attribute] = {
    "name": _Attribute(_text, "a text", 'name = "corridor"'),
    "state_names": _Attribute(
        _names, f"different texts, one for each number it observes, none of them {' or '.join(RESERVED)}",
        'state_names = ("position", "velocity")',
    ),
    "action_space": _Attribute(
        lambda value: isinstance(value, (Discrete, Box)), "Discrete or Box", "action_space = Discrete(2)",
    ),
    "max_episode_steps": _Attribute(_count, f"a whole number from 1 to {MOST}", "max_episode_steps = 500"),
    "observation_size": _Attribute(_count, "a whole number", "the number of its state_names, which is the default"),
    "noise_dtype": _Attribute(_narrow, "None or a type of floats", "noise_dtype = jnp.float16"),
    "mixing": _Attribute(_matrix, "None or a NumPy matrix of finite floats, no wider than high", "mixing = np.eye(4)"),
}  # fmt: skip
