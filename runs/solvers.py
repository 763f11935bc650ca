"""Return and quality of the metric's gradient against solver, damping, products and wall time.

`python -m runs.solvers`; see `runs/experiment.py` for its flags. The gradient is measured where TaskMet's own training has
led, at the last checkpoint of the first block of the default solver: on `BATCHES` batches of the replay,

    residual   ‖Hu − g‖/‖g‖
    cosine     with the same batch's gradient after `LONG` products of MINRES, an almost exact solve
    signal     ‖mean‖/‖standard deviation‖ over batches: a gradient that follows the batch teaches little
    ms         per gradient, one batch, one device, median

written to `gradients.md` and `.csv`, which stay as they are where that block is on another machine.
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from mbrl_taskmet.rl.settings import Config, read_saved
from mbrl_taskmet.runner.agent import restored
from mbrl_taskmet.runner.plotting import STYLES, draw_seeds, save_both
from mbrl_taskmet.runner.rundir import saved_settings
from runs.experiment import Experiment, main
from runs.report import LAST, Results, final_returns
from runs.setting import Setting
from runs.tables import as_number, read_csv, undamaged, write_table

DISTRACTORS = 64
BATCHES = 64
LONG = 300
DEFAULT = "minres-5"
SOLVERS: dict[str, dict[str, Any]] = {
    DEFAULT: {"solver": "minres", "solver_steps": 5},
    "minres-2": {"solver": "minres", "solver_steps": 2},
    "minres-10": {"solver": "minres", "solver_steps": 10},
    "minres-5-damped-0.01": {"solver": "minres", "solver_steps": 5, "damping": 0.01},
    "minres-5-damped-0.1": {"solver": "minres", "solver_steps": 5, "damping": 0.1},
    "normal-cg-2": {"solver": "normal_cg", "solver_steps": 2},
    "normal-cg-10": {"solver": "normal_cg", "solver_steps": 10},
    "normal-cg-20": {"solver": "normal_cg", "solver_steps": 20},
    "gauss-newton-5": {"solver": "gauss_newton", "solver_steps": 5},
    "gauss-newton-5-damped-0.1": {"solver": "gauss_newton", "solver_steps": 5, "damping": 0.1},
    "neumann-10": {"solver": "neumann", "solver_steps": 10},
    "identity": {"solver": "identity"},
}


def draw(results: Results, output: Path, logdir: Path) -> None:
    """The return, the gradient's quality and its cost, a row per solver; and the table of gradients."""
    blocks = sorted(path.parent.parent for path in (logdir / DEFAULT).glob("*/checkpoints/state"))
    path = output / "gradients.csv"
    if blocks:
        measured = [
            {"solver": name, "products": products, "residual": f"{residual:.3f}", "cosine": f"{cosine:.3f}",
             "signal": f"{signal:.2f}", "ms": f"{1e3 * seconds:.2f}"}
            for name, (products, residual, cosine, signal, seconds) in gradients(blocks[0]).items()
        ]  # fmt: skip
        write_table(path, measured)
    if not path.exists():
        print(f"no gradients: {logdir / DEFAULT} holds no checkpoint", file=sys.stderr)
        return
    _draw(results, _read(path), output)


def _read(path: Path) -> dict[str, tuple[float, ...]]:
    """Cosine, signal and milliseconds by solver; a series that diverges has neither of the first two."""
    with undamaged(path):
        lines = read_csv(path, key=("solver",))
        known = {line["solver"]: [line[key] if line[key] != "nan" else None for key in ("cosine", "signal")] for line in lines}
        times = {line["solver"]: as_number(line["ms"]) for line in lines}
        return {
            solver: (*(np.nan if text is None else as_number(text) for text in texts), times[solver])
            for solver, texts in known.items()
        }


def gradients(block: Path) -> dict[str, tuple[int, float, float, float, float]]:
    """(products, residual, cosine, signal, seconds) of each solver at the last checkpoint of `block`, first seed."""
    import dataclasses

    import jax
    import jax.numpy as jnp
    from jax.flatten_util import ravel_pytree

    from envs.make import environment_of
    from mbrl_taskmet.core.linear_solve import Minres
    from mbrl_taskmet.rl import replay

    method: Any  # TaskMet
    settings, method, step, carry = restored(environment_of(saved_settings(block, read_saved).environment), block)
    learner, memory = jax.tree.map(lambda leaf: jnp.asarray(jax.device_get(leaf)[0]), (carry.learner, carry.replay))

    @jax.jit
    def sample(key: jax.Array) -> replay.Transitions:
        return learner.normalized_batch(replay.sample(memory, key, jnp.int32(step), settings.batch_size))

    batches = [sample(key) for key in jax.random.split(jax.random.key(0), BATCHES)]

    def measure(solver: Any) -> tuple[int, float, np.ndarray, float]:
        solving = dataclasses.replace(method, settings=dataclasses.replace(method.settings, solver=solver))

        @jax.jit
        def solve(batch: Any) -> tuple[Any, Any, Any]:
            gradient, solved = solving.metric_gradient(learner, batch, jax.random.key(0))  # of which soft Q takes nothing
            return ravel_pytree(gradient)[0], solved.residual, solved.products

        jax.block_until_ready(solve(batches[0]))  # compiles
        results, seconds = [], []
        for batch in batches:
            begin = time.perf_counter()
            results.append(jax.block_until_ready(solve(batch)))
            seconds.append(time.perf_counter() - begin)
        vectors, residuals, products = zip(*results, strict=True)
        return int(products[0]), float(np.mean(residuals)), np.array(vectors), statistics.median(seconds)

    _, _, exact, _ = measure(Minres(LONG))
    found = {}
    for name, given in SOLVERS.items():
        taskmet: Any = Config(**given).resolve().method
        products, residual, vectors, seconds = measure(taskmet.solver)
        with np.errstate(over="ignore", invalid="ignore"):  # a series that diverges
            norms = np.linalg.norm(vectors, axis=1) * np.linalg.norm(exact, axis=1)
            cosine = float(np.mean(np.sum(vectors * exact, axis=1) / norms))
            signal = float(np.linalg.norm(vectors.mean(axis=0)) / np.linalg.norm(vectors.std(axis=0)))
        found[name] = products, residual, cosine, signal, seconds
    return found


def _draw(results: Results, numbers: dict[str, tuple[float, ...]], output: Path) -> None:
    """A row per solver: its seeds' returns, and how good its gradient is and what it costs.

    numbers: cosine, signal and milliseconds by solver.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 4.8), layout="constrained")
    axes = figure.subplots(1, 3, sharey=True)
    for place, (name, (cosine, _, milliseconds)) in enumerate(numbers.items()):
        returns = final_returns(results.get(name, []), LAST)
        color = STYLES[2 if name == DEFAULT else -1]["color"]
        if len(returns):
            draw_seeds(axes[0], place, returns, float(returns.mean()), None, color)
        for axis, value in zip(axes[1:], (cosine, milliseconds), strict=True):
            axis.barh(place, value, color=color, height=0.6)
    axes[0].set_yticks(range(len(numbers)), [f"{name}, the default" if name == DEFAULT else name for name in numbers])
    axes[0].invert_yaxis()  # of all three, which share it
    axes[0].set(title="how the agent learns", xlabel=f"return, last {LAST} evaluations: seeds, mean", xlim=(0, 520))
    axes[1].set(title="how good the gradient is", xlabel=f"cosine with the gradient of {LONG} products")
    axes[2].set(title="what it costs", xlabel="ms per metric gradient")
    for axis in axes:
        axis.grid(alpha=0.3)
    save_both(figure, output / "figure.png")


EXPERIMENT = Experiment(
    "solvers",
    tuple(
        Setting(name=name, distractors=DISTRACTORS, given=given, rival=None if name == DEFAULT else DEFAULT)
        for name, given in SOLVERS.items()
    ),
    draw,
)

if __name__ == "__main__":
    sys.exit(main(EXPERIMENT))
