"""Speed and memory, as ratios within one run: `python -m runs.speed`, or with the names of some of its parts.

    update   one update of each method and solver, against OMD's
    loop     a whole environment step against its bare update
    sweep    6 settings × 10 seeds in one program against as many runs alone
    files    what records and checkpoints add to a run
    seeds    8 seeds in one process on 2 cores against two processes of one seed, each on its own core
    start    seconds from the command to the first evaluation, without and with the persistent compilation cache
    continuous  soft actor-critic's updates on Pendulum-v1, a whole step, and the share of brax
    kernels  kernels in an environment step's program, of one run and of 5 side by side, here and on an H100, for which it is
             compiled without one where JAX' plugin for CUDA is installed
    decision the decision tasks' costly steps, on all cores
    memory   peak memory of 512 distractors, 10 seeds, 200 000 steps, against the prediction

Every figure is a median over interleaved repetitions. Written to `runs/results/speed-<platform>.json`.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mbrl_taskmet.core.settings import ConfigError
from mbrl_taskmet.runner.command import Parser, command, cores
from mbrl_taskmet.runner.records import read_json, write_json
from runs.programs import STEPS, stepping, steps, trainer, updates
from runs.tables import undamaged
from runs.timing import REPEATS, interleaved

RESULTS = Path("runs/results")


def update() -> dict[str, Any]:
    """Microseconds of one update and its ratio to OMD's, one seed, 8 distractors, batch 256, one core."""
    settings: dict[str, dict[str, Any]] = {
        "omd": {"method": "omd"},
        "mle": {"method": "mle"},
        "taskmet (default)": {},
        "taskmet (default, metric step every time)": {"metric_every": 1},
        "taskmet (normal_cg 10, metric step every time)": {"metric_every": 1, "solver": "normal_cg"},
        "taskmet (gauss_newton 5, metric step every time)": {"metric_every": 1, "solver": "gauss_newton"},
    }
    programs = {name: updates(given) for name, given in settings.items()}
    seconds = interleaved(programs)
    return {
        name: {"microseconds": 1e6 * value / STEPS, "ratio to omd": value / seconds["omd"]} for name, value in seconds.items()
    }


def loop() -> dict[str, Any]:
    """A whole environment step against its bare update: one seed, default method, 10 evaluation episodes every 1000 steps."""
    seconds = interleaved({"update": updates({}), "step": steps({}, 1000)})
    update, step = seconds["update"] / STEPS, seconds["step"] / 1000
    return {"update microseconds": 1e6 * update, "step microseconds": 1e6 * step, "ratio": step / update}


def continuous() -> dict[str, Any]:
    """Microseconds with soft actor-critic, one seed, 8 distractors, batch 256, one core: updates, a step, environments."""
    where = {"name": "Pendulum-v1"}
    methods: dict[str, dict[str, Any]] = {
        "omd": {"method": "omd"},
        "mle": {"method": "mle"},
        "model_free": {"method": "model_free"},
        "taskmet (default)": {},
        "taskmet (metric step every time)": {"metric_every": 1},
        "taskmet (horizon 4)": {"horizon": 4},
    }
    programs = {f"update, {name}": updates(given, **where) for name, given in methods.items()}
    seconds = interleaved({**programs, "step": steps({}, 1000, **where)})
    microseconds = {name: 1e6 * value / (1000 if name == "step" else STEPS) for name, value in seconds.items()}
    base = microseconds["update, taskmet (default)"]
    brax = {}
    for name in ("inverted_pendulum", "reacher", "hopper", "halfcheetah"):
        place: dict[str, Any] = {"name": name, "suite": "brax"}
        timed = interleaved({"alone": stepping(trainer({}, **place).env, 1000), "agent": steps({}, 1000, **place)})
        brax[name] = {"environment microseconds": 1e3 * timed["alone"], "step microseconds": 1e3 * timed["agent"],
                      "share": timed["alone"] / timed["agent"]}  # fmt: skip
    return {
        "microseconds": microseconds,
        "update, taskmet (default) / omd": base / microseconds["update, omd"],
        "step / update": microseconds["step"] / base,
        "brax": brax,
    }


def sweep() -> dict[str, Any]:
    """Figure 6's six settings × 10 seeds, as the runs of one program: seconds of 400 steps of each, against a run alone."""
    swept = {"metric_lr": [1e-4, 3e-4, 1e-3], "l1": [0.0, 0.001]}
    seconds = interleaved({"sixty": steps({}, STEPS, seeds=10, sweep=swept), "one": steps({}, STEPS)})
    return {"seconds, 60 runs": seconds["sixty"], "seconds, one run": seconds["one"],
            "ratio": seconds["sixty"] / (60 * seconds["one"])}  # fmt: skip


def files() -> dict[str, Any]:
    """Seconds of 20 000 steps with record and checkpoints, as the command keeps them, and without; compilation apart."""
    from mbrl_taskmet.runner.agent import run

    kept, without = [], []
    for repeat in range(REPEATS):
        timed = trainer({}, steps=20_000, eval_every=1000)
        timed.compile()
        start, begin = timed.init(), time.perf_counter()  # of a program of its own: its first call takes longer, as in `run`
        for _ in timed.run(start):
            pass
        without.append(time.perf_counter() - begin)
        with tempfile.TemporaryDirectory() as folder:
            kept.append(run(timed.env, timed.settings, Path(folder, str(repeat))).rows[-1]["wall_seconds"])
    return {"seconds with": statistics.median(kept), "seconds without": statistics.median(without),
            "ratio": statistics.median(a / b for a, b in zip(kept, without, strict=True))}  # fmt: skip


def seeds() -> dict[str, Any]:
    """Total environment steps per second."""
    alone, together = [], []
    for _ in range(3):
        processes = [_child("seeds_child", 1, core) for core in (0, 1)]
        alone.append(sum(float(_output(process)) for process in processes))
        together.append(float(_output(_child("seeds_child", 8, None))))
    return {
        "two processes, one seed each": statistics.median(alone),
        "one process, 8 seeds": statistics.median(together),
        "ratio": statistics.median(b / a for a, b in zip(alone, together, strict=True)),
    }


def start() -> dict[str, Any]:
    """Seconds to the first evaluation of `python -m agents.cartpole --distractors 8`."""
    with tempfile.TemporaryDirectory() as folder:
        return {"cold": _first_evaluation(folder, "a"), "with the compilation cache": _first_evaluation(folder, "b")}


def memory() -> dict[str, Any]:
    """Gigabytes at the peak of a process that starts the largest run and trains two chunks, and the prediction."""
    measured, predicted = json.loads(_output(_child("memory_child", 10, None)))
    return {"peak GB": measured / 1e9, "predicted GB": predicted / 1e9, "ratio": measured / predicted}


def decision() -> dict[str, Any]:
    """Milliseconds of the decision tasks' costly steps; see `runs/speed_decision.py`."""
    return json.loads(_output(_child("decision_child", cores(), None)))


def kernels() -> dict[str, Any]:
    """Kernels and their starts in one environment step; see `runs/kernels.py`."""
    from runs.kernels import measure

    return measure()


PARTS: dict[str, Callable[[], dict[str, Any]]] = {
    "update": update,
    "loop": loop,
    "sweep": sweep,
    "files": files,
    "continuous": continuous,
    "seeds": seeds,
    "start": start,
    "kernels": kernels,
    "memory": memory,
    "decision": decision,
}


@command
def main(argv: list[str] | None = None) -> int:
    """Measure the named parts (all by default) and merge them into the results file."""
    parser = Parser(prog="python -m runs.speed", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)} (default: all)")
    names = parser.read(argv)[1]["parts"]
    unknown = [name for name in names if name not in PARTS]
    if unknown:
        raise ConfigError(f"{unknown[0]!r} is no part; give some of {', '.join(PARTS)}")
    _read(_path())  # a damaged file is refused before anything is measured
    for name in names or list(PARTS):
        store(name, PARTS[name]())
    return 0


def store(name: str, figures: dict[str, Any]) -> None:
    """Print a part's figures and merge them into the results of this platform."""
    import jax

    device, results = jax.devices()[0], _read(_path())
    results["machine"] = {
        "device": device.device_kind,
        "processor": _processor(),
        "cores": cores(),
        "jax": jax.__version__,
        "date": time.strftime("%Y-%m-%d"),
    }
    results[name] = figures
    print(name, json.dumps(figures, indent=2), flush=True)
    RESULTS.mkdir(parents=True, exist_ok=True)
    write_json(_path(), results)


def _path() -> Path:
    import jax

    return RESULTS / f"speed-{jax.devices()[0].platform}.json"


def _read(path: Path) -> dict[str, Any]:
    """The results of all parts so far."""
    if not path.exists():
        return {}
    with undamaged(path, "restore it, or move it away"):
        results = read_json(path)
        if not isinstance(results, dict):
            raise ValueError("it is no table of parts")
        return results


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _child(function: str, seeds: int, core: int | None) -> subprocess.Popen[str]:
    pin = f"import os; os.sched_setaffinity(0, {{{core}}}); " if core is not None else ""
    code = f"{pin}from runs import speed; speed.{function}({seeds})"
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)


def _output(process: subprocess.Popen[str]) -> str:
    output, _ = process.communicate()
    if process.returncode:
        raise RuntimeError(f"a measuring process ended with {process.returncode}")
    return output.strip().splitlines()[-1]


def seeds_child(count: int) -> None:
    """Print environment steps per second of all seeds, median over chunks that train."""
    import jax

    jax.config.update("jax_num_cpu_devices", min(count, cores()))
    timed = trainer({}, seeds=count, steps=8000, eval_every=1000)
    speeds, last = [], time.perf_counter()
    for _ in timed.run(timed.init()):
        now = time.perf_counter()
        speeds.append(count * 1000 / (now - last))
        last = now
    print(statistics.median(speeds[2:]))


def decision_child(count: int) -> None:
    """Print `runs.speed_decision.measure` on `count` CPU devices."""
    import jax

    from runs.speed_decision import measure

    jax.config.update("jax_num_cpu_devices", count)
    print(json.dumps(measure()))


def memory_child(count: int) -> None:
    """Print the peak resident bytes and the prediction for 512 distractors and 200 000 steps."""
    import resource

    import jax

    from mbrl_taskmet.runner.memory import required_bytes

    jax.config.update("jax_num_cpu_devices", min(count, cores()))
    timed = trainer({}, seeds=count, distractors=512, steps=200_000, eval_every=500)
    carry = timed.init()
    for chunk in range(2):
        carry, _ = timed.chunk(carry, 500 * chunk)
    jax.block_until_ready(carry)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps([peak, required_bytes(timed)]))


def _first_evaluation(folder: str, name: str) -> float:
    command = [sys.executable, "-m", "agents.cartpole", "--distractors", "8", "--logdir", folder, "--name", name]
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": f"{folder}/cache"}
    begin = time.perf_counter()
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    rows = Path(folder, name, "metrics.jsonl")
    while not (rows.exists() and rows.stat().st_size):
        time.sleep(0.05)
    seconds = time.perf_counter() - begin
    process.kill()
    process.wait()
    return seconds


if __name__ == "__main__":
    sys.exit(main())
