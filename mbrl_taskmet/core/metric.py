"""Λ_φ, the learned metric on predictions, and the loss it defines (TaskMet eq. 3 and section 3.3).

    Λ ← A(φ)                       positive semi-definite: softplus, exp or 2·sigmoid for scalar and diagonal, LLᵀ for full
    Λ ← Λ · √n / ‖diag Λ‖₂         if normalised, so that the diagonal has the identity's norm
    Λ ← f·I + (1 − f)·Λ            a floor f ∈ [0, 1): no direction is ever forgotten, so a metric cannot collapse
    and normalised again, which keeps the floor: the mixture's diagonal is at most √n long.

A metric of one sample is an array of shape () for a scalar, (n,) for a diagonal, (n, n) for a full matrix. A metric is a value
of its settings; n and m, the lengths of an observation and of an action vector, come with the arguments.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
from typing_extensions import override

from mbrl_taskmet.core.networks import MLP, UniformMLP, apply
from mbrl_taskmet.core.settings import ConfigError, choice, setting
from mbrl_taskmet.core.settings_tree import check_fields

PyTree = Any

_LEAST = 1e-12  # keeps the norm above 0 where every softplus underflows; its square is still a float32
_ACTIVATIONS: dict[str, tuple[Callable[[jax.Array], jax.Array], float]] = {
    "softplus": (jax.nn.softplus, 0.5413248546129181), "exp": (jnp.exp, 0.0),
    "sigmoid": (lambda raw: 2 * jax.nn.sigmoid(raw), 0.0),
}  # fmt: skip
"""By name, and where each is 1: log(e − 1), 0, 0."""


def squared_norm(matrix: Float[Array, ...], error: Float[Array, " n"]) -> Float[Array, ""]:
    """‖z‖²_Λ = zᵀΛz of one error (n,) under one metric of any kind, scalar."""
    return error @ matrix @ error if matrix.ndim == 2 else jnp.sum(matrix * error**2)


def prediction_loss(matrices: Float[Array, "batch ..."], error: Float[Array, "batch n"]) -> Float[Array, ""]:
    """E‖z‖²_Λ (eq. 3) with one metric per row: (batch, …), (batch, n) → scalar."""
    return jnp.mean(jax.vmap(squared_norm)(matrices, error))


@dataclass(frozen=True)
class Unconditional:
    """One metric for all inputs."""

    sees: ClassVar[tuple[str, ...]] = ()


@dataclass(frozen=True)
class State(Unconditional):
    """A metric of each observation, from a network."""

    sees: ClassVar[tuple[str, ...]] = ("observation",)

    hidden: tuple[int, ...] = setting(
        (32, 32), "units in each hidden layer of a conditional metric", flag="metric_hidden", low=1
    )


@dataclass(frozen=True)
class StateAction(State):
    """A metric of each observation and action, from a network."""

    sees: ClassVar[tuple[str, ...]] = ("observation", "action")


INPUTS: dict[str, type[Unconditional]] = {"none": Unconditional, "state": State, "state_action": StateAction}
"""What a metric may be conditioned on, by name."""

Origin = Literal["identity", "published"]
_ORIGIN = "initial metric: the identity, or the published one"
_NORMALIZE = "rescale the metric so that the norm of its diagonal is the identity's"


@dataclass(frozen=True, kw_only=True)
class Metric:
    """Λ_φ(x) on predictions of size n, given inputs x = (observation, action) or nothing.

    Subclasses say how many numbers it is made of, where these start, and what matrix they make.
    """

    input: Unconditional = choice(INPUTS, "none", "inputs of the metric", flag="metric_input")
    normalize: bool = setting(True, _NORMALIZE, flag="normalize")
    floor: float = setting(
        0.5, "share f of the identity in the metric, which bounds its weights from below", flag="metric_floor", low=0, high=0.99
    )

    def __post_init__(self) -> None:
        check_fields(self)

    def check(self) -> None:
        """Raise ConfigError if two settings contradict each other."""

    def start(self, size: int) -> Float[Array, " entries"]:
        """The parameters (entries,) with which the metric is the identity of `size` n."""
        raise NotImplementedError(f"{type(self).__name__} does not say where it starts")

    def semidefinite(self, raw: Float[Array, " entries"], size: int) -> Float[Array, ...]:
        """A(φ), the matrix of the parameters (entries,)."""
        raise NotImplementedError(f"{type(self).__name__} does not say which matrix it is")

    def diagonal(self, matrix: Float[Array, ...], size: int) -> Float[Array, " {size}"]:
        """The diagonal (n,) of one metric."""
        return jnp.broadcast_to(matrix, (size,))

    def init(self, key: jax.Array, size: int, action_size: int) -> PyTree:
        """Parameters φ for n = `size` and m = `action_size`, at the identity unless told otherwise. `key` is consumed."""
        start = self.start(size)
        if not isinstance(self.input, State):
            return start
        inputs = jnp.zeros(sum({"observation": size, "action": action_size}[name] for name in self.input.sees))
        return _network(self.input, start).init(key, inputs)

    def raw(
        self, params: PyTree, observation: Float[Array, " n"], action: Float[Array, " m"]
    ) -> Float[Array, "entries *copies"]:
        """The parameters (entries,) of the metric of one observation (n,) and action (m,); copies are summed."""
        if not isinstance(self.input, State):
            return params
        seen = {"observation": observation, "action": action}
        start = self.start(observation.shape[-1])
        return start + apply(_network(self.input, start), params, jnp.concatenate([seen[name] for name in self.input.sees]))

    def __call__(self, params: PyTree, observation: Float[Array, " n"], action: Float[Array, " m"]) -> Float[Array, ...]:
        """Λ_φ(x) for one observation (n,) and action (m,)."""
        size = observation.shape[-1]
        matrix = self.semidefinite(self.raw(params, observation, action), size)
        identity = jnp.eye(size, dtype=matrix.dtype) if matrix.ndim == 2 else 1.0
        matrix = self._normalized(matrix + _LEAST * identity, size)
        return self._normalized(self.floor * identity + (1 - self.floor) * matrix, size)

    def loss(
        self,
        params: PyTree,
        observation: Float[Array, "batch n"],
        action: Float[Array, "batch m"],
        error: Float[Array, "batch n"],
    ) -> Float[Array, ""]:
        """L_pred = E‖f_θ(x) − y‖²_Λφ(x) (eq. 3): (batch, n), (batch, m), (batch, n) → scalar."""
        return prediction_loss(self.batch(params, observation, action), error)

    def l1(self, params: PyTree, observation: Float[Array, "batch n"], action: Float[Array, "batch m"]) -> Float[Array, ""]:
        """E Σ_ij |Λ_ij|, the L1 penalty on the metric's output, scalar. A scalar metric counts as the matrix λI."""
        matrices, (batch, size) = self.batch(params, observation, action), observation.shape
        copies = size if matrices.ndim == 1 else 1
        return copies * jnp.sum(jnp.abs(matrices)) / batch

    def batch(
        self, params: PyTree, observation: Float[Array, "batch n"], action: Float[Array, "batch m"]
    ) -> Float[Array, "batch ..."]:
        """Λ of every row: (batch, …).

        Raises:
            ValueError: there are not as many observations as actions, or they are no rows.
        """
        if observation.ndim != 2 or action.ndim != 2 or len(observation) != len(action):
            raise ValueError(f"a metric takes rows (batch, n) and (batch, m), not {observation.shape} and {action.shape}")
        return jax.vmap(self, in_axes=(None, 0, 0))(params, observation, action)

    def diagonals(
        self, params: PyTree, observation: Float[Array, "batch n"], action: Float[Array, "batch m"]
    ) -> Float[Array, "batch n"]:
        """Λ's diagonal of every row: (batch, n)."""
        size = observation.shape[-1]
        return jax.vmap(lambda matrix: self.diagonal(matrix, size))(self.batch(params, observation, action))

    def _normalized(self, matrix: jax.Array, size: int) -> jax.Array:
        if not self.normalize:
            return matrix
        return matrix * (size**0.5 / jnp.linalg.norm(self.diagonal(matrix, size)))


@dataclass(frozen=True, kw_only=True)
class Weights(Metric):
    """A metric of positive weights.

    Under the activation exp a step multiplies a weight, as in the exponentiated gradient (Kivinen & Warmuth 1997), which
    singles out few dimensions of many in fewer steps, down to a single one. Under sigmoid a weight is at most twice what it
    starts with: it shuts dimensions out as fast, but none can outgrow the others that matter.
    """

    activation: Literal["softplus", "exp", "sigmoid"] = setting(
        "softplus", "function that makes the weights of a scalar or diagonal metric positive", flag="metric_activation"
    )

    @override
    def start(self, size: int) -> Float[Array, " entries"]:
        return jnp.full(size, _ACTIVATIONS[self.activation][1])

    @override
    def semidefinite(self, raw: Float[Array, " entries"], size: int) -> Float[Array, ...]:
        if self.normalize and self.activation == "exp":
            raw = raw - jax.lax.stop_gradient(jnp.max(raw))  # a common factor, which cancels: without it exp overflows
        return _ACTIVATIONS[self.activation][0](raw)


@dataclass(frozen=True, kw_only=True)
class Scalar(Weights):
    """λI. Normalised it stays 1."""

    normalize: bool = setting(False, _NORMALIZE, flag="normalize")

    @override
    def check(self) -> None:
        if self.normalize:
            raise ConfigError("--metric scalar is 1 for ever under --normalize; add --no-normalize")

    @override
    def start(self, size: int) -> Float[Array, " entries"]:
        return super().start(1)

    @override
    def semidefinite(self, raw: Float[Array, " entries"], size: int) -> Float[Array, ...]:
        return super().semidefinite(raw, size)[0]


@dataclass(frozen=True, kw_only=True)
class Diagonal(Weights):
    """diag(w).

    The published origin has n + m copies of each parameter, all 1, summed before the softplus: an unconditional metric starts
    at about (n + m)·I and moves n + m times faster.
    """

    origin: Origin = setting("identity", _ORIGIN, flag="metric_start")

    @override
    def check(self) -> None:
        if self.origin == "published" and self.activation != "softplus":
            raise ConfigError("--metric-start published is a softplus's; give --metric-activation softplus or leave it out")

    @override
    def init(self, key: jax.Array, size: int, action_size: int) -> PyTree:
        if self.origin == "published" and not isinstance(self.input, State):
            return jnp.ones((size, size + action_size))
        return super().init(key, size, action_size)

    @override
    def raw(self, params: PyTree, observation: Float[Array, " n"], action: Float[Array, " m"]) -> Float[Array, " entries"]:
        numbers = super().raw(params, observation, action)
        return numbers.sum(axis=-1) if numbers.ndim == 2 else numbers


@dataclass(frozen=True, kw_only=True)
class Full(Metric):
    """LLᵀ of a lower-triangular L. The published origin is L = lower-triangular ones."""

    origin: Origin = setting("identity", _ORIGIN, flag="metric_start")

    @override
    def start(self, size: int) -> Float[Array, " entries"]:
        rows, columns = jnp.tril_indices(size)
        return jnp.where((rows == columns) | (self.origin == "published"), 1.0, 0.0)

    @override
    def semidefinite(self, raw: Float[Array, " entries"], size: int) -> Float[Array, ...]:
        factor = jnp.zeros((size, size), raw.dtype).at[jnp.tril_indices(size)].set(raw)
        return factor @ factor.T

    @override
    def diagonal(self, matrix: Float[Array, ...], size: int) -> Float[Array, " {size}"]:
        return jnp.diagonal(matrix)


METRICS: dict[str, type[Metric]] = {"scalar": Scalar, "diagonal": Diagonal, "full": Full}
"""Every metric by its name."""


def _network(input: State, start: jax.Array) -> MLP:
    return MLP(input.hidden, start.size, last_scale=0.0)


@dataclass(frozen=True)
class FactorMetric:
    """Λ_φ(x) = L(x)L(x)ᵀ + e^c I, L(x) of a network and c learned: the metric of the decision tasks (section 4.2).

    Attributes:
        size: n.
        input_size: length of the features x of one row.
        hidden: layers of the network.
    """

    size: int
    input_size: int
    hidden: tuple[int, ...] = (200,)

    def init(self, key: jax.Array) -> PyTree:
        """Parameters φ: c = 0, and a small random L, for at L = 0 its gradient vanishes. `key` is consumed."""
        return {"factor": self._network.init(key, jnp.zeros(self.input_size)), "log_identity": jnp.zeros(())}

    def __call__(self, params: PyTree, features: Float[Array, " features"]) -> Float[Array, "n n"]:
        """Λ_φ(x) for the features (input_size,) of one row."""
        factor = apply(self._network, params["factor"], features).reshape(self.size, self.size)
        return factor @ factor.T + jnp.exp(params["log_identity"]) * jnp.eye(self.size, dtype=factor.dtype)

    @property
    def _network(self) -> UniformMLP:
        return UniformMLP(self.hidden, self.size * self.size)
