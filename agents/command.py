"""The command of an agent: train with progress, records and checkpoints, or resume."""

from __future__ import annotations

import shlex
import signal
import sys
import time
from typing import TYPE_CHECKING, Any

from agents.options import Options, parse
from agents.rundir import Run, new_run, resumed_run
from mbrl_taskmet.command import command, cores, make_directory, start_jax

if TYPE_CHECKING:
    from envs.base import Environment
    from mbrl_taskmet.recording import Recorder, Row


@command
def main(environment: str | None = None, argv: list[str] | None = None) -> int:
    """Run the agent for `environment`, by default the one that `--env` names.

    The exit code is 0, 2 for bad input, 130 after Ctrl-C.
    """
    options = parse(environment, argv)
    run = (new_run if options.resume is None else resumed_run)(options)
    env = _prepare(run, options.film)
    return _train(run, env, options)


def _prepare(run: Run, film: bool) -> Environment:
    """Set JAX up, make the environment, see that the run fits, and make its directory."""
    start_jax(min(run.config.seeds, cores()))

    from envs.film import drawing
    from envs.make import make_environment
    from mbrl_taskmet.memory import check_memory, gigabytes, required_bytes

    env = make_environment(run.environment, run.distractors)
    if film:
        drawing(run.environment)  # refuses now what could not be drawn at the end
    required = required_bytes(env, run.config)
    check_memory(required, env)
    make_directory(run.directory, run.resumed)
    print(f"{run.directory}: {run.config.method} on {env.name}, {run.config.seeds} seed(s), {run.config.steps} steps, "
          f"needs about {gigabytes(required)}", flush=True)  # fmt: skip
    return env


def _train(run: Run, env: Environment, options: Options) -> int:
    from mbrl_taskmet.checkpoint import Checkpoints
    from mbrl_taskmet.make import make_method
    from mbrl_taskmet.recording import Recorder, write_json
    from mbrl_taskmet.training import Trainer

    config, directory = run.config, run.directory
    trainer = Trainer(env, make_method(env, config), config)
    checkpoints = Checkpoints(directory / "checkpoints", trainer, options.checkpoint_share)
    start, carry = checkpoints.restore() if run.resumed else (0, trainer.init())
    write_json(directory / "config.json", run.to_json())
    checkpoints.save(start, carry)
    recorder = Recorder(directory, resume_at=start if run.resumed else None)
    compile_seconds = trainer.compile() if start < config.steps else None
    with _Interrupt() as stopped:
        for step, carry, rows in _chunks(run, env, trainer, recorder, carry, start):  # noqa: B020
            recorder.write(rows)
            if step == config.steps or stopped or checkpoints.due():
                checkpoints.save(step, carry)
            if stopped and step < config.steps:
                recorder.close()
                print(
                    f"stopped at step {step}; to go on: python -m {_module()} --resume {shlex.quote(str(directory))}",
                    file=sys.stderr,
                )
                return 130
    recorder.close()
    if options.film:
        _film(run, env, trainer, carry)
    return _finish(run, env, recorder.rows, compile_seconds)


def _chunks(run: Run, env: Environment, trainer: Any, recorder: Recorder, carry: Any, start: int) -> Any:
    """The trainer's chunks as rows, with a progress bar if the output is a terminal, and failures reported once."""
    from tqdm import tqdm

    from mbrl_taskmet.recording import rows_of

    begin = last = time.monotonic()
    before = recorder.rows[-1]["wall_seconds"] if recorder.rows else 0.0
    failed = {row["seed"] for row in recorder.rows if "failure" in row}
    chunk = trainer.config.eval_every
    with tqdm(total=run.config.steps, initial=start, unit="step", disable=None, dynamic_ncols=True) as bar:
        for step, new_carry, report in trainer.run(carry, start):
            now = time.monotonic()
            speed, last = chunk * trainer.config.seeds / (now - last), now
            rows = rows_of(report, step, trainer.config.seed, env.state_names, before + now - begin, speed)
            for row in rows:
                if "failure" in row and row["seed"] not in failed:
                    failed.add(row["seed"])
                    bar.write(f"seed {row['seed']}: {row['failure']}; its last finite state is kept and the others go on; "
                              "a smaller --model-lr or --metric-lr may help", file=sys.stderr)  # fmt: skip
            bar.set_postfix_str(f"return {report.episode_returns.mean():.1f}, "
                                f"model error {report.model_mse_state.mean():.2g}, {speed:.0f} steps/s",
                                refresh=False)  # fmt: skip
            bar.update(chunk)
            yield step, new_carry, rows


def _film(run: Run, env: Environment, trainer: Any, carry: Any) -> None:
    """Draw an episode of the first seed's policy."""
    from functools import partial

    import jax

    from envs.film import drawing, episode, write_film

    with jax.enable_x64(run.config.x64):
        learner = jax.tree.map(lambda leaf: jax.device_get(leaf)[0], carry.learner)
        observations = episode(env, partial(trainer.method.act, learner), jax.random.key(run.config.seed))
    write_film(observations, drawing(run.environment), run.directory / "film.gif")
    print(f"film: {run.directory / 'film.gif'}, {len(observations) - 1} steps")


def _finish(run: Run, env: Environment, rows: list[Row], compile_seconds: float | None) -> int:
    from agents.summary import summarize
    from mbrl_taskmet.plotting import plot_run
    from mbrl_taskmet.recording import write_json

    summary = summarize(run, rows, compile_seconds)
    write_json(run.directory / "summary.json", summary)
    plot_run(rows, env.state_names, f"{run.config.method} on {env.name}", run.directory / "curves.png")
    interval = summary["ci95"]
    spread = f", 95 % interval {interval[0]:.1f} to {interval[1]:.1f}" if interval else ""
    score = "unknown" if summary["mean"] is None else f"{summary['mean']:.1f}"
    print(f"final return {score}{spread} over {run.config.seeds} seed(s), "
          f"{summary['steps_per_second']:.0f} steps per second")  # fmt: skip
    print(f"curves: {run.directory / 'curves.png'}    tensorboard --logdir {run.directory / 'tensorboard'}")
    return 0


class _Interrupt:
    """True after the first Ctrl-C, so that the chunk under way can end; a second one interrupts as usual."""

    def __enter__(self) -> _Interrupt:
        self._caught = False
        self._before = signal.signal(signal.SIGINT, self._catch)
        return self

    def __exit__(self, *_: Any) -> None:
        signal.signal(signal.SIGINT, self._before)

    def __bool__(self) -> bool:
        return self._caught

    def _catch(self, *_: Any) -> None:
        self._caught = True
        signal.signal(signal.SIGINT, signal.default_int_handler)
        print("\nstopping at the next evaluation; Ctrl-C again to stop at once", file=sys.stderr)


def _module() -> str:
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return spec.name if spec else "agents.cartpole"
