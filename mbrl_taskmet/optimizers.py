"""What optax has not: steps that keep noise out of a network's ends, Adam's first step every time, and one schedule."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

PyTree = Any

SPARSITY_DECAY = 10_000
"""Updates k₀ after which the sparsity λ/√(1 + k/k₀) begins to fall, as the bias it brings may once there is data."""


def critic_optimizer(learning_rate: float, decay: float) -> optax.GradientTransformation:
    """Adam, with decoupled weight decay λ of the weights on the inputs, which alone removes the start of those on noise.

    There Adam walks at random, and λ keeps the walk's variance at lr/2λ: from n such inputs a unit gets noise of variance
    n·lr/2λ. Hence `Config` gives λ per input.
    """

    def first_layer(params: PyTree) -> PyTree:
        return jax.tree_util.tree_map_with_path(lambda path, _: {"Dense_0", "kernel"} <= _names(path), params)

    return optax.adamw(learning_rate, weight_decay=decay, mask=first_layer) if decay else optax.adam(learning_rate)


def model_optimizer(name: str, learning_rate: float, sparsity: float, hidden_layers: int) -> optax.GradientTransformation:
    """Adam or `first_adam`; where `sparsity` λ is not 0, each step is followed by one of `sparse_ends`."""
    adam = {"adam": optax.adam, "first_adam": first_adam}[name](learning_rate)
    if not sparsity:
        return adam
    return optax.chain(adam, sparse_ends(inverse_sqrt(learning_rate * sparsity, SPARSITY_DECAY), hidden_layers))


def sparse_ends(rate: optax.ScalarOrSchedule, hidden_layers: int) -> optax.GradientTransformation:
    """Bring all that joins the dynamics network to one input, or to one output, closer to 0 by `rate` in root mean square:

        w ← w·max(0, 1 − rate·√h / ‖w‖)        for every row w of the first kernel, every column of the last, of h weights

    The proximal step of the group lasso (Yuan & Lin 2006), decoupled from Adam's as AdamW's decay is. Adam moves a weight by
    about lr whether its gradient is signal or noise. With rate = λ·lr a weight of nothing but noise stays at about lr/2λ, where
    signal moves it by more than the rate; and what stands at 0 at the outputs that cannot be predicted sends no noise back into
    the hidden layers.
    """
    ends = {"Dense_0": -1, f"Dense_{hidden_layers}": -2}  # the axis along a group, by flax's names of the layers

    def update(updates: optax.Updates, state: optax.ScaleByScheduleState, params: optax.Params | None = None) -> Any:
        shrink = jnp.asarray(rate(state.count) if callable(rate) else rate)

        def shrunk(path: Any, step: jax.Array, weights: jax.Array) -> jax.Array:
            axis = next((axis for layer, axis in ends.items() if {"dynamics", layer, "kernel"} <= _names(path)), None)
            if axis is None:
                return step
            new = weights + step
            size = jnp.sqrt(jnp.mean(new**2, axis=axis, keepdims=True))
            kept = jnp.maximum(0, 1 - shrink.astype(new.dtype) / jnp.maximum(size, jnp.finfo(new.dtype).tiny))
            return new * kept - weights

        updates = jax.tree_util.tree_map_with_path(shrunk, updates, params)
        return updates, optax.ScaleByScheduleState(optax.safe_increment(state.count))

    return optax.GradientTransformation(lambda params: optax.ScaleByScheduleState(jnp.zeros((), jnp.int32)), update)


def inverse_sqrt(value: float, decay: int) -> optax.ScalarOrSchedule:
    """value/√(1 + k/k₀) at update k, or `value` where k₀ = `decay` is 0.

    As a learning rate: of a gradient that is mostly noise, k such steps add up √k of the signal and √log k of the noise, so
    early ones can be large without late ones undoing what was learned, whatever the length of the run. As the sparsity of a
    fit to k transitions: the rate at which the group lasso's bias may vanish while it still outweighs the noise.
    """
    return (lambda count: value / jnp.sqrt(1 + count / decay)) if decay else value


def first_adam(learning_rate: float, eps: float = 1e-8) -> optax.GradientTransformation:
    """Every step as Adam's first: −lr·g/(|g| + ε), about lr·sign(g). What the published TaskMet runs did to the model."""

    def update(updates: optax.Updates, params: optax.Params | None = None) -> optax.Updates:
        return jax.tree.map(lambda g: -learning_rate * g / (jnp.abs(g) + eps), updates)

    return optax.stateless(update)


def _names(path: Any) -> set[str]:
    """The keys and fields on the way to a leaf."""
    return {getattr(key, "key", getattr(key, "name", "")) for key in path}
