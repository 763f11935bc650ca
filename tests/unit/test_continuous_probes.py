"""Every method solves every continuous probe environment; the first that fails says what is broken."""

from __future__ import annotations

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.probes import BOX_PROBES, PROBES, DiscountedRewardBox, MatchObservationBox, WalkBox
from mbrl_taskmet.rl.environment import Environment
from mbrl_taskmet.rl.make import make_method
from mbrl_taskmet.rl.methods import METHODS
from mbrl_taskmet.rl.settings import Config
from mbrl_taskmet.rl.training import Result, train

# A low temperature, which stays, because under a high one it pays to walk about for ever. Faster and smaller networks than the
# defaults, because the problems are tiny and the steps few.
SETTINGS: dict[str, Any] = {
    "critic": "sac", "seeds": 3, "steps": 1500, "eval_every": 1500, "eval_episodes": 100, "random_steps": 256,
    "batch_size": 64, "critic_lr": 3e-3, "actor_lr": 3e-3, "q_hidden": 32, "actor_hidden": 32, "model_lr": 3e-3, "tau": 0.05,
    "temperature": 1e-3, "temperature_lr": 0.0,
}  # fmt: skip

# A probe is mostly compilation, so only the papers' methods run by default.
EVERY_METHOD = pytest.mark.parametrize(
    "method",
    [pytest.param(name, marks=() if name in ("mle", "omd", "taskmet") else pytest.mark.slow) for name in METHODS],
)


def run(env: Environment, method: str) -> tuple[Any, Result]:
    """The critic and what three seeds learned."""
    config = Config(method=method, **SETTINGS, **({"metric_warmup": 500} if method == "taskmet" else {}))
    return make_method(env, config.resolve(env.action_space)).critic, train(env, config)


@EVERY_METHOD
def test_a_later_reward_is_discounted_through_the_model(method: str) -> None:
    critic, result = run(DiscountedRewardBox(), method)
    observations, actions = jnp.array([0.0, 0, 0, 1, 1, 1])[:, None], jnp.array([-0.9, 0, 0.9] * 2)[:, None]

    def values(learner: Any) -> jax.Array:
        seen = learner.normalized(observations)
        return critic.action_values(learner.critic.params, seen, actions).mean(axis=0)

    seeds = [jax.tree.map(lambda leaf, seed=seed: leaf[seed], result.learner) for seed in range(3)]
    median = np.median([values(learner) for learner in seeds], axis=0)  # one seed in some fails: see `test_probes`
    print(method, median, result.returns)
    np.testing.assert_allclose(median, [0.99] * 3 + [1.0] * 3, atol=0.1)


@EVERY_METHOD
def test_the_action_follows_the_observation(method: str) -> None:
    _, result = run(MatchObservationBox(), method)
    print(method, result.returns)
    assert np.median(result.returns) > 0.9  # chance is 0, with a standard error of 0.06 over 100 episodes


@EVERY_METHOD
def test_the_goal_is_reached_through_the_learned_dynamics(method: str) -> None:
    _, result = run(WalkBox(), method)
    print(method, result.returns)
    assert np.median(result.returns) > 0.9  # chance is 0 by symmetry
