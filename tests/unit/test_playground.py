"""MuJoCo Playground behind the contract, where it is installed: `pip install -c constraints.txt '.[playground]'`."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest

from envs.film import episode
from envs.make import make_environment
from mbrl_taskmet import Box, Config, ConfigError
from mbrl_taskmet.rl.training import train

pytest.importorskip("mujoco_playground")

SMALL: dict[str, Any] = {"method": "mle", "steps": 20, "eval_every": 10, "eval_episodes": 1, "random_steps": 8,
                         "batch_size": 8, "model_hidden": 4, "q_hidden": 4}  # fmt: skip


def test_it_keeps_the_contract_and_trains() -> None:
    env = make_environment("CartpoleBalance", 2, suite="playground")
    assert (env.observation_size, env.max_episode_steps, env.action_space) == (7, 1000, Box((-1.0,), (1.0,)))
    recording = episode(env, lambda key, observation: env.action_space.sample(key), jax.random.key(0))
    assert len(recording.observations) == 1001 and np.ptp(recording.observations, axis=0).min() > 0
    assert np.all(np.isfinite(train(env, Config(**SMALL)).returns))


@pytest.mark.parametrize("name", ["CartpoleBalanse", "Go1Getup"])
def test_what_is_not_of_the_control_suite_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=f"unknown environment '{name}'; did you mean '.*'. playground has AcrobotSwingup, "):
        make_environment(name, suite="playground")
