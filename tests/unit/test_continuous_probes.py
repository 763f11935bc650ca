"""Every method solves every continuous probe environment; the first that fails says what is broken."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.probes import DiscountedRewardBox, MatchObservationBox, WalkBox
from mbrl_taskmet.rl.environment import Environment
from mbrl_taskmet.rl.make import make_method
from mbrl_taskmet.rl.methods import METHODS
from mbrl_taskmet.rl.settings import Config
from mbrl_taskmet.rl.training import Result, train

# A low temperature, which stays, because under a high one it pays to walk about for ever. A low discount, because near 1 the
# values that OMD's model invents at its start hold themselves up, and it then walks about for ever too. A faster critic and
# smaller networks than the defaults, because the problems are tiny and the steps few.
SETTINGS: dict[str, Any] = {
    "critic": "sac", "seeds": 3, "steps": 2000, "eval_every": 2000, "eval_episodes": 100, "random_steps": 256,
    "batch_size": 64, "critic_lr": 3e-3, "actor_lr": 3e-3, "q_hidden": 32, "actor_hidden": 32, "tau": 0.05,
    "temperature": 1e-3, "temperature_lr": 0.0, "discount": 0.8, "q_sparsity": 0.0, "model_sparsity": 0.0,
}  # fmt: skip
PLAIN = {"q_layer_norm": False, "normalize_observations": False, "model_lr": 1e-3}  # compiles in less time


def every_method(*default: str) -> pytest.MarkDecorator:
    """All methods; a probe is mostly compilation, so only those of `default` run by default: each of the papers' somewhere."""
    names = [pytest.param(name, marks=() if name in default else pytest.mark.slow) for name in METHODS]
    return pytest.mark.parametrize("method", names)


def run(env: Environment, method: str, **more: Any) -> tuple[Any, Result]:
    """The critic and what three seeds learned; medians count, for OMD and VEP fail in one of some: see `test_probes`."""
    config = Config(method=method, **SETTINGS, **more, **({"metric_warmup": 500} if method == "taskmet" else {}))
    return make_method(env, config.resolve(env.action_space)).critic, train(env, config)


@every_method("mle", "omd")
def test_a_later_reward_is_discounted_through_the_model(method: str) -> None:
    critic, result = run(DiscountedRewardBox(), method, **PLAIN)
    observations, actions = jnp.array([0.0, 0, 0, 1, 1, 1])[:, None], jnp.array([-0.9, 0, 0.9] * 2)[:, None]
    values = jax.vmap(lambda params: critic.action_values(params, observations, actions).mean(axis=0))
    median = np.median(values(result.learner.critic.params), axis=0)
    # without discount or bootstrap a value would be off by 0.2 or more
    np.testing.assert_allclose(median, [0.8] * 3 + [1.0] * 3, atol=0.15)


@every_method("taskmet")
def test_the_action_follows_the_observation(method: str) -> None:
    _, result = run(MatchObservationBox(), method, **PLAIN)
    assert np.median(result.returns) > 0.9  # chance is 0, with a standard error of 0.06 over 100 episodes


@every_method("mle", "taskmet")
def test_the_goal_is_reached_through_the_learned_dynamics(method: str) -> None:
    _, result = run(WalkBox(), method, model_lr=3e-3)
    assert np.median(result.returns) > 0.9  # chance is 0 by symmetry
