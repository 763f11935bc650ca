"""Evaluation: returns of whole episodes, of an environment whose returns are known."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mbrl_taskmet.rl.environment import Environment, State
from mbrl_taskmet.rl.evaluation import evaluate
from mbrl_taskmet.rl.spaces import Discrete


class Ladder(Environment):
    """Starts at 1 or 2 and climbs one rung a step; rung k pays k; the episode ends by itself, or is cut, at `top`."""

    name, state_names, action_space = "ladder", ("rung",), Discrete(2)

    def __init__(self, top: int = 4, limit: int = 100, cut: bool = False):
        self.top, self.max_episode_steps, self.cut = top, limit, cut

    def reset(self, key: jax.Array) -> tuple[State, jax.Array]:
        rung = jax.random.randint(key, (), 1, 3)
        return rung, rung[None].astype(float)

    def transition(self, key: jax.Array, state: State, action: jax.Array) -> tuple[Any, ...]:
        rung = state + action
        end = rung == self.top
        return rung, rung[None].astype(float), rung * 1.0, end & (not self.cut), end & self.cut


def climb(key: jax.Array, observation: jax.Array) -> jax.Array:
    return jnp.int32(1)


def stay(key: jax.Array, observation: jax.Array) -> jax.Array:
    return jnp.int32(0)


@pytest.mark.parametrize("cut", [False, True])
def test_a_return_is_the_sum_of_rewards_up_to_the_end_that_is_included(cut: bool) -> None:
    returns = evaluate(Ladder(cut=cut), climb, jax.random.key(0), 64)
    assert returns.shape == (64,)
    assert set(np.asarray(returns)) == {2.0 + 3 + 4, 3.0 + 4}  # from rung 1, from rung 2


def test_an_episode_that_never_ends_is_cut_at_the_environments_limit() -> None:
    assert set(np.asarray(evaluate(Ladder(limit=7), stay, jax.random.key(0), 64))) == {7.0, 14.0}


def test_the_policy_sees_the_observation_it_acts_on() -> None:
    def up_to_three(key: jax.Array, observation: jax.Array) -> jax.Array:
        return (observation[0] < 3).astype(int)

    returns = evaluate(Ladder(limit=5), up_to_three, jax.random.key(0), 64)
    assert set(np.asarray(returns)) == {2.0 + 3 + 3 + 3 + 3, 5 * 3.0}


def test_the_policys_key_is_another_at_every_step_and_episode() -> None:
    def toss(key: jax.Array, observation: jax.Array) -> jax.Array:
        return jax.random.randint(key, (), 0, 2)

    returns = np.asarray(evaluate(Ladder(top=50, limit=20), toss, jax.random.key(0), 256))
    # 20 fair coins from rung 1 or 2: mean 20·1.5 + 20·21/4 = 135; one deviation of the mean of 256 is about 1.8
    assert abs(returns.mean() - 135) < 9
    assert len(set(returns)) > 50


def test_the_same_key_gives_the_same_returns_and_another_key_others() -> None:
    first, again, other = (evaluate(Ladder(), climb, jax.random.key(seed), 64) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not jnp.array_equal(first, other)
