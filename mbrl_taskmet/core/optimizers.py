"""What optax lacks: a group lasso on first and last layers, an optimiser of Adam's first steps, and one schedule."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Shaped

from mbrl_taskmet.core.settings import known_zero

PyTree = Any
Number = float | Shaped[Array, ""]
"""A setting's number: Python's, or a scalar that is traced."""

FREE_SHARE = 0.5
"""Groups of weights larger than this share of the largest group are not shrunk by `sparse`."""


class Trained(NamedTuple):
    """Parameters and the state of the optimiser that moves them."""

    params: PyTree
    opt_state: PyTree


def step(optimizer: optax.GradientTransformation, trained: Trained, gradient: PyTree) -> Trained:
    """One step of `optimizer` along `gradient`."""
    updates, opt_state = optimizer.update(gradient, trained.opt_state, trained.params)
    return Trained(optax.apply_updates(trained.params, updates), opt_state)


Name = Literal["adam", "first_adam"]
"""The optimisers by the names that settings use."""


def critic_optimizer(name: Name, learning_rate: Number, sparsity: Number) -> optax.GradientTransformation:
    """Adam or `first_adam`, with a group lasso on the critic's inputs, which keeps noise out.

    Where `sparsity` λ is not 0, each step is followed by one of `sparse` on the rows of each head's first kernel, one for each
    input.
    """
    adam = _ADAMS[name](learning_rate)
    return adam if known_zero(sparsity) else optax.chain(adam, sparse(learning_rate * sparsity, {"Dense_0": -1}))


def model_optimizer(name: Name, learning_rate: Number, sparsity: Number, hidden_layers: int) -> optax.GradientTransformation:
    """Adam or `first_adam`, with a group lasso on the inputs and outputs of the dynamics network.

    Where `sparsity` λ is not 0, each step is followed by one of `sparse`: on the rows of the network's first kernel, one for
    each input, and the columns of its last, one for each output. An output that cannot be predicted then sends no noise back
    into the hidden layers, whose gradients it would dominate.
    """
    adam = _ADAMS[name](learning_rate)
    layers = {"Dense_0": -1, f"Dense_{hidden_layers}": -2}
    return adam if known_zero(sparsity) else optax.chain(adam, sparse(learning_rate * sparsity, layers, "dynamics"))


def sparse(rate: Number, layers: dict[str, int], network: str = "params") -> optax.GradientTransformation:
    """Shrink the weights of each input, or of each output, together; large groups less, the largest not at all.

    For every group w of a kernel, of root mean square s:

        w ← w·max(0, 1 − rate·max(0, 1 − s/κ)/s),        κ = `FREE_SHARE` · the largest s of the kernel

    A step of the proximal gradient of a group lasso (Yuan & Lin 2006) with the taper of the minimax concave penalty (Zhang
    2010), decoupled from Adam's step as AdamW's decay is. Adam moves a weight by about lr whether its gradient is signal or
    noise. With rate = λ·lr a weight of nothing but noise stays at about lr/2λ, where signal moves it by more than the rate.
    κ is relative to the kernel. A step that took as much from large groups would shrink a whole layer, and the other layers
    would grow to make up for it.

    Args:
        rate: how far a small group moves.
        layers: the axis along a group, for every layer that has them, by flax's names.
        network: the part of the parameters that the layers are in.
    """

    def shrunk(path: Any, step: jax.Array, weights: jax.Array) -> jax.Array:
        axis = next((axis for layer, axis in layers.items() if {network, layer, "kernel"} <= _names(path)), None)
        if axis is None:
            return step
        tiny = jnp.finfo(weights.dtype).tiny
        new = weights + step
        size = jnp.sqrt(jnp.mean(new**2, axis=axis, keepdims=True))
        free = FREE_SHARE * jnp.max(size, axis=(-2, -1), keepdims=True)
        amount = rate * jnp.maximum(0, 1 - size / jnp.maximum(free, tiny))
        return new * jnp.maximum(0, 1 - amount / jnp.maximum(size, tiny)) - weights

    return optax.stateless(lambda updates, params: jax.tree_util.tree_map_with_path(shrunk, updates, params))


def inverse_sqrt(value: Number, decay: int) -> optax.ScalarOrSchedule:
    """value/√(1 + k/k₀) at update k, or `value` where k₀ = `decay` is 0.

    Of a gradient that is mostly noise, k such steps add up √k of the signal and √log k of the noise: early ones can be large
    without late ones undoing what was learned, whatever the length of the run.
    """
    return (lambda count: value / jnp.sqrt(1 + count / decay)) if decay else value


def first_adam(learning_rate: Number, eps: float = 1e-8) -> optax.GradientTransformation:
    """Every step as Adam's first: −lr·g/(|g| + ε), about lr·sign(g).

    What the published TaskMet runs did to the model, and the published OMD runs to the critic.
    """

    def update(updates: optax.Updates, params: optax.Params | None = None) -> optax.Updates:
        return jax.tree.map(lambda g: -learning_rate * g / (jnp.abs(g) + eps), updates)

    return optax.stateless(update)


_ADAMS: dict[Name, Callable[[Number], optax.GradientTransformation]] = {"adam": optax.adam, "first_adam": first_adam}


def _names(path: Any) -> set[str]:
    """The keys and fields on the way to a leaf."""
    return {getattr(key, "key", getattr(key, "name", "")) for key in path}
