"""Faults of use that were found by trying: files that lie, two processes at once, signals, a machine that fails."""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import pytest

from agents.command import main, parse
from decision_tasks.command import main as decide
from decision_tasks.saved import to_json
from decision_tasks.settings import cells
from decision_tasks.training import CellTrainer
from envs.probes import Walk
from mbrl_taskmet import Config, ConfigError, run
from mbrl_taskmet.rl.make import make_method
from mbrl_taskmet.rl.training import Trainer, resolved
from mbrl_taskmet.runner import agent
from mbrl_taskmet.runner.checkpoint import Checkpoints
from mbrl_taskmet.runner.claim import LOCK, Taken, claimed, in_first_free
from mbrl_taskmet.runner.command import command, start_jax
from mbrl_taskmet.runner.events import Events
from mbrl_taskmet.runner.plotting import plot_groups, plot_run
from mbrl_taskmet.runner.records import Layout, read_rows, rows_until
from mbrl_taskmet.runner.rundir import began
from mbrl_taskmet.runner.signals import Stopped, StopSignal
from mbrl_taskmet.runner.snapshots import writing

SIZES: dict[str, Any] = {
    "method": "mle", "steps": 200, "eval_every": 100, "eval_episodes": 1, "random_steps": 64, "batch_size": 32,
}  # fmt: skip
TINY = ["--method", "mle", "--steps", "200", "--eval-every", "100", "--random-steps", "64", "--batch-size", "32"]
LAYOUT = Layout(range(1), 100, agent.COLUMNS, whole=True)
ROOT = Path(__file__).parents[2]
Refused = Callable[..., str]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("runs") / "whole"
    run(Walk(), Config(**SIZES), directory)
    return directory


@pytest.fixture
def directory(whole: Path, tmp_path: Path) -> Path:
    """A copy of a finished run, to damage."""
    return Path(shutil.copytree(whole, tmp_path / "run"))


@pytest.fixture
def settings_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands set devices and cache before JAX starts, which in a test's process it has."""
    monkeypatch.setattr(jax.config, "update", lambda name, value: None)


@pytest.fixture
def refused(settings_stay: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Refused:
    """The one sentence with which a command refuses; nothing is written or lost."""

    def call(main: Callable[..., int], *argv: Any, code: int = 2) -> str:
        before = _tree(tmp_path)
        assert main(*argv) == code
        error = capsys.readouterr().err
        assert error.startswith("error: ") and error.count("\n") == 1, error
        assert _tree(tmp_path) == before
        return error

    return call


def _tree(directory: Path) -> dict[str, bytes | None]:
    return {str(path): path.read_bytes() if path.is_file() else None for path in sorted(directory.rglob("*"))}


# ---- nothing that is read decides what code runs, or where is written


@pytest.mark.parametrize("format", [1, 2])
def test_a_module_that_a_file_names_is_imported_only_if_the_user_names_it_too(
    format: int, directory: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (directory / f"evil{format}.py").write_text("import pathlib\npathlib.Path('executed').touch()\n")
    saved = json.loads((directory / "config.json").read_text())
    saved["settings"]["env"] = f"evil{format}:E"
    if format == 1:
        names = {name: value for name, value in saved["settings"].items() if name not in ("env", "distractors", "disturbance")}
        saved = {"format": 1, "config": names, "environment": "evil1:E", "distractors": 0}
    (directory / "config.json").write_text(json.dumps(saved))
    monkeypatch.chdir(directory)
    monkeypatch.syspath_prepend(".")
    assert f"is a run on evil{format}:E, whose code runs only if you name it as well; add --env" in refused(
        main, None, ["--resume", "."]
    )
    assert not Path("executed").exists()
    assert main(None, ["--resume", ".", "--env", f"evil{format}:E"]) == 2
    assert "cannot be imported" in capsys.readouterr().err and Path("executed").exists()


def rows_with(change: Callable[[list[bytes]], list[bytes]]) -> Callable[[bytes], bytes]:
    return lambda text: b"\n".join(change(text.split(b"\n")))


def changed(**values: Any) -> Callable[[bytes], bytes]:
    """The second of two rows with other values."""

    def change(lines: list[bytes]) -> list[bytes]:
        row = json.loads(lines[1]) | {key.replace("__", "/"): value for key, value in values.items()}
        row = {key: value for key, value in row.items() if value is not ...}
        return [lines[0], json.dumps(row).encode(), b""]

    return rows_with(change)


DAMAGED: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "escaping seed": (changed(seed="x/../../escaped"), "in line 2 (seed is 'x/../../escaped')"),
    "another run's seed": (changed(seed=7), "in line 2 (seed 7 is none of the run's, 0 to 0)"),
    "seed is True": (changed(seed=True), "in line 2 (seed is 'True')"),
    "step between": (changed(step=150), "in line 2 (step 150 is no multiple of 100)"),
    "step -1": (changed(step=-1), "in line 2 (step is '-1')"),
    "step as text": (changed(step="200"), "in line 2 (step is '200')"),
    "huge step": (changed(step=10**4000), "in line 2 (step is"),
    "twice": (rows_with(lambda lines: [lines[0], *lines]), "in line 2 (step 100 of seed 0 does not come after"),
    "no return": (changed(eval__return=...), "in line 2 (eval/return is missing)"),
    "return as text": (changed(eval__return="high"), "in line 2 (eval/return is 'high')"),
    "no time": (changed(wall_seconds=None), "in line 2 (wall_seconds is 'None')"),
    "infinite": (lambda text: text.replace(b'"train/q_loss": ', b'"train/q_loss": Infinity, "x": '), "in line 1 (Infinity is"),
    "overflowing": (changed(train__q_loss=10**400), "in line 2 (train/q_loss is"),
    "list of a number": (changed(eval__return=[1.0]), "in line 2 (eval/return is '[1.0]')"),
    "empty list": (changed(metric__diagonal=[]), "in line 2 (metric/diagonal is '[]')"),
    "number of a list": (changed(metric__diagonal=1.0), "in line 2 (metric/diagonal is '1.0')"),
    "nested list": (changed(metric__diagonal=[[1.0]]), "in line 2 (metric/diagonal is"),
    "failure is a number": (changed(failure=1), "in line 2 (failure is"),
    "BOM": (lambda text: b"\xef\xbb\xbf" + text, "in line 1 (Unexpected UTF-8 BOM"),
    "blank line": (rows_with(lambda lines: [lines[0], b"", *lines[1:]]), "in line 2 (Expecting value"),
    "U+2028": (lambda text: text.replace(b"\n", "\u2028\n".encode(), 1), "in line 1 (Extra data"),
    "binary": (lambda text: bytes(range(256)) * 3, "in line 1 ("),
    "no object": (lambda text: b"[1]\n" + text, "in line 1 (it is no row)"),
    "deep": (lambda text: b"[" * 100_000 + b"\n" + text, "in line 1 ("),
    "empty": (lambda text: b"", "(it lacks step 100 of seed 0)"),
    "first is gone": (rows_with(lambda lines: lines[1:]), "(it lacks step 100 of seed 0)"),
    "last is cut": (lambda text: text[:-30], "(it lacks step 200 of seed 0)"),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGED)
def test_a_record_that_is_not_what_the_program_writes_is_damage(name: str, whole: Path, tmp_path: Path) -> None:
    change, sentence = DAMAGED[name]
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(change((whole / "metrics.jsonl").read_bytes()))
    with pytest.raises(ConfigError) as damage:
        rows_until(tmp_path, 200, LAYOUT)
    message = str(damage.value)
    assert message.startswith(f"{path} is damaged {sentence}") and message.endswith("; restore it"), message
    assert "\n" not in message and len(message) < len(str(path)) + 250


def test_a_last_line_that_a_kill_cut_short_is_dropped_and_so_is_what_came_after_the_checkpoint(
    whole: Path, tmp_path: Path
) -> None:
    text = (whole / "metrics.jsonl").read_bytes()
    (tmp_path / "metrics.jsonl").write_bytes(text + text[:40])
    assert rows_until(tmp_path, 200, LAYOUT) == read_rows(whole)
    assert rows_until(tmp_path, 100, LAYOUT) == read_rows(whole)[:1]
    assert rows_until(tmp_path / "nothing", 0, LAYOUT) == []


def test_a_damaged_record_is_refused_by_the_command_and_nothing_is_written(directory: Path, refused: Refused) -> None:
    path = directory / "metrics.jsonl"
    path.write_bytes(DAMAGED["escaping seed"][0](path.read_bytes()))
    assert f"{path} is damaged in line 2" in refused(main, "Walk", ["--resume", str(directory), "--steps", "300"])
    assert not list(directory.parent.glob("*escaped*"))


def test_a_record_that_is_no_file_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "metrics.jsonl")
    with pytest.raises(ConfigError, match="is no regular file"):
        read_rows(tmp_path)


@pytest.mark.parametrize("place", ["tensorboard", "checkpoints/replay"])
def test_nothing_is_written_through_a_link(place: str, directory: Path, tmp_path: Path) -> None:
    (directory / place).rename(tmp_path / "elsewhere")
    (directory / place).symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    before = _tree(tmp_path)
    with pytest.raises(ConfigError, match=f"{place} is a symbolic link"), claimed(directory, {}):
        pass
    assert _tree(tmp_path) == before


def a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def a_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    ("name", "damage", "sentence"),
    [
        ("config.json", a_pipe, "holds no run (no config.json in it)"),
        ("metrics.jsonl", a_pipe, "is no regular file; restore it"),
        ("checkpoints/state/200/_CHECKPOINT_METADATA", a_pipe, "is no regular file; restore it"),
        ("summary.json", a_directory, "is a directory, where a run has a file; move it away"),
        ("checkpoints/state/200/_CHECKPOINT_METADATA", lambda path: path.write_text("[" * 10**5), "holds a checkpoint that is"),
        (
            "checkpoints/state/200",
            lambda path: shutil.copytree(path, path.with_name("1000")),
            "at step 1000, beyond its end at",
        ),
        (
            "checkpoints/state/200",
            lambda path: path.rename(path.with_name("150")),
            "is the checkpoint of step 200; give it its",
        ),
        ("checkpoints/replay/0-100", lambda path: path.rename(path.with_name("0-50")), "does not hold the steps that its name"),
        ("checkpoints/replay/0-100", lambda path: path.rename(path.with_name("7" * 60)), "lacks the replay of steps 0 to"),
    ],
)
def test_a_file_of_a_run_that_is_something_else_is_refused(
    name: str, damage: Callable[[Path], Any], sentence: str, directory: Path, refused: Refused
) -> None:
    if not (directory / "checkpoints" / "replay" / "0-100").exists() and name.endswith("0-100"):
        block = next((directory / "checkpoints" / "replay").iterdir())
        name = f"checkpoints/replay/{block.name}"
    damage(directory / name)
    assert sentence in refused(main, "Walk", ["--resume", str(directory)])


DEEP = '{"format": 2, "settings": ' + "[" * 10_000 + "]" * 10_000 + "}"
CONFIGURATIONS: list[tuple[str, str]] = [
    (DEEP, "is damaged or from newer code (RecursionError"),
    ('{"format": 1, "config": []}', "is damaged or from newer code ("),
    ('{"format": 2, "settings": []}', "config.json"),
    ('{"format": 2, "settings": {"q_hidden": 1.5}}', "config.json: --q-hidden is 1.5; give a whole number"),
    ('{"format": 2, "settings": {"method": ["mle"]}}', "config.json"),
    ('{"format": 2.5, "settings": {}}', "is damaged or from newer code (TypeError: the format is 2.5)"),
    ('{"format": true, "settings": {}}', "is damaged or from newer code (TypeError: the format is True)"),
]
CELLS: list[tuple[str, str]] = [
    (DEEP.replace("settings", "cells"), "is damaged or from newer code (RecursionError"),
    ('{"format": 1, "config": []}', "is damaged or from newer code ("),
    ('{"format": 2, "cells": []}', "is damaged or from newer code (ValueError: there is no cell)"),
    ('{"format": 2, "cells": {}}', "is damaged or from newer code ("),
    ('{"format": 2, "cells": [[]]}', "is damaged or from newer code ("),
    ('{"format": 2, "cells": [{"seeds": 1.5}]}', "config.json: --seeds is 1.5; give a whole number"),
    ('{"format": 2, "cells": [{}], "unnamed": [1]}', "is damaged or from newer code ("),
]


@pytest.mark.parametrize(
    ("main", "text", "sentence"),
    [(lambda argv: main("Walk", argv), *case) for case in CONFIGURATIONS] + [(decide, *case) for case in CELLS],
    ids=[f"agent {i}" for i in range(len(CONFIGURATIONS))] + [f"decision {i}" for i in range(len(CELLS))],
)
def test_a_configuration_of_wrong_types_is_damage(
    main: Callable[..., int], text: str, sentence: str, tmp_path: Path, refused: Refused
) -> None:
    (tmp_path / "config.json").write_text(text)
    error = refused(main, ["--resume", str(tmp_path)])
    assert str(tmp_path / "config.json") in error and sentence in error


# ---- a directory belongs to one process


def test_a_run_that_goes_on_is_refused_and_a_lock_that_was_left_holds_nobody(directory: Path, refused: Refused) -> None:
    (directory / LOCK).touch()  # of a process that was killed
    with claimed(directory, {}) as has_begun:
        assert has_begun
        assert f"{directory} is a run that goes on in another process" in refused(main, "Walk", ["--resume", str(directory)])
        with pytest.raises(Taken):
            run(Walk(), Config(**SIZES), directory)
    assert not (directory / LOCK).exists()
    with claimed(directory, {}):
        pass


def test_a_lock_dies_with_its_process(tmp_path: Path) -> None:
    code = f"""if True:
        import time, pathlib
        from mbrl_taskmet.runner.claim import claimed
        with claimed(pathlib.Path({str(tmp_path / "run")!r}), {{"format": 2}}):
            print("held", flush=True)
            time.sleep(600)
    """
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    with pytest.raises(Taken), claimed(tmp_path / "run", {}):
        pass
    process.kill()
    process.wait()
    with claimed(tmp_path / "run", {}) as has_begun:
        assert not has_begun and json.loads((tmp_path / "run" / "config.json").read_text()) == {"format": 2}


def test_many_that_claim_one_name_at_once_get_a_directory_each(tmp_path: Path) -> None:
    together, found = threading.Barrier(8), list[Path]()

    def start(directory: Path) -> None:
        with claimed(directory, {"format": 2}):
            found.append(directory)
            together.wait(timeout=60)

    threads = [threading.Thread(target=in_first_free, args=(tmp_path / "run", False, start)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 8 and {path.name for path in tmp_path.iterdir()} == {path.name for path in found}
    assert all([path.name for path in directory.iterdir()] == ["config.json"] for directory in found)
    with pytest.raises(Taken), claimed(tmp_path / "named", {}):
        in_first_free(tmp_path / "named", True, start)


def test_a_directory_that_cannot_be_made_whole_is_not_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, value: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr("mbrl_taskmet.runner.claim.write_json", full)
    with pytest.raises(ConfigError, match=r"cannot be written \(No space left on device\)"), claimed(tmp_path / "run", {}):
        pass
    assert not list(tmp_path.iterdir())


def test_a_run_that_is_refused_before_it_began_leaves_no_directory(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="too large"), claimed(tmp_path / "run", {}):
        raise ConfigError("too large")
    assert not list(tmp_path.iterdir())


@pytest.fixture
def unbegun(whole: Path, tmp_path: Path) -> Path:
    """What a kill leaves that comes while the first checkpoint is written."""
    directory = tmp_path / "unbegun"
    (directory / "checkpoints" / "state" / "0.orbax-checkpoint-tmp-1").mkdir(parents=True)
    shutil.copy(whole / "config.json", directory)
    return directory


def test_a_run_that_never_began_is_begun_by_resume(
    unbegun: Path, whole: Path, settings_stay: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not began(unbegun)
    assert main("Walk", ["--resume", str(unbegun)]) == 0
    assert [row["eval/return"] for row in read_rows(unbegun)] == [row["eval/return"] for row in read_rows(whole)]
    assert not [path for path in unbegun.rglob("*") if "orbax-checkpoint-tmp" in path.name]


def test_a_run_that_never_began_is_begun_by_the_same_name(unbegun: Path, directory: Path, refused: Refused) -> None:
    where = ["--logdir", str(unbegun.parent), "--name"]
    assert parse("Walk", [*TINY, *where, unbegun.name]).directory == unbegun
    assert "exists; give another --name" in refused(main, "Walk", [*TINY, *where, directory.name])


def test_checkpoints_without_their_configuration_or_record_are_refused(directory: Path, refused: Refused) -> None:
    (directory / "config.json").rename(directory.parent / "config.json")
    with pytest.raises(ConfigError, match=r"holds checkpoints or evaluations but no config\.json"):
        run(Walk(), Config(**SIZES), directory)
    (directory.parent / "config.json").rename(directory / "config.json")
    (directory / "metrics.jsonl").unlink()
    assert "lacks step 100 of seed 0" in refused(main, "Walk", ["--resume", str(directory)])


def test_a_finished_cell_that_is_damaged_is_named(tmp_path: Path, refused: Refused) -> None:
    place = tmp_path / "run" / "cubic-mse"
    place.mkdir(parents=True)
    (tmp_path / "run" / "config.json").write_text(json.dumps(to_json(cells({"method": "mse"}))))
    scores = {"normalized_dq": [1.0], "test_mse": [1.0], "task": "cubic", "baselines": 5}
    for text in (
        "",
        "[]",
        "{}",
        "\x00",
        "\ufeff{}",
        "[" * 100_000,
        json.dumps(scores),
        json.dumps(scores | {"baselines": {"zero": []}}),
    ):
        (place / "result.json").write_text(text or " ")
        error = refused(decide, ["--resume", str(tmp_path / "run")])
        assert f"{place} is damaged (" in error and f"remove {place / 'result.json'} to train it again" in error


# ---- signals


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)])
def test_a_signal_before_the_training_ends_an_agent_with_how_to_go_on(
    number: int,
    code: int,
    tmp_path: Path,
    settings_stay: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = {one: signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)}
    monkeypatch.setattr(Trainer, "compile", lambda self: signal.raise_signal(number))
    assert main("Walk", [*TINY, "--logdir", str(tmp_path), "--name", "run"]) == code
    error = capsys.readouterr().err
    assert error.startswith("stopped; to go on: python -m ") and error.endswith(f" --resume {tmp_path / 'run'}\n")
    assert {one: signal.getsignal(one) for one in before} == before


def test_a_signal_while_the_data_of_a_decision_task_is_prepared_ends_it(
    tmp_path: Path, settings_stay: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(CellTrainer, "init", lambda self: signal.raise_signal(signal.SIGTERM))
    assert decide(["--method", "lodl", "--logdir", str(tmp_path), "--name", "run"]) == 143
    assert capsys.readouterr().err == f"stopped; to go on: python -m decision_tasks --resume {tmp_path / 'run'}\n"


def test_a_signal_before_there_is_a_run_ends_a_command_in_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    @command
    def imports() -> int:
        signal.raise_signal(signal.SIGTERM)
        return 0

    assert imports() == 143
    assert capsys.readouterr().err.startswith("stopped; to go on, give the command again")


@pytest.mark.parametrize(
    ("code", "number", "said"),
    [
        ("signal.raise_signal(signal.SIGINT)", 130, "interrupted\n"),
        ("with StopSignal('go on so'): signal.raise_signal(signal.SIGTERM)", 143, "go on so\n"),
    ],
)
def test_a_signal_while_a_command_starts_ends_it_though_a_library_catches_everything(
    code: str, number: int, said: str, tmp_path: Path
) -> None:
    (tmp_path / "slow").mkdir()
    (tmp_path / "slow" / "__init__.py").write_text("import mbrl_taskmet.runner.starting")
    program = f"import signal\nfrom mbrl_taskmet.runner.signals import StopSignal\ntry:\n    {code}\nexcept BaseException: pass"
    (tmp_path / "slow" / "__main__.py").write_text(program)
    done = subprocess.run([sys.executable, "-m", "slow"], cwd=tmp_path, capture_output=True, text=True, timeout=60,
                          env=os.environ | {"PYTHONPATH": str(ROOT)})  # fmt: skip
    assert (done.returncode, done.stderr) == (number, said)


def test_what_libraries_make_of_an_interrupted_import_is_no_error_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    @command
    def imports() -> int:
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise ImportError("an error while initializing the extension") from None
        return 0

    assert imports() == 130 and capsys.readouterr().err.startswith("stopped; to go on")


def test_a_second_signal_ends_as_usual_and_an_ignored_one_stays_so() -> None:
    usual, ignored = signal.getsignal(signal.SIGINT), signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopSignal("outer"), StopSignal("inner") as stop, stop.patient():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN  # as `nohup` sets it
            signal.raise_signal(signal.SIGINT)
            assert stop and signal.getsignal(signal.SIGINT) is usual
    finally:
        signal.signal(signal.SIGHUP, ignored)
    with pytest.raises(Stopped, match="inner"), StopSignal("outer"), StopSignal("inner"):
        signal.raise_signal(signal.SIGTERM)


# ---- a machine that fails


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "run/x"), 1, "No space left on device (run/x); what"),
        (PermissionError(errno.EACCES, "Permission denied", "run"), 1, "Permission denied (run); what is written stays"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "moved"), 1, "No such file or directory (moved); what"),
        (BrokenPipeError(), 141, None),
        (ConfigError("one\ntwo"), 2, "one two"),
    ],
)  # fmt: skip
def test_a_machine_that_fails_is_answered_in_one_sentence(
    error: Exception, code: int, sentence: str | None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mbrl_taskmet.runner.command._drop_output", lambda: None)

    @command
    def fails() -> int:
        raise error

    assert fails() == code
    said = capsys.readouterr().err
    assert said == "" if sentence is None else said.startswith(f"error: {sentence}") and said.count("\n") == 1


def test_a_checkpoint_that_cannot_be_written_is_an_error_of_the_machine(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="the checkpoint cannot be written: No space left on device"), writing(tmp_path):
        raise ValueError("INTERNAL: Error writing\n'd/0': [OS error 28: ENOSPC No space left on device]")


def test_a_directory_that_is_moved_ends_the_run_in_one_sentence(
    tmp_path: Path, settings_stay: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows_of = agent.rows_of

    def move(*args: Any) -> Any:
        if (tmp_path / "run").exists():
            (tmp_path / "run").rename(tmp_path / "moved")
        return rows_of(*args)

    monkeypatch.setattr(agent, "rows_of", move)
    assert main("Walk", [*TINY, "--logdir", str(tmp_path), "--name", "run"]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"error: No such file or directory ({tmp_path / 'run' / 'metrics.jsonl'}); what is written stays")
    assert error.count("\n") == 1 and not (tmp_path / "run").exists()


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_output_is_written_as_the_stream_can_take_it(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding=encoding))

    @command
    def tells() -> int:
        print("α ± 1")
        return 0

    assert tells() == 0
    assert written.getvalue() == {"ascii": b"\\u03b1 \\xb1 1\n", "cp1252": b"\\u03b1 \xb1 1\n"}[encoding]


@pytest.mark.parametrize("package", ["agents.cartpole", "decision_tasks"])
def test_help_into_a_pipe_that_closes_and_in_ascii(package: str) -> None:
    script = f"{sys.executable} -m {package} --help | head -1; exit ${{PIPESTATUS[0]}}"
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=120, env=environment)
    assert done.returncode in (0, 141) and done.stderr == "" and done.stdout.startswith("usage: ")


def test_without_a_home_directory_the_cache_is_left_out_with_a_warning(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], settings_stay: None
) -> None:
    def nobody() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    monkeypatch.setattr(Path, "home", nobody)
    assert command(lambda: start_jax(1) or 0)() == 0
    error = capsys.readouterr().err
    assert error.startswith("warning: there is no home directory") and error.count("\n") == 1


def test_debugging_nans_is_left_out_with_a_warning(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "unused")
    with jax.debug_nans(True):
        assert command(lambda: start_jax(1) or 0)() == 0
    assert capsys.readouterr().err.startswith("warning: JAX_DEBUG_NANS is left out")


def test_a_run_whose_pictures_fail_is_finished_all_the_same(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: Any) -> None:
        raise ValueError("no\nfont")

    monkeypatch.setattr(agent, "plot_run", broken)
    with pytest.warns(UserWarning, match="is finished, but its pictures could not be drawn .no font.; to draw them: call run"):
        outcome = run(Walk(), Config(**SIZES), directory)
    assert outcome.rows == read_rows(directory)


def test_a_resume_on_another_number_of_devices_says_so(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = resolved(Walk(), Config(**SIZES))
    checkpoints = Checkpoints(directory / "checkpoints", Trainer(Walk(), make_method(Walk(), settings), settings))
    assert checkpoints.moved() is None
    monkeypatch.setattr(checkpoints, "_here", {"devices": 2, "platform": "gpu"})
    assert str(checkpoints.moved()).startswith("so far the run was on 1 cpu device(s), now on 2 gpu device(s): its numbers may")


# ---- every consumer takes null


@pytest.mark.parametrize(
    "weights",
    [[None] * 4, [None, 1.0, 2.0, None], [1e38] * 4, [0.0, -1e300, 1e300, 1e-300], [None, 1e300, 0.0] * 4, [None] * 9],
)
def test_every_consumer_takes_a_metric_that_overflowed(weights: list[float | None], tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"step": step, "seed": seed, "eval/return": None, "train/model_mse_state": None, "wall_time": 1.0,
         "metric/x": weights[0], "metric/y": weights[1], "metric/diagonal": weights, "metric/distractors_mean": None}
        for step in (100, 200) for seed in (0, 1)
    ]  # fmt: skip
    events = Events(tmp_path / "tensorboard")
    for row in rows:
        events.add(row)
    events.close()
    plot_run(rows, ("x", "y"), "title", tmp_path / "curves.png")
    plot_groups({"one": rows, "other": [row | {"metric/diagonal": None} for row in rows]}, tmp_path / "groups.png")
    assert (tmp_path / "curves.png").stat().st_size and (tmp_path / "groups.png").stat().st_size
