"""brax behind the contract: episodes that end for the right reason, brax' own steps, refusals, films, and a quiet import."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agents.command import main
from envs.brax import BraxEnvironment
from envs.distractors import Distractors
from envs.film import Recording, episode, film_of
from envs.make import make_environment
from envs.physics import STARTS
from mbrl_taskmet import Box, Config, ConfigError, check_environment
from mbrl_taskmet.core.settings import flag
from mbrl_taskmet.rl.environment import State, Step
from mbrl_taskmet.rl.make import make_method
from mbrl_taskmet.rl.settings import read_saved
from mbrl_taskmet.rl.training import Trainer, train
from mbrl_taskmet.runner.checkpoint import Checkpoints
from mbrl_taskmet.runner.rundir import to_json

ROOT = Path(__file__).parents[2]
NAMES = ("ant", "halfcheetah", "hopper", "humanoid", "humanoidstandup", "inverted_double_pendulum", "pusher", "reacher",
         "walker2d")  # fmt: skip
SMALL: dict[str, Any] = {"method": "mle", "steps": 20, "eval_every": 10, "eval_episodes": 1, "random_steps": 8,
                         "batch_size": 8, "model_hidden": 4, "q_hidden": 4}  # fmt: skip
PUSH = jnp.full(1, 0.5)


@pytest.fixture(scope="module")
def pendulum() -> BraxEnvironment:
    return BraxEnvironment("inverted_pendulum")


class Steps(NamedTuple):
    """The first observation of a run, every step, and the states before them, stacked."""

    first: jax.Array
    after: Step
    states: State


@pytest.fixture(scope="module")
def steps(pendulum: BraxEnvironment) -> Steps:
    """The pendulum pushed to one side, so that it falls again and again, then left alone up to a limit of 30 steps."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pendulum, "max_episode_steps", 30)
        env = check_environment(pendulum)

    def move(state: State, count: jax.Array) -> tuple[State, tuple[Step, State]]:
        following, step = env.step(jax.random.fold_in(jax.random.key(1), count), state, jnp.where(count < 200, PUSH, 0.0))
        return following, (step, state)

    @jax.jit
    def run(key: jax.Array) -> Steps:
        state, first = env.reset(key)
        return Steps(first, *jax.lax.scan(move, state, jnp.arange(300))[1])

    return run(jax.random.key(0))


def test_it_keeps_the_contract(pendulum: BraxEnvironment) -> None:
    env = check_environment(pendulum)
    assert (env.name, env.max_episode_steps, env.action_space) == ("inverted_pendulum", 1000, Box((-1.0,), (1.0,)))
    assert env.state_names == ("cart_position", "pole_angle", "cart_velocity", "pole_velocity")


def test_a_fall_and_a_limit_are_told_apart_and_the_observation_before_the_reset_is_kept(steps: Steps) -> None:
    after = steps.after
    angle = jnp.abs(after.next_observation[:, 1])
    np.testing.assert_array_equal(after.terminated, angle > 0.2)  # which brax calls a time-out in its info
    ends = jnp.flatnonzero(after.terminated | after.truncated)
    np.testing.assert_array_equal(after.truncated[ends], jnp.diff(ends, prepend=-1) == 30)
    assert int(after.terminated.sum()) > 5 and int(after.truncated.sum()) > 1
    np.testing.assert_array_equal(
        jnp.any(after.observation != after.next_observation, axis=1), after.terminated | after.truncated
    )
    assert jnp.abs(after.observation[ends]).max() <= 0.0101  # where brax starts


def test_its_known_termination_is_what_ended_the_episodes(pendulum: BraxEnvironment, steps: Steps) -> None:
    known, after = pendulum.known_termination(), steps.after.next_observation
    assert known is not None
    np.testing.assert_array_equal(known(after, jnp.zeros((len(after), 1)), after), steps.after.terminated)


def test_episodes_start_in_different_states(steps: Steps) -> None:
    first, after, _ = steps
    starts = np.concatenate([first[None], after.observation[after.terminated | after.truncated]])
    assert len(np.unique(starts, axis=0)) > len(starts) / 2 > 3  # two may be the same one of the 1024


def test_a_scan_of_steps_is_what_brax_does_by_hand(pendulum: BraxEnvironment, steps: Steps) -> None:
    first, after, _ = steps
    brax = pendulum._simulator
    (index,) = np.flatnonzero(np.all(pendulum._starts[1] == first, axis=1))
    move = jax.jit(brax.step)
    state = jax.jit(brax.reset)(jax.random.split(jax.random.key(0), STARTS)[index])
    np.testing.assert_allclose(state.obs, first, rtol=1e-6)
    for i in range(int(jnp.argmax(after.terminated)) + 1):
        state = move(state, PUSH)
        np.testing.assert_allclose(after.next_observation[i], state.obs, rtol=1e-4, atol=1e-6)
        assert (float(after.reward[i]), bool(after.terminated[i])) == (float(state.reward), bool(state.done))


def test_a_run_in_float64_sees_float64(pendulum: BraxEnvironment) -> None:
    with jax.enable_x64(True):
        env = check_environment(pendulum)
        step = jax.eval_shape(lambda key: env.step(key, env.reset(key)[0], jnp.zeros(1))[1], jax.random.key(0))
    assert step.next_observation.dtype == step.reward.dtype == np.float64


def test_a_run_resumed_is_the_run_uninterrupted_bit_for_bit(pendulum: BraxEnvironment, tmp_path: Path) -> None:
    env = Distractors(pendulum, 2)
    settings = Config(**SMALL).resolve(env.action_space)
    trainer = Trainer(env, make_method(env, settings), settings)
    carry, _ = trainer.chunk(trainer.init(), 0)
    Checkpoints(tmp_path, trainer).save(10, carry)
    straight = trainer.chunk(carry, 10)
    step, restored = Checkpoints(tmp_path, trainer).restore()
    assert step == 10
    resumed = trainer.chunk(restored, step)
    assert np.all(np.isfinite(straight[1].episode_returns)) and straight[1].failed_step[0] == -1
    for one, other in zip(jax.tree.leaves(straight), jax.tree.leaves(resumed), strict=True):
        keys = jnp.issubdtype(one.dtype, jax.dtypes.prng_key)
        np.testing.assert_array_equal(*(jax.random.key_data(leaf) if keys else leaf for leaf in (one, other)))


def test_a_run_is_resumed_by_the_agent_of_its_suite(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = Config(env="hopper", suite="brax").resolve().names
    assert (names["suite"], names["backend"]) == ("brax", "spring")
    (tmp_path / "config.json").write_text(json.dumps(to_json(names)))
    assert main(None, ["--resume", str(tmp_path)], suite="gymnax") == 2
    assert f"{tmp_path} is a run on hopper of brax; use python -m agents.brax" in capsys.readouterr().err


def test_settings_saved_before_there_were_suites_are_of_gymnax() -> None:
    names = {name: value for name, value in Config(env="Acrobot-v1").resolve().names.items() if name != "suite"}
    assert read_saved({"format": 2, "settings": names}).names["suite"] == "gymnax"


def test_a_film_shows_bodies_that_move(pendulum: BraxEnvironment, steps: Steps, tmp_path: Path) -> None:
    where = Config(env="inverted_pendulum", suite="brax").resolve().environment
    observations = np.concatenate([steps.first[None], steps.after.observation])
    states = steps.states, jax.tree.map(jnp.zeros_like, steps.states)  # as beside a companion that lies still
    path = film_of(Distractors(pendulum, 2), where)(Recording(observations, states), tmp_path)
    assert [path] == list(tmp_path.iterdir()) and path.name == "film.html"
    packed = re.search(r'var system = "([^"]+)"', path.read_text())
    assert packed is not None
    film = json.loads(zlib.decompress(base64.b64decode(packed[1])))
    places = np.array([frame["pos"] for frame in film["states"]["x"]])
    assert places.shape == (300, 2, 3)  # of cart and pole, before each step
    np.testing.assert_allclose(places[:, 0, 0], observations[:-1, 0], atol=1e-5)
    assert np.ptp(places[:, 0, 0]) > 0.1


def test_environments_of_playground_are_not_drawn(pendulum: BraxEnvironment) -> None:
    where = Config(env="CheetahRun", suite="playground").resolve().environment
    with pytest.raises(ConfigError, match="CheetahRun of playground cannot be drawn; leave --film out"):
        film_of(pendulum, where)


def dictionary(backend: str) -> Any:
    """An environment of brax that observes a dictionary."""
    from brax.envs import fast

    return fast.Fast(asymmetric_obs=True, obs_mode=fast.ObservationMode.DICT_STATE)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("", "--env is missing; give the name of a brax environment, such as hopper"),
        ("--env hoper", "unknown environment 'hoper'; did you mean 'hopper'? brax has ant, "),
        ("--env Walk", "unknown environment 'Walk'; did you mean 'walker2d'?"),
        ("--env envs.probes:Walk", "unknown environment 'envs.probes:Walk'"),
        ("--env fast", "unknown environment 'fast'"),
        ("--env hopper --backend string", "--backend 'string' is unknown; did you mean 'spring'? There are spring,"),
        ("--env swimmer", "swimmer does not work with --backend spring (ValueError: Unsupported backend: spring.); give"),
        ("--env dictionary", "dictionary observes a dict and this agent needs a vector"),
        ("--env hopper --suite gymnax", "'--suite' is no option"),
        ("--env hopper --distractors -1", "--distractors is -1; give 0 or more"),
    ],
)
def test_the_command_refuses_in_one_sentence(
    argv: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import brax.envs

    monkeypatch.setitem(brax.envs._envs, "dictionary", dictionary)
    monkeypatch.setattr(jax.config, "update", lambda name, value: None)  # JAX has started
    assert main(None, [*argv.split(), "--logdir", str(tmp_path)], suite="brax") == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suite", ["brax", "playground"])
def test_a_suite_that_is_not_installed_is_named_with_its_extra(suite: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("brax", "mujoco_playground"):
        monkeypatch.setitem(sys.modules, name, None)
    remedy = rf"^{suite} cannot be imported .*; install it with pip install 'mbrl-taskmet\[{suite}\]'$"
    with pytest.raises(ConfigError, match=remedy):
        make_environment("hopper", suite=suite)


def test_the_backend_is_an_option_of_brax_alone(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match=r"--backend spring does nothing for --suite gymnax; .* or use --suite brax"):
        make_environment("CartPole-v1", backend="spring")
    assert main(None, ["--env", "Acrobot-v1", "--backend", "spring"]) == 2
    assert "'--backend' is no option" in capsys.readouterr().err


def test_nothing_is_said_when_brax_is_imported_and_made(tmp_path: Path) -> None:
    """Of halfcheetah, MuJoCo would say that it is outdated, on the screen and in a file."""
    script = "import sys; sys.path[:0] = sys.argv[1:]; from envs.brax import made; made('halfcheetah', 'spring')"
    done = subprocess.run([sys.executable, "-c", script, str(ROOT)], capture_output=True, text=True, timeout=300, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_environment_of_brax_is_stepped(name: str) -> None:
    env = make_environment(name, 2, suite="brax")
    recording = episode(env, lambda key, observation: env.action_space.sample(key), jax.random.key(0))
    assert recording.observations.shape[1] == len(env.state_names) == env.observation_size - 2
    assert 2 <= len(recording.observations) <= 1001
    assert np.all(np.isfinite(recording.observations)) and np.ptp(recording.observations, axis=0).max() > 0


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["generalized", "positional", "mjx"])
def test_every_backend_trains(backend: str) -> None:
    env = make_environment("inverted_pendulum", suite="brax", backend=backend)
    assert np.all(np.isfinite(train(env, Config(**SMALL)).returns))


@pytest.mark.slow
def test_the_command_trains_resumes_and_films(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [word for name, value in SMALL.items() for word in (flag(name), str(value))]
    argv = ["--env", "inverted_pendulum", "--distractors", "2", *words, "--logdir", str(tmp_path), "--name", "run"]
    assert main(None, argv, suite="brax") == 0
    assert main(None, ["--resume", str(tmp_path / "run"), "--steps", "30", "--film"], suite="brax") == 0
    assert "film.html" in capsys.readouterr().out and (tmp_path / "run" / "film.html").exists()
    rows = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(row)["step"] for row in rows] == [10, 20, 30]
