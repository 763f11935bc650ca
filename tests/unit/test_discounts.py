"""TaskMet with task losses at several discount factors, each with a critic of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from mbrl_taskmet.core.linear_solve import Dense
from mbrl_taskmet.core.settings import ConfigError
from mbrl_taskmet.rl.critics.discounts import Discounts, DiscountsState
from mbrl_taskmet.rl.methods.taskmet import TaskMetSettings
from mbrl_taskmet.rl.model import ModelSettings
from tests.small_problem import CRITIC, KEY, draw, make_metric, make_taskmet, start

PyTree = Any
PARTS: dict[str, Any] = {"solver": Dense(), "critic_solver": Dense()}


def test_the_metric_gradient_is_the_weighted_sum_of_those_of_each_critic(
    x64: None, relative_error: Callable[..., float]
) -> None:
    one = make_taskmet(make_metric(), **PARTS)
    both = make_taskmet(make_metric(), task_discounts=(0.3,), task_weights=(2.0, 0.7), **PARTS)
    assert isinstance(both.critic, Discounts) and [c.settings.discount for c in both.critic.critics] == [0.9, 0.3]
    learner, batch = start(one)
    first = learner.critic
    second = first._replace(params=draw(first.params, 12), target_params=draw(first.target_params, 13))
    together, _ = jax.jit(both.metric_gradient)(learner._replace(critic=DiscountsState((first, second))), batch, KEY)

    def alone(number: int, state: Any) -> PyTree:
        method = make_taskmet(make_metric(), **PARTS)
        object.__setattr__(method, "critic", both.critic.critics[number])
        return jax.jit(method.metric_gradient)(learner._replace(critic=state), batch, KEY)[0]

    wanted = jax.tree.map(lambda a, b: 2.0 * a + 0.7 * b, alone(0, first), alone(1, second))
    # each is a solve of its own, so they agree to rounding times the condition of the critics' Hessians
    assert relative_error(together, wanted) < 1e-8


def test_each_critic_learns_as_it_would_alone_and_the_first_acts(x64: None) -> None:
    both = Discounts(CRITIC, (0.3,), (1.0, 0.0))  # what a critic learns is not weighed
    _, batch = start(make_taskmet(make_metric()))
    state = both.init(KEY)
    moved = jax.jit(lambda state: both.update(state, both.bootstrap(state, KEY), batch, batch, KEY))(state)
    for critic, before, after in zip(both.critics, state.each, moved.each, strict=True):
        alone = jax.jit(critic.update)(before, critic.bootstrap(before, KEY), batch, batch, KEY)
        assert jax.tree.all(jax.tree.map(lambda a, b: jnp.allclose(a, b, rtol=1e-12, atol=1e-14), alone, after))
    assert not jnp.array_equal(*(jax.tree.leaves(one.params)[0] for one in moved.each))
    observation = batch.observation[0]
    assert jnp.array_equal(both.act(moved, KEY, observation), CRITIC.act(moved.each[0], KEY, observation))


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"task_weights": (1.0,)}, "--task-weights is .* give --task-discounts"),
        ({"task_discounts": (0.9,), "task_weights": (1.0,)}, "one weight more than there are"),
        ({"task_discounts": (0.9,), "task_weights": (0.0, 0.0)}, "give one above 0"),
        ({"task_discounts": (0.9,), "metric_shared": True}, "--metric-shared is for one critic"),
        ({"task_discounts": (0.9,), "model": ModelSettings(horizon=2)}, "--horizon 2 is for one critic"),
    ],
)
def test_what_contradicts_several_discount_factors_is_refused(given: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        TaskMetSettings(**given).check()
