"""Observations in units of their own running mean and standard deviation.

A metric starts at the identity, so without this a dimension counts by its unit: CartPole's angle is a tenth of a distractor.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

LEAST_DEVIATION = 1e-3


class Moments(NamedTuple):
    """Of every observation so far, and of one prior observation's worth of N(0, 1)."""

    weight: jax.Array  # (), of the observations so far
    mean: jax.Array  # (n,)
    variance: jax.Array  # (n,)


def prior(observation: Float[Array, " n"]) -> Moments:
    """The moments before any observation; `observation` (n,) gives the shape."""
    return Moments(jnp.ones((), observation.dtype), jnp.zeros_like(observation), jnp.ones_like(observation))


def include(moments: Moments, observation: Float[Array, " n"]) -> Moments:
    """The moments with one more observation (n,), by Welford's recurrence."""
    weight = moments.weight + 1
    difference = observation - moments.mean
    mean = moments.mean + difference / weight
    return Moments(weight, mean, moments.variance + (difference * (observation - mean) - moments.variance) / weight)


def deviation(moments: Moments) -> Float[Array, " n"]:
    """The standard deviation (n,), at least `LEAST_DEVIATION`, so that a constant dimension stays finite."""
    return jnp.maximum(jnp.sqrt(moments.variance), LEAST_DEVIATION)


def normalize(moments: Moments, observation: Float[Array, "*batch n"]) -> Float[Array, "*batch n"]:
    """(observation − mean) / deviation, (..., n)."""
    return (observation - moments.mean) / deviation(moments)


def denormalize(moments: Moments, observation: Float[Array, "*batch n"]) -> Float[Array, "*batch n"]:
    """The inverse of `normalize`."""
    return observation * deviation(moments) + moments.mean
