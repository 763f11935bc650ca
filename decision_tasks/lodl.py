"""Locally optimised decision losses (Shah et al. 2022): of each training instance, a quadratic that imitates its task loss.

ψ = argmin E_δ (‖δᵀ tril(ψ)‖² − [g(decide(y), y) − g(decide(y + δ), y)])²,      δ ~ N(0, std²)
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax

from decision_tasks.base import Data, Task, value_of_decisions

STEPS = 100
BOUND = 100.0
_AT_ONCE = 50  # decisions that are solved in one batch
_SHARES = 10  # parts of the samples that Adam's steps take in turn


def quadratic_loss(psi: jax.Array, error: jax.Array) -> jax.Array:
    """‖δᵀ tril(ψ)‖² of one instance: ψ (n, n), error δ (n,) over all its items and targets; scalar."""
    return jnp.sum((error @ jnp.tril(psi)) ** 2)


def fit_losses(task: Task, key: jax.Array, train: Data, samples: int, std: float | None = None) -> jax.Array:
    """ψ (instances, n, n), n = items × targets, by 100 Adam steps from the best multiple of the identity. `key` is consumed."""
    spread = std or task.lodl_std or jnp.std(train.y)

    def fit_one(inputs: tuple[jax.Array, Data]) -> jax.Array:
        key, instance = inputs
        errors = spread * jax.random.normal(key, (samples, *instance.y.shape))
        regrets = _regrets(task, instance, errors)
        return _fit(errors.reshape(samples, -1), regrets, task.lodl_learning_rate)

    return jax.lax.map(fit_one, (jax.random.split(key, train.x.shape[0]), train))


def _regrets(task: Task, instance: Data, errors: jax.Array) -> jax.Array:
    """What deciding on y + δ loses, (samples,)."""

    def value(error: jax.Array) -> jax.Array:
        return value_of_decisions(task, instance.y + error, instance.y, instance.given)

    return value(jnp.zeros_like(instance.y)) - jax.lax.map(value, errors, batch_size=min(_AT_ONCE, len(errors)))


def _fit(errors: jax.Array, regrets: jax.Array, learning_rate: float) -> jax.Array:
    size, optimizer = errors.shape[1], optax.adam(learning_rate)
    share = max(len(errors) // _SHARES, 1)
    scale = jnp.sum(regrets * jnp.sum(errors**2, 1)) / jnp.sum(jnp.sum(errors**2, 1) ** 2)
    psi = jnp.sqrt(jnp.maximum(scale, 1e-12)) * jnp.eye(size)

    def loss(psi: jax.Array, errors: jax.Array, regrets: jax.Array) -> jax.Array:
        return jnp.mean((jax.vmap(quadratic_loss, (None, 0))(psi, errors) - regrets) ** 2)

    def advance(carry: tuple[jax.Array, optax.OptState], i: jax.Array) -> tuple[tuple[jax.Array, optax.OptState], None]:
        psi, state = carry
        first = (i * share) % (len(errors) - share + 1)
        part = (jax.lax.dynamic_slice_in_dim(values, first, share) for values in (errors, regrets))
        updates, state = optimizer.update(jax.grad(loss)(psi, *part), state)
        return (jnp.clip(optax.apply_updates(psi, updates), -BOUND, BOUND), state), None

    (psi, _), _ = jax.lax.scan(advance, (psi, optimizer.init(psi)), jnp.arange(STEPS))
    return psi
