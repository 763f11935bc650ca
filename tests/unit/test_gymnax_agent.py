"""The agent on every registered gymnax environment that it can run, on one of one's own, and its refusals and films."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path

import gymnax
import jax
import numpy as np
import pytest
from PIL import Image

from agents.command import main, parse
from envs.film import DRAWINGS, episode, film_of
from envs.make import make_environment
from mbrl_taskmet import Box, Config, ConfigError, Discrete
from mbrl_taskmet.rl.environment import Environment, EnvironmentSettings, UnsupportedEnvironment
from mbrl_taskmet.rl.training import train

RUNS = ("CartPole-v1", "Acrobot-v1", "MountainCar-v0", "Catch-bsuite", "DeepSea-bsuite", "MemoryChain-bsuite",
        "UmbrellaChain-bsuite", "DiscountingChain-bsuite", "SimpleBandit-bsuite", "FourRooms-misc", "MetaMaze-misc",
        "BernoulliBandit-misc", "GaussianBandit-misc", "Pendulum-v1", "MountainCarContinuous-v0", "PointRobot-misc",
        "Reacher-misc", "Swimmer-misc")  # fmt: skip
CONTINUOUS = RUNS[-5:]
REFUSED = {
    "Asterix-MinAtar": "observes an array of shape (10, 10, 4)",
    "Breakout-MinAtar": "observes an array of shape (10, 10, 4)",
    "Freeway-MinAtar": "observes an array of shape (10, 10, 7)",
    "Seaquest-MinAtar": "observes an array of shape (10, 10, 10)",
    "SpaceInvaders-MinAtar": "observes an array of shape (10, 10, 6)",
    "Pong-misc": "observes an array of shape (30, 40, 3)",
    "FrozenLake-misc": "observes a Discrete",
    "MNISTBandit-bsuite": "cannot be made",  # downloads images where there is a network
}


def test_every_registered_environment_is_run_or_refused() -> None:
    assert set(gymnax.registered_envs) == {*RUNS, *REFUSED}


@pytest.mark.parametrize("name", RUNS)
def test_it_keeps_the_contract_of_an_environment(name: str) -> None:
    env = make_environment(name, distractors=1)
    observations = episode(env, lambda key, observation: env.action_space.sample(key), jax.random.key(0)).observations
    assert observations.shape[1] == len(env.state_names) == env.observation_size - 1
    assert 2 <= len(observations) <= env.max_episode_steps + 1
    assert np.all(np.isfinite(observations))
    assert isinstance(env.action_space, Box if name in CONTINUOUS else Discrete)


# Mostly compilation, a quarter of a minute each: by default one that observes a vector, one that observes a
# board and one that acts by a vector.
TRAINED = [
    pytest.param(name, marks=() if name in ("Acrobot-v1", "Catch-bsuite", "Pendulum-v1") else pytest.mark.slow) for name in RUNS
]


@pytest.mark.parametrize("name", TRAINED)
def test_an_agent_is_trained_on_it(name: str) -> None:
    env = make_environment(name, distractors=1)
    sizes = {"steps": 16, "eval_every": 16, "eval_episodes": 1, "random_steps": 8, "batch_size": 8}
    result = train(env, Config(method="mle", model_hidden=4, q_hidden=4, **sizes))  # type: ignore[arg-type]
    assert np.all(np.isfinite(result.returns)) and result.reports.failed_step[0, -1] == -1
    assert result.reports.model_mse_state[0, -1] > 0


@pytest.mark.parametrize("name", [name for name in REFUSED if name != "MNISTBandit-bsuite"])
def test_what_cannot_work_is_refused_with_the_reason(name: str) -> None:
    with pytest.raises(UnsupportedEnvironment, match=re.escape(f"{name} {REFUSED[name]}")):
        make_environment(name)


class Needy(Environment):
    """Cannot be made without an argument."""

    def __init__(self, size: int):
        self.size = size


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("", "--env is missing; give the name of a gymnax environment, such as Acrobot-v1, or module:Class"),
        ("--env Acrobat-v1", "unknown environment 'Acrobat-v1'; the nearest registered gymnax name is 'Acrobot-v1'"),
        ("--env Pendulum-v1 --critic soft_q", "--critic soft_q is for other actions than Box("),
        (
            "--env Acrobot-v1 --critic sac",
            "--critic sac is for other actions than Discrete(n=3); leave it out, or use",
        ),
        (
            "--env Pendulum-v1 --epsilon 0.2",
            "--epsilon 0.2 does nothing for --critic sac; leave it out, or use",
        ),
        ("--env Acrobot-v1 --disturbance noisy", "--disturbance 'noisy' is unknown; did you mean 'noise'?"),
        ("--env nowhere.at_all:Class", "nowhere.at_all:Class cannot be imported (No module named 'nowhere')"),
        ("--env envs.probes:Wlak", "cannot be imported (module 'envs.probes' has no attribute 'Wlak')"),
        ("--env envs.probes:PROBES", "envs.probes:PROBES is no subclass of mbrl_taskmet.Environment"),
        ("--env needy:Needy", "cannot be made without arguments"),
        ("--env MetaMaze-misc --film", "MetaMaze-misc cannot be drawn, only CartPole-v1,"),
    ],
)
def test_the_command_refuses_in_one_sentence(
    argv: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jax.config, "update", lambda name, value: None)  # JAX has started
    monkeypatch.setitem(sys.modules, "needy", types.SimpleNamespace(Needy=Needy))
    assert main(None, [*argv.split(), "--logdir", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_an_environment_of_ones_own_is_found_by_its_path_and_names_its_directory() -> None:
    env = make_environment("envs.probes:Walk", distractors=2)
    assert (env.name, env.observation_size, env.action_space) == ("Walk with 2 distractors", 3, Discrete(2))
    request = parse(None, ["--env", "envs.probes:Walk"])
    assert request.config.given["env"] == "envs.probes:Walk"
    assert request.directory.name.startswith("envs.probes-walk_d0_taskmet")


def test_a_probe_is_found_by_its_name() -> None:
    assert make_environment("Walk", distractors=2).name == "Walk with 2 distractors"


def test_only_a_fixed_agent_needs_no_environment() -> None:
    assert parse("CartPole-v1", []).config.given["env"] == "CartPole-v1"
    with pytest.raises(ConfigError, match="'--env' is no option"):
        parse("CartPole-v1", ["--env", "Acrobot-v1"])
    with pytest.raises(ConfigError, match="somewhere holds no run"):  # not: --env is missing
        parse(None, ["--resume", "somewhere"])


@pytest.mark.parametrize("name", DRAWINGS)
def test_a_film_shows_an_episode_that_moves(name: str, tmp_path: Path) -> None:
    env = make_environment(name, distractors=2)
    recording = episode(env, lambda key, observation: env.action_space.sample(key), jax.random.key(0))
    assert recording.observations.shape[1] == len(env.state_names)
    assert 2 <= len(recording.observations) <= env.max_episode_steps + 1
    with Image.open(film_of(env, EnvironmentSettings(name=name))(recording, tmp_path)) as film:
        assert 2 <= film.n_frames <= 250
        first = np.asarray(film.convert("L"))
        film.seek(film.n_frames - 1)
        assert first.min() < 128 < first.mean()  # dark on light
        assert np.any(first != np.asarray(film.convert("L")))
    assert [path.name for path in tmp_path.iterdir()] == ["film.gif"]
