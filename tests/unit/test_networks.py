"""The networks: how they start, and what they compute."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mbrl_taskmet.core.networks import MLP
from mbrl_taskmet.rl.model import Model, ModelSettings

KEY = jax.random.key(0)


def weights(params: dict, layer: int) -> tuple[np.ndarray, np.ndarray]:
    values = params["params"][f"Dense_{layer}"]
    return np.array(values["kernel"]), np.array(values["bias"])


@pytest.mark.parametrize("inputs", [3, 20])
def test_hidden_layers_start_orthogonal_with_gain_root_two_and_the_last_with_a_hundredth(inputs: int) -> None:
    params = jax.jit(MLP((8, 8), 4).init)(KEY, jnp.zeros(inputs))
    for layer, gain in enumerate((2**0.5, 2**0.5, 0.01)):
        kernel, bias = weights(params, layer)
        gram = kernel @ kernel.T if kernel.shape[0] < kernel.shape[1] else kernel.T @ kernel
        np.testing.assert_allclose(gram, gain**2 * np.eye(len(gram)), atol=1e-5 * gain**2)  # float32
        np.testing.assert_array_equal(bias, 0)


def test_a_network_is_relu_between_affine_layers() -> None:
    network, x = MLP((5,), 2), np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)
    params = jax.tree.map(lambda leaf: leaf + 0.1, jax.jit(network.init)(KEY, x[0]))
    (first, first_bias), (last, last_bias) = weights(params, 0), weights(params, 1)
    truth = np.maximum(x @ first + first_bias, 0) @ last + last_bias
    np.testing.assert_allclose(jax.jit(network.apply)(params, x), truth, rtol=1e-5, atol=1e-6)  # float32


def test_layer_norm_brings_the_hidden_units_of_a_row_to_mean_0_and_variance_1_before_the_relu() -> None:
    network, x = MLP((5,), 2, layer_norm=True), np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)
    params = jax.jit(network.init)(KEY, x[0])
    (first, _), (last, _) = weights(params, 0), weights(params, 1)
    units = x @ first
    units = (units - units.mean(axis=1, keepdims=True)) / units.std(axis=1, keepdims=True)
    # the layer adds 1e-6 to a variance of about 1
    np.testing.assert_allclose(jax.jit(network.apply)(params, x), np.maximum(units, 0) @ last, rtol=1e-4, atol=1e-6)


def test_without_hidden_layers_a_network_is_affine() -> None:
    network, x = MLP((), 2), np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)
    params = jax.jit(network.init)(KEY, x[0])
    kernel, bias = weights(params, 0)
    np.testing.assert_allclose(jax.jit(network.apply)(params, x), x @ kernel + bias, rtol=1e-5, atol=1e-6)  # float32


def test_the_model_predicts_a_batch_as_its_rows() -> None:
    model, rng = Model(3, 2, ModelSettings(hidden=8)), np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: leaf + 0.1, jax.jit(model.init)(KEY))
    observation, action = rng.normal(size=(5, 3)).astype(np.float32), np.eye(2, dtype=np.float32)[[0, 1, 0, 1, 1]]
    predict_states, predict_rewards = jax.jit(model.next_observation), jax.jit(model.reward)
    states = predict_states(params.dynamics, observation, action)
    rewards = predict_rewards(params.reward, observation, action)
    assert states.shape == (5, 3) and rewards.shape == (5,)
    for i in range(5):
        row = observation[i], action[i]
        np.testing.assert_allclose(states[i], predict_states(params.dynamics, *row), rtol=1e-5)  # float32
        np.testing.assert_allclose(rewards[i], predict_rewards(params.reward, *row), rtol=1e-5)


def test_the_model_depends_on_the_action_and_the_seed() -> None:
    model, observation = Model(3, 2, ModelSettings(hidden=8)), jnp.ones(3)
    predict = jax.jit(lambda key, action: model.next_observation(model.init(key).dynamics, observation, action))
    start, other_action, other_seed = (
        predict(KEY, jnp.eye(2)[0]),
        predict(KEY, jnp.eye(2)[1]),
        predict(jax.random.key(1), jnp.eye(2)[0]),
    )
    assert np.any(np.array(start != other_action)) and np.any(np.array(start != other_seed))


def test_under_x64_every_parameter_is_float64(x64: None) -> None:
    params = jax.eval_shape(Model(3, 2, ModelSettings(hidden=8)).init, KEY)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {np.dtype(np.float64)}
