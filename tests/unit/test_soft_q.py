"""The soft double-Q critic against hand-computed values."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mbrl_taskmet.rl.critics import SoftQ, SoftQSettings
from mbrl_taskmet.rl.critics.soft_q import SoftQBootstrap, SoftQState
from mbrl_taskmet.rl.replay import Transitions
from mbrl_taskmet.rl.spaces import Discrete

N, ACTIONS, BATCH = 3, 4, 6
DISCOUNT, TEMPERATURE = 0.9, 0.5


def linear(**settings: Any) -> SoftQ:
    """A critic whose heads are linear."""
    given = {"temperature": TEMPERATURE, "discount": DISCOUNT, "layer_norm": False, "policy": "critic"}
    return SoftQ(N, Discrete(ACTIONS), SoftQSettings(**given | settings), layers=0)


CRITIC = linear()
start = jax.jit(CRITIC.init)
target = jax.jit(lambda params, steps: CRITIC.target(SoftQBootstrap(params, jax.random.key(0)), steps))


def init(key: jax.Array) -> Any:
    """New parameters."""
    return start(key).params


def constant(first: list[float], second: list[float]) -> Any:
    """Parameters of two heads whose values are these in every state."""
    zeros = jax.tree.map(jnp.zeros_like, init(jax.random.key(0)))
    return jax.tree.map(lambda leaf: jnp.array([first, second]) if leaf.shape == (2, ACTIONS) else leaf, zeros)


def batch() -> Transitions:
    rng = np.random.default_rng(0)
    observation, following = jnp.array(rng.normal(size=(2, BATCH, N)), dtype=jnp.float32)
    return Transitions(
        observation=observation,
        action=jnp.eye(ACTIONS)[np.arange(BATCH) % ACTIONS],
        reward=jnp.array(rng.normal(size=BATCH), dtype=jnp.float32),
        terminated=jnp.array([0.0, 0, 1, 0, 1, 0]),
        next_observation=following,
    )


def soft(values: np.ndarray) -> float:
    return float(TEMPERATURE * np.log(np.exp(values / TEMPERATURE).sum()))


def test_the_target_takes_the_smaller_head_of_each_action_before_the_soft_value() -> None:
    first, second = [1.0, 5.0, 2.0, 0.0], [3.0, 2.0, 2.5, -1.0]
    smaller = soft(np.minimum(first, second))
    assert abs(smaller - min(soft(np.array(first)), soft(np.array(second)))) > 0.1  # the other order would show
    steps = batch()
    truth = np.array(steps.reward) + DISCOUNT * (1 - np.array(steps.terminated)) * smaller
    np.testing.assert_allclose(target(constant(first, second), steps), truth, rtol=1e-5)  # float32


def test_layer_norm_bounds_the_values_far_from_the_data() -> None:
    plain, bounded = (SoftQSettings(hidden=8, layer_norm=norm).make(N, Discrete(ACTIONS)) for norm in (False, True))
    far = 1e6 * jnp.ones(N)
    sizes = [
        float(jnp.max(jnp.abs(jax.jit(critic.action_values)(critic.init(jax.random.key(0)).params, far))))
        for critic in (plain, bounded)
    ]
    # normalised units have length √8, the ReLU shortens it, and the last layer, orthogonal, has gain .01
    assert sizes[1] <= 0.01 * 8**0.5 < 100 < sizes[0]


def test_a_prediction_is_the_value_of_the_action_taken_by_both_heads() -> None:
    params, steps = init(jax.random.key(1)), batch()
    taken = np.argmax(steps.action, axis=-1)
    truth = jax.jit(CRITIC.action_values)(params, steps.observation)[:, np.arange(BATCH), taken]
    np.testing.assert_allclose(jax.jit(CRITIC.predict)(params, steps), truth, rtol=1e-6)  # float32
    assert jnp.all(truth[0] != truth[1])  # two networks, not one twice


def test_the_loss_is_the_squared_bellman_error_of_both_heads() -> None:
    steps, target_params = batch(), init(jax.random.key(2))
    y = np.array(target(target_params, steps))
    loss = jax.jit(CRITIC.loss)(
        constant([1.0] * ACTIONS, [2.0] * ACTIONS), SoftQBootstrap(target_params, jax.random.key(0)), steps
    )
    assert loss == pytest.approx(np.mean((1 - y) ** 2) + np.mean((2 - y) ** 2), rel=1e-5)  # float32


def test_the_target_passes_gradients_to_the_models_reward_and_to_next_states_that_do_not_end() -> None:
    params, steps = init(jax.random.key(3)), batch()

    def total(reward: jax.Array, following: jax.Array) -> jax.Array:
        return jnp.sum(target(params, steps._replace(reward=reward, next_observation=following)))

    by_reward, by_state = jax.jit(jax.grad(total, argnums=(0, 1)))(steps.reward, steps.next_observation)
    np.testing.assert_array_equal(by_reward, 1)
    np.testing.assert_array_equal(np.any(by_state != 0, axis=-1), steps.terminated == 0)


@pytest.mark.parametrize("epsilon", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("policy", ["critic", "target"])
def test_acts_by_the_softmax_of_the_mean_head_mixed_with_chance(epsilon: float, policy: str) -> None:
    params, draws = constant([0.0, 1.0, 0.2, 0.0], [0.4, 0.0, 1.0, 0.0]), 20_000
    other = constant([3.0, 0.0, 0.0, 0.0], [3.0, 0.0, 0.0, 0.0])
    state = SoftQState(*((params, (), other) if policy == "critic" else (other, (), params)))
    # ε while exploring; the best known actions are those of ε = 0, and blind ones of ε = 1
    how = {0.0: {}, 0.3: {"explore": True}, 1.0: {"random": True}}[epsilon]
    act = jax.jit(jax.vmap(partial(linear(epsilon=0.3, policy=policy).act, **how), in_axes=(None, 0, None)))
    frequency = np.bincount(act(state, jax.random.split(jax.random.key(4), draws), np.ones(N)), minlength=ACTIONS) / draws
    mean = np.exp(np.array([0.2, 0.5, 0.6, 0.0]) / TEMPERATURE)
    truth = (1 - epsilon) * mean / mean.sum() + epsilon / ACTIONS
    np.testing.assert_allclose(frequency, truth, atol=0.015)  # more than four standard errors of 20 000 draws


def test_an_action_is_encoded_one_hot() -> None:
    encoded = CRITIC.action_space.encode(jnp.arange(ACTIONS))
    np.testing.assert_array_equal(encoded, np.eye(ACTIONS))
    np.testing.assert_array_equal(CRITIC.action_space.decode(encoded), np.arange(ACTIONS))
