"""Interrupted and resumed equals uninterrupted, bit for bit: after kill −9, after Ctrl-C, and beyond a run's end."""

from __future__ import annotations

import json
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from envs.distractors import Distractors
from envs.probes import Walk
from mbrl_taskmet import Config, ConfigError
from mbrl_taskmet.rl.make import make_method
from mbrl_taskmet.rl.training import Carry, Trainer
from mbrl_taskmet.runner.checkpoint import PIECE, Checkpoints, _piece
from tests.records import timeless

MLE = ["--method", "mle", "--eval-every", "50", "--eval-episodes", "1", "--random-steps", "64", "--batch-size", "32"]
STEPS, SHORT = 4000, 500
# as in test_run_files.py, so that the compilation is found in the cache
TASKMET = ["--distractors", "2", "--seeds", "2", "--seed", "3", "--steps", "1000", "--eval-every", "100", "--eval-episodes",
           "2", "--random-steps", "64", "--batch-size", "32", "--metric-warmup", "100"]  # fmt: skip
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """Start the command in a process group of its own, with a checkpoint as often as evaluations allow."""
    environment = os.environ | {
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path_factory.getbasetemp() / "jax_cache"),
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        # a printed command says `python`, as in an activated environment
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
    }
    started: list[subprocess.Popen[str]] = []

    def run(*argv: str, command: list[str] | None = None) -> subprocess.Popen[str]:
        command = command or [sys.executable, "-m", "agents.cartpole", *argv, "--checkpoint-share", "1"]
        process = subprocess.Popen(
            command, env=environment, text=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
        )
        started.append(process)
        return process

    yield run
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("logs")


@pytest.fixture(scope="module")
def uninterrupted(start: Start, logs: Path) -> Path:
    finish(start(*MLE, "--steps", str(STEPS), "--logdir", str(logs), "--name", "uninterrupted"))
    return logs / "uninterrupted"


def finish(process: subprocess.Popen[str]) -> None:
    error = process.communicate(timeout=300)[1]
    assert process.returncode == 0, error


def step_of(directory: Path) -> int:
    """The step of the last whole line of the metrics."""
    path = directory / "metrics.jsonl"
    whole = path.read_text().split("\n")[:-1] if path.exists() else []
    return int(json.loads(whole[-1])["step"]) if whole else 0


def wait_until(directory: Path, step: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 300
    while step_of(directory) < step:
        assert process.poll() is None, f"ended with {process.returncode} at step {step_of(directory)}"
        assert time.monotonic() < deadline
        time.sleep(0.005)


def saved(directory: Path) -> dict[str, np.ndarray]:
    """Every array of the last checkpoint, the replay's blocks joined."""
    manager = ocp.CheckpointManager(directory / "checkpoints" / "state")
    state = manager.restore(manager.latest_step(), args=ocp.args.StandardRestore())
    replay = directory / "checkpoints" / "replay"
    names = sorted((path.name for path in replay.iterdir()), key=lambda name: int(name.split("-")[0]))
    spans = [tuple(map(int, name.split("-"))) for name in names]
    assert [begin for begin, _ in spans] == [0, *(end for _, end in spans[:-1])]
    blocks = [ocp.StandardCheckpointer().restore(replay / name) for name in names]
    joined = {name: np.concatenate([block[name] for block in blocks], axis=1) for name in set(blocks[0]) - {"crc32"}}
    return {"last step": np.array(spans[-1][1])} | {name: np.asarray(array) for name, array in state.items()} | joined


def assert_same_run(one: Path, other: Path) -> None:
    left, right = saved(one), saved(other)
    assert left.keys() == right.keys() and len(left) > 30
    for name in left:
        assert left[name].dtype == right[name].dtype, name
        np.testing.assert_array_equal(left[name], right[name], err_msg=name)
    assert metrics(one) == metrics(other)
    summaries = [json.loads((directory / "summary.json").read_text()) for directory in (one, other)]
    assert summaries[0]["final_return"] == summaries[1]["final_return"]


def metrics(directory: Path) -> list[dict[str, Any]]:
    """The metrics without what a clock says."""
    return timeless([json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()])


def test_an_uninterrupted_run_has_one_line_per_evaluation(uninterrupted: Path) -> None:
    assert [row["step"] for row in metrics(uninterrupted)] == list(range(50, STEPS + 1, 50))


def test_killed_three_times_at_random_moments_a_run_ends_as_if_it_had_not_been(
    start: Start, logs: Path, uninterrupted: Path
) -> None:
    chance, directory = random.Random(0), logs / "killed"
    process = start(*MLE, "--steps", str(STEPS), "--logdir", str(logs), "--name", "killed")
    for _ in range(3):
        wait_until(directory, step_of(directory) + 50 * chance.randint(1, 6), process)
        time.sleep(chance.uniform(0, 0.1))
        os.killpg(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        process = start("--resume", str(directory))
    finish(process)
    assert_same_run(directory, uninterrupted)


def test_a_finished_run_extended_interrupted_and_resumed_as_it_says_equals_one_long_run(
    start: Start, logs: Path, uninterrupted: Path
) -> None:
    directory = logs / "a short run"  # with spaces, which the printed command must survive
    finish(start(*MLE, "--steps", str(SHORT), "--logdir", str(logs), "--name", directory.name))
    assert json.loads((directory / "summary.json").read_text())["env_steps"] == SHORT
    going = start("--resume", str(directory), "--steps", str(STEPS))
    for asking, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):  # of a user, and of a batch system
        before = step_of(directory)
        wait_until(directory, before + 100, going)
        os.killpg(going.pid, asking)
        error = going.communicate(timeout=300)[1]
        assert going.returncode == code, error
        message = error.splitlines()[-1]
        stopped = step_of(directory)
        assert message.startswith(f"stopped at step {stopped}; to go on: ") and before < stopped < STEPS
        assert (directory / "checkpoints" / "state" / str(stopped)).is_dir()
        going = start(command=shlex.split(message.split("to go on: ")[1]))
    finish(going)
    assert_same_run(directory, uninterrupted)


def test_taskmet_killed_and_resumed_equals_uninterrupted(start: Start, logs: Path) -> None:
    finish(start(*TASKMET, "--logdir", str(logs), "--name", "taskmet"))
    killed = start(*TASKMET, "--logdir", str(logs), "--name", "taskmet_killed")
    wait_until(logs / "taskmet_killed", 300, killed)
    os.killpg(killed.pid, signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    finish(start("--resume", str(logs / "taskmet_killed")))
    assert_same_run(logs / "taskmet_killed", logs / "taskmet")


CAPACITY, AT = 64, 100


@pytest.fixture(scope="module", params=["float32", "float64"])
def made_up(request: pytest.FixtureRequest) -> tuple[Trainer, Carry]:
    """A carry at step 100 whose replay is full of random numbers and has come round."""
    config = Config(method="mle", steps=200, eval_every=100, random_steps=64, batch_size=32, replay_capacity=CAPACITY, seeds=2,
                    x64=request.param == "float64", distractors=2)  # fmt: skip
    env, settings = Distractors(Walk(), 2), config.resolve()
    trainer = Trainer(env, make_method(env, settings), settings)
    carry, chance = trainer.init(), np.random.default_rng(0)
    with jax.enable_x64(settings.x64):
        filled = jax.tree.map(lambda x: jnp.asarray(chance.normal(size=x.shape), x.dtype), carry.replay)
        current = filled.state.at[:, AT % (CAPACITY + 1)].set(carry.observation[:, :1])
        noise = filled.noise.at[:, AT % (CAPACITY + 1)].set(carry.observation[:, 1:].astype(jnp.float16))
    assert carry.observation.dtype == request.param
    memory = jax.device_put(filled._replace(state=current, noise=noise), trainer.axis.sharding)
    return trainer, carry._replace(replay=memory)


def test_a_checkpoint_gives_back_every_number_to_the_bit(made_up: tuple[Trainer, Carry], tmp_path: Path) -> None:
    trainer, carry = made_up
    Checkpoints(tmp_path, trainer).save(AT, carry)
    step, restored = Checkpoints(tmp_path, trainer).restore()
    assert step == AT
    rows = np.arange(AT - CAPACITY, AT) % (CAPACITY + 1)
    for now, then in zip(jax.tree.leaves(restored), jax.tree.leaves(carry), strict=True):
        assert now.dtype == then.dtype and now.sharding.is_equivalent_to(then.sharding, now.ndim)
        if jnp.issubdtype(now.dtype, jax.dtypes.prng_key):
            now, then = jax.random.key_data(now), jax.random.key_data(then)
        if now.shape[1:2] == (CAPACITY + 1,):
            now, then = np.asarray(now)[:, rows], np.asarray(then)[:, rows]
        np.testing.assert_array_equal(now, then)
    following = np.concatenate([restored.replay.state, restored.replay.noise], axis=-1)[:, AT % (CAPACITY + 1)]
    np.testing.assert_array_equal(following, carry.observation)


def test_a_replay_with_a_missing_block_is_refused(made_up: tuple[Trainer, Carry], tmp_path: Path) -> None:
    trainer, carry = made_up
    checkpoints = Checkpoints(tmp_path, trainer)
    checkpoints.save(50, carry)
    checkpoints.save(AT, carry)
    (tmp_path / "replay" / "0-50").rename(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="lacks the replay"):
        Checkpoints(tmp_path, trainer).restore()
    step, restored = Checkpoints(tmp_path, trainer).restore(with_ring=False)
    assert step == AT and not np.any(restored.replay.reward)
    jax.tree.map(np.testing.assert_array_equal, restored.learner, carry.learner)


def test_reading_a_checkpoint_removes_nothing_and_going_on_removes_what_had_no_state(
    made_up: tuple[Trainer, Carry], tmp_path: Path
) -> None:
    trainer, carry = made_up
    Checkpoints(tmp_path, trainer).save(50, carry)
    begun = tmp_path / "replay" / "50-120"  # a run that is still going on writes its replay first
    shutil.copytree(tmp_path / "replay" / "0-50", begun)
    resumed = Checkpoints(tmp_path, trainer)
    assert resumed.restore()[0] == 50 and begun.exists()
    resumed.save(AT, carry)
    assert sorted(block.name for block in begun.parent.iterdir()) == ["0-50", f"50-{AT}"]
    assert Checkpoints(tmp_path, trainer).restore()[0] == AT


def test_a_checkpoint_with_a_flipped_byte_is_refused(made_up: tuple[Trainer, Carry], tmp_path: Path) -> None:
    trainer, carry = made_up
    Checkpoints(tmp_path, trainer).save(AT, carry)
    state = tmp_path / "state" / str(AT)
    largest = max((path for path in state.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 0xFF
    largest.write_bytes(content)
    with pytest.raises(ConfigError, match="is damaged"):
        Checkpoints(tmp_path, trainer).restore()


def test_rows_are_taken_from_the_ring_by_one_program_however_many_there_are() -> None:
    rows, compiled = 3 * PIECE, cast(Any, _piece)._cache_size
    ring = {"rewards": jnp.arange(2 * rows, dtype=jnp.float32).reshape(2, rows)}
    before = compiled()
    for start in (0, 5, rows - 7):
        taken = _piece(ring, jnp.int32(start))["rewards"]
        np.testing.assert_array_equal(taken[1], rows + (start + np.arange(PIECE)) % rows)
    assert compiled() == before + 1
