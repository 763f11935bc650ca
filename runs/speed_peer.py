"""Model-free soft actor-critic beside SBX's: `python -m runs.speed_peer --python PYTHON`, an interpreter that has sbx-rl.

Pendulum-v1, two Q networks and an actor of two layers of 64 units, batches of 256, one update an environment step, one core.
Steps per second after compilation and the random steps, each in a process of its own, in turn; ours with one evaluation.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys

from mbrl_taskmet.core.settings import ConfigError
from mbrl_taskmet.runner.command import Parser, check_counts, command
from runs.speed import store

LEAST = 1000
PEER = """
import time
import gymnasium
from sbx import SAC
agent = SAC("MlpPolicy", gymnasium.make("Pendulum-v1"), learning_rate=1e-3, batch_size=256, learning_starts=1000, train_freq=1,
            gradient_steps=1, policy_kwargs={{"net_arch": [64, 64]}}, seed=0)
agent.learn(1500)
begin = time.perf_counter()
agent.learn({steps}, reset_num_timesteps=False)
print({steps} / (time.perf_counter() - begin))
"""
OURS = """
import time
import jax
from runs.programs import trainer
plain = {{"q_layer_norm": False, "q_sparsity": 0.0, "normalize_observations": False}}
given = {{"method": "model_free", "eval_episodes": 1, **plain}}
timed = trainer(given, name="Pendulum-v1", distractors=0, steps=2 * {steps}, eval_every={steps} // 2)
state = timed.init()
state, _ = timed.chunk(state, 1000)
begin = time.perf_counter()
state, _ = jax.block_until_ready(timed.chunk(state, 1000 + {steps} // 2))
print({steps} // 2 / (time.perf_counter() - begin))
"""


@command
def main(argv: list[str] | None = None) -> int:
    """Measure both in turn and add the ratio to the results of `runs.speed`."""
    parser = Parser(prog="python -m runs.speed_peer", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--python", default=sys.executable, help="interpreter that has sbx-rl (default: this one)")
    parser.add_argument("--steps", type=int, default=4000, help="environment steps that are timed (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="repetitions of each, in turn (default: %(default)s)")
    options = argparse.Namespace(**parser.read(argv)[1])
    check_counts(options, "steps", "repeats")
    if options.steps < LEAST:
        raise ConfigError(f"--steps is {options.steps}; give {LEAST} or more, for a batch and the random steps come before")
    theirs, ours = [], []
    for _ in range(options.repeats):
        theirs.append(_measured(options.python, PEER.format(steps=options.steps)))
        ours.append(_measured(sys.executable, OURS.format(steps=options.steps)))
    store("peer", {
        "SBX steps per second": statistics.median(theirs),
        "model_free steps per second": statistics.median(ours),
        "ratio": statistics.median(mine / its for mine, its in zip(ours, theirs, strict=True)),
    })  # fmt: skip
    return 0


def _measured(python: str, code: str) -> float:
    """What a program prints last, run on one core."""
    pinned = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n" + code
    try:
        done = subprocess.run([python, "-c", pinned], capture_output=True, text=True)
    except OSError as error:
        raise ConfigError(f"--python {python} cannot be run ({error.strerror}); give an interpreter") from error
    if "No module named 'sbx'" in done.stderr:
        raise ConfigError(f"--python {python} has no sbx; install sbx-rl there, or give an interpreter that has it")
    if done.returncode:
        raise RuntimeError(done.stderr.strip()[-500:])
    return float(done.stdout.split()[-1])


if __name__ == "__main__":
    sys.exit(main())
