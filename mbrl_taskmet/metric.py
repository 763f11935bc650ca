"""Λ_φ, the learned metric on predictions, and the loss it defines (TaskMet eq. 3 and section 3.3).

    Λ ← A(φ)                       positive semi-definite: softplus or exp for scalar and diagonal, LLᵀ for full
    Λ ← Λ · √n / ‖diag Λ‖₂         if normalised, so that the diagonal has the identity's norm
    Λ ← f·I + (1 − f)·Λ            a floor f ∈ [0, 1): no direction is ever forgotten, so a metric cannot collapse
    and normalised again, which keeps the floor: the mixture's diagonal is at most √n long.

A metric of one sample is an array of shape () for a scalar, (n,) for a diagonal, (n, n) for a full matrix.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from mbrl_taskmet.config import Activation, Input, Kind
from mbrl_taskmet.networks import MLP, UniformMLP, apply

PyTree = Any

_LEAST = 1e-12  # keeps the norm above 0 where every softplus underflows; its square is still a float32
_ACTIVATIONS = {"softplus": (jax.nn.softplus, 0.5413248546129181), "exp": (jnp.exp, 0.0)}  # and where each is 1: log(e − 1), 0


def squared_norm(matrix: jax.Array, error: jax.Array) -> jax.Array:
    """‖z‖²_Λ = zᵀΛz of one error (n,) under one metric of any kind, scalar."""
    return error @ matrix @ error if matrix.ndim == 2 else jnp.sum(matrix * error**2)


def prediction_loss(matrices: jax.Array, error: jax.Array) -> jax.Array:
    """E‖z‖²_Λ (eq. 3) with one metric per row: (batch, …), (batch, n) → scalar."""
    return jnp.mean(jax.vmap(squared_norm)(matrices, error))


class Metric:
    """Λ_φ(x) on predictions of size n, given inputs x = (observation, action) or nothing.

    Args:
        size: n.
        action_size: m, the length of an action vector.
        kind, input: the parametrisation.
        normalize: keep ‖diag Λ‖₂ at √n.
        floor: f, in [0, 1).
        hidden: layers of the network, where the metric has an input.
        activation: what makes a scalar's or a diagonal's weights positive. Under exp a step multiplies a weight, as in the
            exponentiated gradient (Kivinen & Warmuth 1997), which singles out few dimensions of many in fewer steps.
        published: start as the authors' code does instead of at the identity. An unconditional diagonal then has n + m copies
            of each parameter, all 1, summed before the softplus: it starts at about (n + m)·I and moves n + m times faster; a
            full one starts at L = lower-triangular ones.
    """

    def __init__(
        self,
        size: int,
        action_size: int,
        kind: Kind = "diagonal",
        input: Input = "none",
        normalize: bool = True,
        floor: float = 0.0,
        hidden: Sequence[int] = (32, 32),
        published: bool = False,
        activation: Activation = "softplus",
    ):
        self.size, self.kind, self.input = size, kind, input
        self.normalize, self.floor = normalize, floor
        self._action_size = action_size
        self._entries = {"scalar": 1, "diagonal": size, "full": size * (size + 1) // 2}[kind]
        self._copies = size + action_size if published and kind == "diagonal" and input == "none" else 1
        self._published = published
        self._activation, self._at_1 = _ACTIVATIONS[activation]
        self._network = MLP(tuple(hidden), self._entries, last_scale=0.0)

    def init(self, key: jax.Array) -> PyTree:
        """Parameters φ, at the identity (or where `published` says). `key` is consumed."""
        if self.input == "none":
            start = self._start()
            return jnp.tile(start[:, None], (1, self._copies)) if self._copies > 1 else start
        inputs = jnp.zeros(self.size + (self._action_size if self.input == "state_action" else 0))
        return self._network.init(key, inputs)

    def __call__(self, params: PyTree, observation: jax.Array, action: jax.Array) -> jax.Array:
        """Λ_φ(x) for one observation (n,) and action (m,)."""
        matrix = self._semidefinite(self._raw(params, observation, action))
        identity = jnp.eye(self.size, dtype=matrix.dtype) if self.kind == "full" else 1.0
        matrix = self._normalized(matrix + _LEAST * identity)
        return self._normalized(self.floor * identity + (1 - self.floor) * matrix)

    def diagonal(self, matrix: jax.Array) -> jax.Array:
        """The diagonal (n,) of one metric."""
        if self.kind == "full":
            return jnp.diagonal(matrix)
        return jnp.broadcast_to(matrix, (self.size,))

    def loss(self, params: PyTree, observation: jax.Array, action: jax.Array, error: jax.Array) -> jax.Array:
        """L_pred = E‖f_θ(x) − y‖²_Λφ(x) (eq. 3): (batch, n), (batch, m), (batch, n) → scalar."""
        return prediction_loss(self.batch(params, observation, action), error)

    def l1(self, params: PyTree, observation: jax.Array, action: jax.Array) -> jax.Array:
        """E Σ_ij |Λ_ij|, the L1 penalty on the metric's output, scalar. A scalar metric counts as the matrix λI."""
        copies = self.size if self.kind == "scalar" else 1
        return copies * jnp.sum(jnp.abs(self.batch(params, observation, action))) / observation.shape[0]

    def batch(self, params: PyTree, observation: jax.Array, action: jax.Array) -> jax.Array:
        """Λ of every row: (batch, …)."""
        in_axes = (None, 0, 0)
        return jax.vmap(self, in_axes=in_axes, axis_size=observation.shape[0])(params, observation, action)

    def _start(self) -> jax.Array:
        if self.kind != "full":
            return jnp.full(self._entries, 1.0 if self._copies > 1 else self._at_1)
        rows, columns = jnp.tril_indices(self.size)
        return jnp.where((rows == columns) | self._published, 1.0, 0.0)

    def _raw(self, params: PyTree, observation: jax.Array, action: jax.Array) -> jax.Array:
        if self.input == "none":
            return params.sum(axis=-1) if self._copies > 1 else params
        inputs = jnp.concatenate([observation, action]) if self.input == "state_action" else observation
        return self._start() + apply(self._network, params, inputs)

    def _semidefinite(self, raw: jax.Array) -> jax.Array:
        if self.kind != "full":
            if self.normalize and self._activation is jnp.exp:
                raw = raw - jax.lax.stop_gradient(jnp.max(raw))  # a common factor, which cancels: without it exp overflows
            weights = self._activation(raw)
            return weights[0] if self.kind == "scalar" else weights
        factor = jnp.zeros((self.size, self.size), raw.dtype).at[jnp.tril_indices(self.size)].set(raw)
        return factor @ factor.T

    def _normalized(self, matrix: jax.Array) -> jax.Array:
        if not self.normalize:
            return matrix
        return matrix * (self.size**0.5 / jnp.linalg.norm(self.diagonal(matrix)))


class FactorMetric(Metric):
    """Λ_φ(x) = L(x)L(x)ᵀ + e^c I, L(x) of a network and c learned: the metric of the decision tasks (section 4.2).

    Args:
        size: n.
        input_size: length of the features x of one row.
        hidden: layers of the network.
    """

    def __init__(self, size: int, input_size: int, hidden: Sequence[int] = (200,)):
        super().__init__(size, 0, "full", "state", normalize=False, hidden=hidden)
        self._input_size = input_size
        self._factor = UniformMLP(tuple(hidden), size * size)

    def init(self, key: jax.Array) -> PyTree:
        """Parameters φ: c = 0, and a small random L, for at L = 0 its gradient vanishes. `key` is consumed."""
        return {"factor": self._factor.init(key, jnp.zeros(self._input_size)), "log_identity": jnp.zeros(())}

    def __call__(self, params: PyTree, observation: jax.Array, action: jax.Array) -> jax.Array:
        """Λ_φ(x) for the features (input_size,) of one row; `action` is not looked at."""
        factor = apply(self._factor, params["factor"], observation).reshape(self.size, self.size)
        return factor @ factor.T + jnp.exp(params["log_identity"]) * jnp.eye(self.size, dtype=factor.dtype)
