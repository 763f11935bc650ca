"""What is ours of the optimisers, against closed forms and optax."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mbrl_taskmet.core.optimizers import critic_optimizer, first_adam, inverse_sqrt, model_optimizer, sparse
from mbrl_taskmet.rl.critics import SoftQ, SoftQSettings
from mbrl_taskmet.rl.model import Model, ModelParams, ModelSettings
from mbrl_taskmet.rl.spaces import Discrete


def new_model() -> ModelParams:
    return Model(4, 2, ModelSettings(hidden=5)).init(jax.random.key(0))


@pytest.mark.parametrize("name", ["adam", "first_adam"])
def test_the_critics_sparsity_shrinks_the_small_rows_of_its_first_kernel_and_nothing_else(name: str) -> None:
    params = SoftQ(4, Discrete(2), SoftQSettings(hidden=3)).init(jax.random.key(0)).params
    kernel = np.full((2, 4, 3), [[0.4], [0.2], [0.1], [1e-3]], np.float32)
    params["params"]["Dense_0"]["kernel"] = jnp.asarray(kernel)
    optimizer = critic_optimizer(name, 1e-2, 0.5)
    updates, _ = optimizer.update(jax.tree.map(jnp.zeros_like, params), optimizer.init(params), params)
    new = kernel + updates["params"]["Dense_0"].pop("kernel")
    # from half of the largest on a row is left alone, at a quarter it loses half of .01·.5, and what is smaller is 0
    expected = np.full((2, 4, 3), [[0.4], [0.2], [0.0975], [0.0]])
    np.testing.assert_allclose(new, expected, rtol=1e-5, atol=1e-7)  # float32
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(updates))


def test_the_inverse_square_root_schedule_and_its_absence() -> None:
    schedule = inverse_sqrt(0.3, 100)
    assert callable(schedule)
    np.testing.assert_allclose([schedule(jnp.int32(count)) for count in (0, 300, 9900)], [0.3, 0.15, 0.03], rtol=1e-6)
    assert inverse_sqrt(0.3, 0) == 0.3


def test_first_adam_is_adams_first_step_every_time() -> None:
    params = {"a": jnp.ones(3), "b": jnp.zeros(())}
    adam, ours = optax.adam(1e-3), first_adam(1e-3)
    state = ours.init(params)
    # around Adam's ε of 1e-8 the step is no longer lr·sign(g)
    for scale in (1.0, 1e-3, 1e-8, 0.0):
        gradient = {"a": scale * jnp.array([1.0, -2.0, 30.0]), "b": jnp.float32(-scale)}
        truth, _ = adam.update(gradient, adam.init(params), params)
        update, state = ours.update(gradient, state, params)
        # Adam squares and roots what we take the absolute value of; 1e-16 squared is subnormal-free in float32
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), update, truth)


def test_sparse_shrinks_the_dynamics_small_first_rows_and_last_columns_and_nothing_else() -> None:
    params = new_model()
    kernels = params.dynamics["params"]
    kernels["Dense_0"]["kernel"] = kernels["Dense_0"]["kernel"].at[1].set(1e-4).at[2].set(0.0).at[3].multiply(0.3)
    kernels["Dense_2"]["kernel"] = kernels["Dense_2"]["kernel"].at[:, 0].multiply(30.0)
    optimizer = sparse(2e-3, {"Dense_0": -1, "Dense_2": -2}, "dynamics")
    gradient = jax.tree.map(lambda x: jnp.full_like(x, 1e-5), params)
    updates, _ = optimizer.update(gradient, optimizer.init(params), params)
    new = optax.apply_updates(params, updates)

    def sizes(weights: Any, axis: int) -> Any:
        return np.sqrt(np.mean(np.square(weights), axis=axis))

    for layer, axis in (("Dense_0", 1), ("Dense_2", 0)):
        before, after = (tree.dynamics["params"][layer]["kernel"] for tree in (params, new))
        size = sizes(before + 1e-5, axis)
        expected = np.maximum(size - 2e-3 * np.maximum(0, 1 - size / (0.5 * size.max())), 0)
        assert np.any(expected == size) and np.any(expected < size)
        np.testing.assert_allclose(sizes(after, axis), expected, rtol=1e-4, atol=1e-8)  # float32, of a difference
        assert np.all(np.sum(before * after, axis) >= 0)
    assert not np.any(new.dynamics["params"]["Dense_0"]["kernel"][1:3])  # what was smaller is 0, and 0 gives no NaN
    for layer in ("Dense_0", "Dense_2"):
        for tree in (updates, gradient):
            del tree.dynamics["params"][layer]["kernel"]
    jax.tree.map(np.testing.assert_array_equal, updates, gradient)


def test_sparse_leaves_a_kernel_of_zeros() -> None:
    params = {"params": {"Dense_0": {"kernel": jnp.zeros((3, 2))}}}
    updates, _ = sparse(1e-3, {"Dense_0": -1}).update(params, optax.EmptyState(), params)
    np.testing.assert_array_equal(updates["params"]["Dense_0"]["kernel"], 0)


@pytest.mark.parametrize("name", ["adam", "first_adam"])
def test_the_models_sparsity_is_in_learning_rates(name: str) -> None:
    params = jax.tree.map(jnp.zeros_like, new_model())
    kernels = params.dynamics["params"]
    kernels["Dense_0"]["kernel"] = jnp.ones((6, 5)).at[0].set(4)
    kernels["Dense_1"]["kernel"] = jnp.ones((5, 5)).at[0].set(4)
    kernels["Dense_2"]["kernel"] = jnp.ones((5, 4)).at[:, 0].set(4)
    optimizer = model_optimizer(name, 1e-2, 0.5, hidden_layers=2)
    updates, _ = optimizer.update(jax.tree.map(jnp.zeros_like, params), optimizer.init(params), params)
    steps = {layer: leaves["kernel"] for layer, leaves in updates.dynamics["params"].items()}
    # a quarter of the largest loses half of .01·.5
    np.testing.assert_allclose(
        steps["Dense_0"], np.where(np.arange(6)[:, None] == 0, 0, -2.5e-3) * np.ones(5), rtol=1e-4
    )  # float32
    np.testing.assert_allclose(steps["Dense_2"], np.where(np.arange(4) == 0, 0, -2.5e-3) * np.ones((5, 1)), rtol=1e-4)
    assert not np.any(steps["Dense_1"])


def test_without_sparsity_the_models_optimiser_is_optaxs() -> None:
    params = new_model()
    ours, adam = model_optimizer("adam", 1e-2, 0.0, hidden_layers=2), optax.adam(1e-2)
    assert jax.tree.structure(ours.init(params)) == jax.tree.structure(adam.init(params))
    for a, b in zip(jax.tree.leaves(ours.update(params, ours.init(params), params)),
                    jax.tree.leaves(adam.update(params, adam.init(params), params)), strict=True):  # fmt: skip
        np.testing.assert_array_equal(a, b)
