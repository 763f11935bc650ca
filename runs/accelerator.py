"""What an accelerator does with this library, for one that is at hand for minutes only: `python -m runs.accelerator`.

    agreement    200 updates of each method in float64, side by side on the accelerator, against one after the other on a CPU
    throughput   environment steps per second of 1 to 1024 runs in one program, and memory against the prediction
    tables       the decision tasks' Tables 2 and 3
    figure6      TaskMet's Figure 6, as much of it as the time allows

Each part is a process of its own and gets a share of `--minutes`; what it has found by then counts, so nothing that hangs or
fails takes the others with it. Written to `--output` after every part, beside the parts that earlier calls
measured on such a device. `--rehearse` does the same in small on whatever device there is.
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
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from mbrl_taskmet.core.settings import ConfigError
from mbrl_taskmet.runner.command import Parser, command
from mbrl_taskmet.runner.plotting import drawing, save_both
from mbrl_taskmet.runner.records import read_json, write_json, write_text
from runs.accelerator_parts import INSIDE, Found, cases
from runs.tables import markdown, undamaged

LOGS = Path("runs/logs")
SHOWN = ("mean", "iqm", "ci95", "env_steps", "steps_per_second", "mean_normalized_dq", "stderr_normalized_dq", "mean_test_mse",
         "stderr_test_mse", "wall_seconds")  # fmt: skip
"""What is told of a finished run, or of a finished cell."""
_FOUND = "found "


def commands(part: str, rehearse: bool, logs: Path) -> list[list[list[str]]]:
    """The commands of a part: each list of them is started at once, when those before it have ended.

    Args:
        part: its name.
        rehearse: whether they are small.
        logs: where runs are recorded.
    """
    small = ["--rehearse"] if rehearse else []

    def inside(name: str) -> list[list[str]]:
        every = range(cases(name, rehearse))
        return [["runs.accelerator", "--inside", name, "--case", str(case), *small] for case in every]

    if part == "agreement":
        return [inside("agreement")]
    if part == "throughput":
        return [inside("compiling"), inside("throughput")]
    if part == "tables":
        tiny = ["--task", "cubic", "--method", "mse", "--datasets", "1", "--seeds", "1", "--steps", "200"]
        whole = [["--task", task, "--method", "all"] for task in ("portfolio", "budget", "cubic")]
        return [[["decision_tasks", *given, "--logdir", str(logs)] for given in ([tiny] if rehearse else whole)]]
    tiny = ["--seeds", "1", "--steps", "2000", "--only", "taskmet-16"]
    figure = ["--seeds", "10", "--steps", "100000", "--only", "taskmet-*"]
    return [[["runs.distractors", *(tiny if rehearse else figure), "--logdir", str(logs)]]]


SHARES = {"agreement": 2.5, "throughput": 6.0, "tables": 3.5, "figure6": 0.5}
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
        "--output", type=Path, metavar="DIR", help=f"where the results go (default: {LOGS}/accelerator, or …_rehearsal)"
    )
    parser.add_argument("--rehearse", action="store_true", help="small sizes, on any device")
    parser.add_argument("--inside", metavar="NAME", help=f"measure in this process, and print it: {', '.join(INSIDE)}")
    parser.add_argument("--case", type=int, default=0, metavar="N", help="which of its cases (default: %(default)s)")
    given = parser.read(argv)[1]
    names, known = ([given["inside"]], list(INSIDE)) if given["inside"] else (given["parts"] or list(SHARES), list(SHARES))
    if unknown := [name for name in names if name not in known]:
        raise ConfigError(f"{unknown[0]!r} is no part; give some of {', '.join(known)}")
    if not 0 < given["minutes"] < float("inf"):
        raise ConfigError(f"--minutes is {given['minutes']}; give a number above 0")
    if given["inside"]:
        last = cases(given["inside"], given["rehearse"]) - 1
        if not 0 <= given["case"] <= last:
            raise ConfigError(f"--case is {given['case']}; give 0 to {last}")
        for found in INSIDE[given["inside"]](given["case"], given["rehearse"]):
            print(f"{_FOUND}{json.dumps(found)}", flush=True)
        return 0
    output = given["output"] or LOGS / ("accelerator_rehearsal" if given["rehearse"] else "accelerator")
    device = json.loads(_last(_python(["-c", _DEVICE])))
    if device["platform"] == "cpu" and not given["rehearse"]:
        raise ConfigError("JAX sees no accelerator here; install the extra for it, such as .[cuda13], or give --rehearse")
    _measure(names, device, time.monotonic() + 60 * given["minutes"], output, given["rehearse"])
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
    results: Found = {"device": device, "rehearsal": rehearse, "parts": _measured(device, rehearse, output)}
    for place, name in enumerate(names):
        left = end - time.monotonic()
        seconds = left * SHARES[name] / sum(SHARES[later] for later in names[place:])
        print(f"{name}: up to {seconds:.0f} s", flush=True)
        results["parts"][name] = {"date": time.strftime("%Y-%m-%d"), **_part(name, max(seconds, 1.0), rehearse)}
        write_json(output / "accelerator.json", results)
        write_text(output / "accelerator.md", page_of(results))
    with drawing(output, "give the same command again"):
        draw(results, output)
    print(page_of(results))


def _measured(device: Found, rehearse: bool, output: Path) -> Found:
    """The parts that an earlier call measured on a device of the same kind, which stay."""
    if not (output / "accelerator.json").exists():
        return {}
    with undamaged(output / "accelerator.json") as path:
        earlier = read_json(path)
        kind, rehearsal, parts = earlier["device"]["device"]["kind"], earlier["rehearsal"], dict(earlier["parts"])
    if (kind, rehearsal) != (device["device"]["kind"], rehearse):
        raise ConfigError(f"{output} has results of {kind}{' in small' * rehearsal}; give another --output")
    return parts


def draw(results: Found, output: Path) -> None:
    """Steps per second against the runs in one program, a line for each number of distractors."""
    from matplotlib.figure import Figure

    found = [one for one in results["parts"].get("throughput", {"found": []})["found"] if "steps per second" in one]
    if not found:
        return
    figure = Figure(figsize=(6, 4), layout="constrained")
    axis = figure.subplots()
    for distractors in sorted({one["distractors"] for one in found}):
        line = sorted((one["runs"], one["steps per second"]) for one in found if one["distractors"] == distractors)
        axis.loglog(*zip(*line, strict=True), "o-", label=f"{distractors} distractors")
    counts = sorted({one["runs"] for one in found})
    axis.set_xticks(counts, [str(count) for count in counts])
    axis.minorticks_off()
    axis.grid(alpha=0.3)
    axis.set_xlabel("runs in one program")
    axis.set_ylabel("environment steps per second, all runs together")
    axis.set_title(f"TaskMet on one {results['device']['device']['kind']}")
    axis.legend()
    save_both(figure, output / "throughput.png")


def _part(name: str, seconds: float, rehearse: bool) -> Found:
    """What a part finds in so many seconds: {seconds, whole, why not, found}."""
    begin, found, codes = time.monotonic(), [], []
    with tempfile.TemporaryDirectory() as place:
        folder, cache = Path(place) / "logs", Path(place) / "compiled"
        for together in commands(name, rehearse, folder):
            processes = [_python(["-m", *arguments], cache) for arguments in together]
            timer = threading.Timer(begin + seconds - time.monotonic(), _end, [processes])
            timer.start()
            lines = [line for output in _outputs(processes) for line in output.splitlines()]
            timer.cancel()
            found += [json.loads(line.removeprefix(_FOUND)) for line in lines if line.startswith(_FOUND)]
            codes += [process.returncode for process in processes if process.returncode]
        found = _joined(found + list(_summaries(folder)))
    late = time.monotonic() - begin >= seconds
    why = None if not codes else "stopped at the end of its time" if late else f"exit code {codes[0]}"
    return {"seconds": time.monotonic() - begin, "whole": not codes, "why not": why, "found": found}


def _outputs(processes: list[subprocess.Popen[str]]) -> Iterator[str]:
    with ThreadPoolExecutor(len(processes)) as readers:
        yield from readers.map(lambda process: process.communicate()[0], processes)


def _joined(found: list[Found]) -> list[Found]:
    """What several processes found of the same runs and distractors, in one."""
    joined: dict[Any, Found] = {}
    for number, one in enumerate(found):
        key = (one["runs"], one["distractors"]) if "runs" in one else number
        joined[key] = joined.get(key, {}) | one
    return list(joined.values())


def _summaries(folder: Path) -> Iterator[Found]:
    """What finished runs and cells below a directory came to."""
    for path in sorted(folder.rglob("summary.json")) + sorted(folder.rglob("result.json")):
        summary = read_json(path)
        if shown := {key: summary[key] for key in SHOWN if key in summary}:
            yield {"run": path.parent.relative_to(folder).as_posix(), **shown}


def _python(arguments: list[str], cache: Path | None = None) -> subprocess.Popen[str]:
    # what one process leaves of an accelerator's memory, the next one gets
    environment = os.environ | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", "XLA_PYTHON_CLIENT_MEM_FRACTION": "0.95"}
    if cache is not None:
        environment["JAX_COMPILATION_CACHE_DIR"] = str(cache)
    return subprocess.Popen([sys.executable, *arguments], stdout=subprocess.PIPE, text=True, env=environment)


def _last(process: subprocess.Popen[str]) -> str:
    output = process.communicate()[0].strip()
    if process.returncode:
        raise ConfigError("JAX does not start here; see the lines above")
    return output.splitlines()[-1]


def _end(processes: list[subprocess.Popen[str]]) -> None:
    """Ask processes to stop, which writes a checkpoint; twice for at once; then end them."""
    for number, wait in ((signal.SIGINT, 5.0), (signal.SIGINT, 3.0), (signal.SIGKILL, 0.0)):
        running = [process for process in processes if process.poll() is None]
        for process in running:
            process.send_signal(number)
        if running:
            time.sleep(wait)


def page_of(results: Found) -> str:
    """The results for a reader."""
    device = results["device"]["device"]
    rehearsal = " This is a rehearsal in small." if results["rehearsal"] else ""
    text = [f"# What an accelerator does\n\n{device['kind']} ({device['platform']}).{rehearsal} Made by "
            "`python -m runs.accelerator`.\n"]  # fmt: skip
    for name, part in results["parts"].items():
        state = "" if part["whole"] else f"; {part['why not']}"
        text.append(f"\n## {name}\n\n{part['date']}, {part['seconds']:.0f} s{state}.\n\n")
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
