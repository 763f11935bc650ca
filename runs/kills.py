"""Kills at random moments: `python -m runs.kills --kills 100` counts the runs that end bit for bit as if undisturbed.

A small run of an agent or of the decision tasks is started, killed (SIGKILL) after a random time, started again as its user
would, killed again, up to six times, and then left to end. Its record and its last checkpoint with the replay, or a task's
results, are compared, bit for bit, with those of a run that was never killed. Written to `runs/results/kills.json` and
`kills.md`.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from mbrl_taskmet.runner.command import command
from mbrl_taskmet.runner.records import read_rows
from mbrl_taskmet.runner.rundir import began
from runs import trials

COMMANDS: dict[str, list[str]] = {
    "agent": ["agents.cartpole", "--method", "mle", "--distractors", "2", "--steps", "4000", "--eval-every", "50",
              "--eval-episodes", "1", "--random-steps", "64", "--batch-size", "32", "--checkpoint-share", "1"],
    "decision task": ["decision_tasks", "--task", "cubic", "--method", "dfl", "--datasets", "8", "--seeds", "2",
                      "--train", "100", "--validation", "10", "--test", "10", "--steps", "3000"],
}  # fmt: skip
MOST = 6
"""Kills of one run."""
CLOCK = ("wall_time", "wall_seconds", "time/steps_per_second")
MOMENTS = ("before the directory", "before the first checkpoint", "while a checkpoint was written", "in training")


@command
def main(argv: list[str] | None = None) -> int:
    """Run the kills and write the counts; 1 if a run did not end as the undisturbed one."""
    options = trials.read(argv, "kills", __doc__ or "", "kills", 100, "moments")
    with tempfile.TemporaryDirectory() as folder:
        found = kill(options.kills, options.seed, Path(folder))
    trials.write(options.output, "kills", found, told)
    return 0 if found["identical_runs"] == found["runs"] else 1


def kill(kills: int, seed: int, folder: Path) -> dict[str, Any]:
    """The outcome of `kills` kills; the runs are in `folder`."""
    chance, begin = random.Random(seed), time.monotonic()
    undisturbed = {kind: _undisturbed(kind, folder) for kind in COMMANDS}
    moments: Counter[str] = Counter()
    lost: list[dict[str, Any]] = []
    runs = killed = done = 0
    while done < kills:
        kind = list(COMMANDS)[runs % len(COMMANDS)]
        whole, seconds = undisturbed[kind]
        directory, times = folder / f"run{runs}", 0
        for _ in range(min(chance.randint(1, MOST), kills - done)):
            moment = _killed(_command(kind, directory, chance), chance.uniform(0, seconds), directory, folder)
            if moment is None:  # it was faster
                break
            moments[moment] += 1
            times += 1
        error = _ended(_command(kind, directory, chance), folder) or difference(directory, whole)
        if error:
            print(error, file=sys.stderr)
            lost.append({"run": runs, "kind": kind, "kills": times, "error": error})
        runs, killed, done = runs + 1, killed + bool(times or error), done + times
        print(f"{done} kills of {killed} runs, {killed - len(lost)} identical", file=sys.stderr, flush=True)
    return {
        "kills": done, "seed": seed, "runs": killed, "identical_runs": killed - len(lost),
        "kills_of_identical_runs": done - sum(one["kills"] for one in lost), "lost": lost,
        "moments": {name: moments[name] for name in MOMENTS}, "minutes": (time.monotonic() - begin) / 60,
    }  # fmt: skip


def difference(directory: Path, whole: Path) -> str | None:
    """What of a run's last checkpoints, replay and record is not as in the undisturbed one, or None."""
    for path in sorted(whole.rglob("state")):
        place = path.relative_to(whole).parents[1]
        if _timeless(directory / place) != _timeless(whole / place):
            return f"the record of {place}"
        mine, theirs = _arrays(directory / place), _arrays(whole / place)
        if mine.keys() != theirs.keys():
            return f"the arrays of {place}"
        for name in theirs:
            if mine[name].dtype != theirs[name].dtype or mine[name].tobytes() != theirs[name].tobytes():
                return f"{name} of {place}"
    left = [path.name for path in directory.rglob("*") if "orbax-checkpoint-tmp" in path.name]
    return f"{left[0]} was left" if left else None


def told(found: dict[str, Any]) -> str:
    """The figures as Markdown."""
    lines = "\n".join(f"| {moment} | {count} |" for moment, count in found["moments"].items())
    failures = "".join(f"- {one['kind']}, {one['kills']} kills: {one['error']}\n" for one in found["lost"])
    counted = f"{found['identical_runs']} of {found['runs']} runs, killed {found['kills']} times in all,"
    return f"""# Kills at random moments

{counted} ended bit for bit like one that never was; {found["kills_of_identical_runs"]} of the kills were in these.

A run is a small agent or decision task. It is killed up to {MOST} times, start-up and resumes included, and started again with
`--resume` or, where it had not begun, with the same command. Compared are the record and the last checkpoint with the replay,
or a task's results.

| the kill came | times |
|---|---|
{lines}
{failures}
Made by `python -m runs.kills --kills {found["kills"]} --seed {found["seed"]}` in {found["minutes"]:.0f} minutes.
"""


def _undisturbed(kind: str, folder: Path) -> tuple[Path, float]:
    """A run that is not killed, and the seconds it takes once its programs are in the cache."""
    error = _ended(_new(kind, folder / f"warm {kind}"), folder)
    begin = time.monotonic()
    error = error or _ended(_new(kind, folder / f"whole {kind}"), folder)
    if error:
        raise RuntimeError(error)
    return folder / f"whole {kind}", time.monotonic() - begin


def _new(kind: str, directory: Path) -> list[str]:
    return [*COMMANDS[kind], "--logdir", str(directory.parent), "--name", directory.name]


def _command(kind: str, directory: Path, chance: random.Random) -> list[str]:
    """The user's next command: `--resume`, or the first command again if the run has not begun."""
    if not directory.exists() or (not began(directory) and chance.random() < 0.5):
        return _new(kind, directory)
    share = ["--checkpoint-share", "1"] if kind == "agent" else []
    return [COMMANDS[kind][0], "--resume", str(directory), *share]


def _started(argv: list[str], folder: Path) -> subprocess.Popen[str]:
    environment = os.environ | {
        "JAX_COMPILATION_CACHE_DIR": str(folder / "cache"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    return subprocess.Popen(
        [sys.executable, "-m", *argv], env=environment, text=True, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip


def _killed(argv: list[str], seconds: float, directory: Path, folder: Path) -> str | None:
    """Kill a command after so many seconds; the moment at which that was, or None if it had ended."""
    process = _started(argv, folder)
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    if process.returncode != -signal.SIGKILL:
        return None
    if not directory.exists():
        return MOMENTS[0]
    if not began(directory):
        return MOMENTS[1]
    return MOMENTS[2] if any("orbax-checkpoint-tmp" in path.name for path in directory.rglob("*")) else MOMENTS[3]


def _ended(argv: list[str], folder: Path) -> str | None:
    """Wait for a command; its output if it fails."""
    process = _started(argv, folder)
    error = process.communicate()[1]
    return None if process.returncode == 0 else f"exit code {process.returncode}: {error.strip()[-500:]}"


def _timeless(place: Path) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key not in CLOCK} for row in read_rows(place)]


def _arrays(place: Path) -> dict[str, np.ndarray]:
    """Every array of a job's last checkpoint, the replay's blocks joined; the results of a cell, which may end between two."""
    import orbax.checkpoint as ocp

    if (place / "result.json").exists():
        results = json.loads((place / "result.json").read_text(encoding="utf-8"))
        return {
            **{name: np.array(str(value)) for name, value in results.items() if name not in CLOCK},
            **np.load(place / "learned.npz"),
        }
    states, blocks = place / "checkpoints" / "state", place / "checkpoints" / "replay"
    last = max((path for path in states.iterdir() if path.name.isdigit()), key=lambda path: int(path.name))
    read = ocp.StandardCheckpointer().restore
    state = {f"{name} at {last.name}": np.asarray(array) for name, array in read(last / "default").items()}
    paths = sorted(blocks.iterdir() if blocks.exists() else (), key=lambda path: int(path.name.split("-")[0]))
    parts = [read(path) for path in paths]
    names = [name for name in parts[0] if name != "crc32"] if parts else []
    return state | {name: np.concatenate([part[name] for part in parts], axis=1) for name in names}


if __name__ == "__main__":
    sys.exit(main())
