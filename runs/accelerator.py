"""What an accelerator does with this library, for one that is at hand for minutes only: `python -m runs.accelerator`.

    agreement    200 updates of each method in float64, side by side on the accelerator, against one after the other on a CPU
    throughput   environment steps per second of 1 to 1024 runs in one program, and memory against the prediction
    tables       the decision tasks' Tables 2 and 3
    figure6      TaskMet's Figure 6, as much of it as the time allows

Each part is a process of its own and gets a share of `--minutes`; what it has found by then counts, so nothing that hangs or
fails takes the others with it. Written to `runs/results/accelerator.md` and `.json` after every part. `--rehearse` does the
same in small on whatever device there is.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mbrl_taskmet.core.settings import ConfigError
from mbrl_taskmet.runner.command import Parser, command
from mbrl_taskmet.runner.records import read_json, write_json, write_text
from runs.report import markdown

RESULTS = Path("runs/results")
COUNTS, DISTRACTORS = (1, 16, 64, 128, 1024), (8, 128)
UPDATES = 200
SHOWN = ("mean", "iqm", "ci95", "env_steps", "steps_per_second", "mean_normalized_dq", "stderr_normalized_dq", "mean_test_mse",
         "stderr_test_mse", "wall_seconds")  # fmt: skip
"""What is told of a finished run, or of a finished cell."""
_FOUND = "found "
Found = dict[str, Any]


def agreement(rehearse: bool) -> Iterator[Found]:
    """The largest difference of what 200 updates leave, relative to the largest number of each array."""
    import jax
    import numpy as np

    from envs.make import make_environment
    from mbrl_taskmet import METHODS, Config
    from mbrl_taskmet.rl.make import make_method
    from mbrl_taskmet.rl.training import Trainer, resolved

    places = [("CartPole-v1", method) for method in METHODS] + [("Pendulum-v1", "taskmet")]
    for name, method in places[:2] if rehearse else places:
        env, steps = make_environment(name, distractors=8), UPDATES + 64
        sizes: Found = {"steps": steps, "eval_every": steps, "random_steps": 64, "batch_size": 64, "eval_episodes": 1}
        at_once = {"metric_warmup": 0} if method == "taskmet" else {}
        settings = resolved(env, Config(method=method, seeds=2, x64=True, **sizes, **at_once))
        learned = []
        for devices, vmapped in ((jax.devices()[:1], True), (jax.devices("cpu")[:1], False)):
            trainer = Trainer(env, make_method(env, settings), settings, devices, vmapped=vmapped)
            carry, _ = trainer.chunk(trainer.init(), 0)
            learned.append(jax.tree.leaves(trainer.axis.to_host(carry.learner)))
        differences = (np.abs(a - b).max() / max(np.abs(b).max(), 1e-12) for a, b in zip(*learned, strict=True) if b.size)
        yield {"method": method, "environment": name, "largest difference": float(max(differences))}


def throughput(rehearse: bool) -> Iterator[Found]:
    """Steps per second of TaskMet's default, its metric moving: the median of chunks of 400 steps after the first."""
    import statistics

    import jax

    from mbrl_taskmet.runner.memory import required_bytes
    from runs.programs import STEPS, trainer

    for distractors in DISTRACTORS[:1] if rehearse else DISTRACTORS:
        for count in COUNTS[:2] if rehearse else COUNTS:
            timed = trainer({}, seeds=count, steps=100_000, distractors=distractors)
            compiling, seconds, carry = timed.compile(), [], timed.init()
            for chunk in range(4):
                begin = time.perf_counter()
                carry, _ = jax.block_until_ready(timed.chunk(carry, chunk * STEPS))
                seconds.append(time.perf_counter() - begin)
            speed = count * STEPS / statistics.median(seconds[2:])
            peak = (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
            yield {
                "runs": count, "distractors": distractors, "steps per second": speed, "compile seconds": compiling,
                "minutes of 100k steps": 1e5 * count / speed / 60, "predicted GB": required_bytes(timed) / 1e9,
                "peak GB so far": None if peak is None else peak / 1e9,
            }  # fmt: skip


def tables(rehearse: bool) -> list[str]:
    """The command of the decision tasks' tables."""
    small = ["--task", "cubic", "--method", "mse", "--datasets", "1", "--seeds", "1", "--steps", "200"]
    return ["decision_tasks", *(small if rehearse else ["--task", "all", "--method", "all"])]


def figure6(rehearse: bool) -> list[str]:
    """The command of Figure 6, TaskMet first."""
    small = ["--seeds", "1", "--steps", "2000", "--only", "taskmet-16"]
    return ["runs.distractors", *(small if rehearse else ["--seeds", "10", "--steps", "100000", "--only", "taskmet-*"])]


MEASURED: dict[str, Callable[[bool], Iterator[Found]]] = {"agreement": agreement, "throughput": throughput}
COMMANDS: dict[str, Callable[[bool], list[str]]] = {"tables": tables, "figure6": figure6}
SHARES = {"agreement": 2.0, "throughput": 3.0, "tables": 3.0, "figure6": 2.0}
"""Of the time that is left, what a part gets against those after it."""


@command
def main(argv: list[str] | None = None) -> int:
    """Run the parts, or one of them in this process."""
    parser = Parser(prog="python -m runs.accelerator", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(SHARES)} (default: all)")
    parser.add_argument(
        "--minutes", type=float, default=7.5, metavar="X", help="time limit of all parts together (default: %(default)s)"
    )
    parser.add_argument(
        "--output", type=Path, default=RESULTS, metavar="DIR", help="where the results go (default: %(default)s)"
    )
    parser.add_argument("--rehearse", action="store_true", help="small sizes, on any device")
    parser.add_argument("--inside", metavar="PART", help="measure one part in this process, and print what it finds")
    given = parser.read(argv)[1]
    names = [given["inside"]] if given["inside"] else given["parts"] or list(SHARES)
    if unknown := [name for name in names if name not in (MEASURED if given["inside"] else SHARES)]:
        raise ConfigError(f"{unknown[0]!r} is no part; give some of {', '.join(SHARES)}")
    if not 0 < given["minutes"] < float("inf"):
        raise ConfigError(f"--minutes is {given['minutes']}; give a number above 0")
    if given["inside"]:
        for found in MEASURED[given["inside"]](given["rehearse"]):
            print(f"{_FOUND}{json.dumps(found)}", flush=True)
        return 0
    device = json.loads(_last(_python(["-c", _DEVICE])))
    if device["platform"] == "cpu" and not given["rehearse"]:
        raise ConfigError("JAX sees no accelerator here; install the extra for it, such as .[cuda13], or give --rehearse")
    _measure(names, device, time.monotonic() + 60 * given["minutes"], given["output"], given["rehearse"])
    return 0


_DEVICE = """
import json, jax
from mbrl_taskmet.runner.versions import environment
made = environment()
print(json.dumps({"platform": jax.devices()[0].platform, **made}))
"""


def _measure(names: list[str], device: Found, end: float, output: Path, rehearse: bool) -> None:
    """Run parts until a moment of `time.monotonic`, and write what they find as they go."""
    output.mkdir(parents=True, exist_ok=True)
    results: Found = {"device": device, "rehearsal": rehearse, "date": time.strftime("%Y-%m-%d"), "parts": {}}
    for place, name in enumerate(names):
        left = end - time.monotonic()
        seconds = left * SHARES[name] / sum(SHARES[later] for later in names[place:])
        print(f"{name}: up to {seconds:.0f} s", flush=True)
        results["parts"][name] = _part(name, max(seconds, 1.0), rehearse)
        write_json(output / "accelerator.json", results)
        write_text(output / "accelerator.md", told(results))
    print(told(results))


def _part(name: str, seconds: float, rehearse: bool) -> Found:
    """What a part finds in so many seconds: {seconds, ended, found}."""
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        if name in MEASURED:
            arguments = ["-m", "runs.accelerator", "--inside", name, *(["--rehearse"] if rehearse else [])]
        else:
            arguments = ["-m", *COMMANDS[name](rehearse), "--logdir", folder]
        process = _python(arguments)
        timer = threading.Timer(seconds, lambda: _end(process))
        timer.start()
        lines = process.communicate()[0].splitlines()
        timer.cancel()
        found = [json.loads(line.removeprefix(_FOUND)) for line in lines if line.startswith(_FOUND)]
        if name in COMMANDS:
            found = list(_summaries(Path(folder)))
    code = process.returncode
    why = (
        None if code == 0 else "stopped at the end of its time" if time.monotonic() - begin >= seconds else f"exit code {code}"
    )
    return {"seconds": time.monotonic() - begin, "whole": code == 0, "why not": why, "found": found}


def _summaries(folder: Path) -> Iterator[Found]:
    """What finished runs and cells below a directory came to."""
    for path in sorted(folder.rglob("summary.json")) + sorted(folder.rglob("result.json")):
        summary = read_json(path)
        if shown := {key: summary[key] for key in SHOWN if key in summary}:
            yield {"run": path.parent.relative_to(folder).as_posix(), **shown}


def _python(arguments: list[str]) -> subprocess.Popen[str]:
    # what one process leaves of an accelerator's memory, the next one gets
    environment = os.environ | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    return subprocess.Popen([sys.executable, *arguments], stdout=subprocess.PIPE, text=True, env=environment)


def _last(process: subprocess.Popen[str]) -> str:
    output = process.communicate()[0].strip()
    if process.returncode:
        raise ConfigError("JAX does not start here; see the lines above")
    return output.splitlines()[-1]


def _end(process: subprocess.Popen[str]) -> None:
    """Ask a process to stop, which writes a checkpoint; twice for at once; then end it."""
    for number, wait in ((signal.SIGINT, 5.0), (signal.SIGINT, 3.0), (signal.SIGKILL, 0.0)):
        if process.poll() is None:
            process.send_signal(number)
            time.sleep(wait)


def told(results: Found) -> str:
    """The results for a reader."""
    device = results["device"]["device"]
    rehearsal = " This is a rehearsal in small." if results["rehearsal"] else ""
    text = [f"# What an accelerator does\n\n{device['kind']} ({device['platform']}), {results['date']}.{rehearsal} Made by "
            "`python -m runs.accelerator`.\n"]  # fmt: skip
    for name, part in results["parts"].items():
        state = "" if part["whole"] else f"; {part['why not']}"
        text.append(f"\n## {name}\n\n{part['seconds']:.0f} s{state}.\n\n")
        columns = list(dict.fromkeys(key for found in part["found"] for key in found))
        if columns:
            text.append(markdown([{key: _cell(found.get(key)) for key in columns} for found in part["found"]]))
    return "".join(text)


def _cell(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_cell, value))
    return f"{value:.3g}" if isinstance(value, float) else "" if value is None else str(value)


if __name__ == "__main__":
    sys.exit(main())
