"""Bad input ends in one sentence that names the value and the remedy, exit code 2, and nothing written or lost."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import pytest

from agents.command import main, parse
from envs.distractors import Distractors
from envs.gymnax import GymnaxEnvironment
from mbrl_taskmet.rl.environment import UnsupportedEnvironment
from mbrl_taskmet.rl.make import make_method
from mbrl_taskmet.rl.training import Trainer
from mbrl_taskmet.runner.checkpoint import Checkpoints
from mbrl_taskmet.runner.rundir import to_json

CARTPOLE = "CartPole-v1"
TINY = ["--method", "mle", "--steps", "200", "--eval-every", "100", "--random-steps", "64", "--batch-size", "32"]
Refused = Callable[..., str]


@pytest.fixture(autouse=True)
def jax_has_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command sets devices and cache before JAX starts, which in a test's process it has: leave those settings out."""
    monkeypatch.setattr(jax.config, "update", lambda name, value: None)


@pytest.fixture
def refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Refused:
    """Run the command on bad input, check the manner of its refusal, and give back the sentence."""

    def run(*argv: str, logdir: Path | None = None, environment: str = CARTPOLE, resume: Path | None = None) -> str:
        where = ["--resume", str(resume)] if resume else ["--logdir", str(logdir or tmp_path)]
        before = _tree(tmp_path)
        assert main(environment, [*argv, *where]) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ") and error.endswith("\n") and error.count("\n") == 1, error
        assert _tree(tmp_path) == before
        return error

    return run


def _tree(directory: Path) -> dict[str, bytes | None]:
    """Every file below a directory with its contents, and every directory."""
    return {str(path): path.read_bytes() if path.is_file() else None for path in sorted(directory.rglob("*"))}


COMMAND_LINES: list[tuple[str, str]] = [
    ("--steps 0", "--steps is 0; give 1 or more"),
    ("--steps -5", "--steps is -5; give 1 or more"),
    ("--seeds 0", "--seeds is 0; give 1 or more"),
    ("--seed 10000000000", "--seed is 10000000000"),
    ("--seeds 2000000000", "2000000000 runs are more than the 1048576 that train at once; give fewer --seeds"),
    ("--distractors -1", "--distractors is -1; give 0 or more"),
    ("--solver-steps -1", "--solver-steps is -1; give 1 or more"),
    ("--checkpoint-share 0", "--checkpoint-share is 0.0; give a number above 0 and up to 1"),
    ("--metric-lr nan", "--metric-lr is nan; give a finite number above 0"),
    ("--method taskmett", "--method 'taskmett' is unknown; did you mean 'taskmet'?"),
    ("--metric diagnoal", "--metric 'diagnoal' is unknown; did you mean 'diagonal'?"),
    ("--solver conjugate_gradient", "--solver 'conjugate_gradient' is unknown; did you mean"),
    ("--metric-warmpu 5", "'--metric-warmpu' is no option; did you mean --metric-warmup?"),
    ("--step 300", "'--step' is no option; did you mean --steps?"),
    ("surplus", "'surplus' is no option; did you mean"),
    ("--steps many", "argument --steps: invalid int value: 'many'; see --help"),
    ("--distractors", "argument --distractors: expected one argument; see --help"),
    ("--batch-size 512 --steps 300 --eval-every 100", "--batch-size 512 is more than --steps 300; give more steps"),
    ("--batch-size 512 --random-steps 100", "--batch-size 512 is more than the --random-steps 100"),
    ("--method mle --metric full", "--metric full does nothing for --method mle; leave it out, or use --method taskmet"),
    ("--method omd --l1 0.1", "--l1 0.1 does nothing for --method omd; leave it out"),
    ("--metric-until 5000", "--metric-until 5000 is not after --metric-warmup 5000, so the metric would never move; give more"),
    ("--metric scalar --normalize", "--metric scalar is 1 for ever under --normalize; add --no-normalize"),
    (f"--name {'n' * 300}", "give another --name"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "message"), COMMAND_LINES, ids=lambda text: text[:40])
def test_a_bad_command_line_is_refused(refused: Refused, line: str, message: str) -> None:
    assert message in refused(*line.split())


def test_distractors_that_cannot_fit_are_refused_with_the_memory_they_need(refused: Refused) -> None:
    error = refused("--distractors", "1000000000")
    needed = float(error.split("would need ")[1].split(" GB")[0])
    assert needed > 1e9 * 100_001 * 2 / 1e9  # the noise in the replay alone, in float16
    assert "1000000000 distractors" in error and "give fewer distractors" in error


def test_a_logdir_that_cannot_be_written_is_refused(refused: Refused, tmp_path: Path) -> None:
    file = tmp_path / "a_file"
    file.write_text("keep me")
    error = refused(*TINY, logdir=file / "logs")
    assert str(file / "logs") in error and "give another --logdir" in error
    assert file.read_text() == "keep me"


def test_a_name_that_is_taken_is_refused(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    error = refused("--name", "mine")
    assert f"{tmp_path / 'mine'} exists; give another --name, or --resume" in error


@pytest.mark.parametrize(
    ("environment", "messages"),
    [
        ("Breakout-MinAtar", ["Breakout-MinAtar observes an array of shape (10, 10, 4)", "use an agent with a convolutional"]),
        ("FrozenLake-misc", ["FrozenLake-misc observes a Discrete", "needs a vector"]),
        ("CartPole-v2", ["unknown environment 'CartPole-v2'", "is 'CartPole-v1'"]),
    ],
)
def test_an_environment_the_agent_cannot_run_is_refused(refused: Refused, environment: str, messages: list[str]) -> None:
    with pytest.raises(UnsupportedEnvironment) as unsupported:
        GymnaxEnvironment(environment)
    error = refused(environment=environment)
    assert error == f"error: {unsupported.value}\n"
    assert all(message in error for message in messages)


@pytest.fixture(scope="module")
def a_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Trainer]]:
    """A run's directory with checkpoints at steps 0 and 100, which hold the start of the run, and what restores it."""
    sizes = ["--steps", "200", "--eval-every", "100", "--random-steps", "64", "--batch-size", "32", "--distractors", "2"]
    place = ["--logdir", str(tmp_path_factory.mktemp("runs")), "--name", "run"]
    request = parse(CARTPOLE, ["--method", "mle", *sizes, *place])
    directory, settings = request.directory, request.config.resolve()
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps(to_json(settings.names)))
    env = Distractors(GymnaxEnvironment(CARTPOLE), 2)
    trainer = Trainer(env, make_method(env, settings), settings)
    checkpoints, carry = Checkpoints(directory / "checkpoints", trainer), trainer.init()
    checkpoints.save(0, carry)
    checkpoints.save(100, carry)
    return directory, trainer


@pytest.fixture
def directory(a_run: tuple[Path, Trainer], tmp_path: Path) -> Path:
    """A copy of the run, to damage."""
    return Path(shutil.copytree(a_run[0], tmp_path / "run"))


def _edit(directory: Path, **changes: Any) -> None:
    path = directory / "config.json"
    settings = json.loads(path.read_text())
    names = settings["settings"] | changes.pop("settings", {})
    path.write_text(json.dumps(settings | changes | {"settings": names}))


def test_the_run_that_these_tests_damage_can_be_restored(directory: Path, a_run: tuple[Path, Trainer]) -> None:
    assert Checkpoints(directory / "checkpoints", a_run[1]).restore()[0] == 100


def test_resuming_a_directory_that_is_empty_or_missing_is_refused(refused: Refused, tmp_path: Path) -> None:
    for empty in (tmp_path, tmp_path / "nowhere"):
        assert f"{empty} holds no run (no config.json in it); give a run's directory" in refused(resume=empty)


def test_resuming_nothing_is_refused_rather_than_starting_a_run(refused: Refused) -> None:
    assert "--resume" in refused("--resume", "", "--distractors", "1000000000")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--q-hidden 64", "has --q-hidden 32, not 64; leave it out"),
        ("--method omd", "has --method mle, not omd; leave it out"),
        ("--x64", "has --x64 False, not True; leave it out"),
        ("--distractors 3", "has --distractors 2, not 3; leave it out"),
        ("--steps 100", "--steps 100 is less than the 200 of"),
        ("--steps 250", "--steps 250 is no multiple of --eval-every 100"),
        ("--name other", "--name other cannot change what"),
        ("--logdir other", "--logdir other cannot change what"),
    ],
)  # fmt: skip
def test_resuming_with_other_settings_is_refused(refused: Refused, directory: Path, line: str, message: str) -> None:
    assert message in refused(*line.split(), resume=directory)


def test_resuming_with_another_environments_agent_is_refused(refused: Refused, directory: Path) -> None:
    assert "is a run on CartPole-v1; use that" in refused(resume=directory, environment="Acrobot-v1")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "{}", '{"format": "1"}', '{"format": 1}', "\x00\xff"])
def test_resuming_with_a_damaged_configuration_is_refused(refused: Refused, directory: Path, text: str) -> None:
    (directory / "config.json").write_text(text, encoding="latin-1")
    error = refused(resume=directory)
    assert f"{directory / 'config.json'} is damaged" in error and "restore it to resume" in error


def test_resuming_a_run_of_newer_code_is_refused(refused: Refused, directory: Path) -> None:
    _edit(directory, format=3)
    assert "is of format 3, from newer code than this; update to resume it" in refused(resume=directory)
    _edit(directory, format=2, settings={"attention": True})
    assert "'attention', which this version does not know; use the version that wrote it" in refused(resume=directory)


@pytest.mark.parametrize(("names", "place"), [({"q_hidden": 16}, "critic"), ({"normalize_observations": False}, "moments")])
def test_resuming_with_a_configuration_that_does_not_fit_the_checkpoint_is_refused(
    refused: Refused, directory: Path, names: dict[str, Any], place: str
) -> None:
    _edit(directory, settings=names)
    assert f"does not fit its configuration at .learner.{place}" in refused(resume=directory)


def test_resuming_a_run_whose_checkpoints_are_gone_is_refused(refused: Refused, directory: Path) -> None:
    shutil.rmtree(directory / "checkpoints")
    (directory / "metrics.jsonl").write_text('{"step": 100, "seed": 0}\n')  # else it never began, and is begun
    assert f"{directory} holds no checkpoint" in refused(resume=directory)


def test_resuming_from_a_truncated_checkpoint_is_refused(refused: Refused, directory: Path) -> None:
    state = directory / "checkpoints" / "state" / "100"
    largest = max((path for path in state.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    os.truncate(largest, largest.stat().st_size // 2)
    error = refused(resume=directory)
    assert "the checkpoint at step 100 is damaged" in error
    assert f"remove {state} to go on from the one before" in error


def test_the_command_itself_exits_with_2() -> None:
    done = subprocess.run([sys.executable, "-m", "agents.cartpole", "--steps", "0"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "error: --steps is 0; give 1 or more\n")
