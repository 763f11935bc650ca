"""The command of an agent: train with progress, records and checkpoints, or resume."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mbrl_taskmet.core.settings import ConfigError, options
from mbrl_taskmet.rl.settings import Config, Settings, read_saved
from mbrl_taskmet.rl.suites import SUITES
from mbrl_taskmet.rl.sweep import Sweep, grid, read_sweep
from mbrl_taskmet.runner.command import Parser, command, cores, module, start_jax
from mbrl_taskmet.runner.rundir import (
    CHECKPOINT_SHARE,
    check_code,
    check_same,
    check_same_sweep,
    check_whole,
    free_directory,
    read_axes,
    read_config,
    resumed_directory,
    saved_settings,
    saved_sweep,
)

if TYPE_CHECKING:
    from envs.film import Film
    from mbrl_taskmet.rl.environment import Environment
    from mbrl_taskmet.runner.agent import Outcome


@dataclass(frozen=True)
class Request:
    """What is asked for on a command line.

    Attributes:
        config: the settings of the run, of a new one as far as they are given.
        sweep: values of further settings by name, every combination of which is a run; none without --sweep.
        directory: its directory, which a new one has not made yet.
        named: whether the user chose it.
        trusted: what `--env` names, if that is a class of a module, whose code may run.
        film: whether to draw an episode.
        checkpoint_share: the largest part of the time spent writing checkpoints.
        debug_nans: whether to repeat a failed update, to name what was not finite.
    """

    config: Config
    sweep: Sweep
    directory: Path
    named: bool
    trusted: str | None
    film: bool
    checkpoint_share: float
    debug_nans: bool


@command
def main(environment: str | None = None, argv: list[str] | None = None, suite: str = "gymnax") -> int:
    """Run the agent for `environment` of a suite, by default the one that `--env` names.

    The exit code is 0, 2 for bad input, and 128 + the signal's number for a run that was stopped: 130 after Ctrl-C.
    """
    request = parse(environment, argv, suite)
    over = grid(request.config, request.sweep)
    start_jax(min(over.total, cores()))

    from envs.film import film_of
    from envs.make import environment_of
    from mbrl_taskmet.runner.agent import run, run_sweep
    from mbrl_taskmet.runner.claim import in_first_free
    from mbrl_taskmet.runner.plotting import drawing as kept_if_not_drawn

    where = over.settings[0].environment
    env = environment_of(where)
    film = film_of(env, where) if request.film else None  # refuses now what could not be drawn at the end

    def start(directory: Path) -> int:
        go_on = f"python -m {module()} --resume {shlex.quote(str(directory))}"
        if request.trusted:
            go_on += f" --env {shlex.quote(request.trusted)}"
        say = partial(print, flush=True)
        how: Any = {"checkpoint_share": request.checkpoint_share, "debug_nans": request.debug_nans, "go_on": go_on}
        if request.sweep:
            _tell_sweep(run_sweep(env, request.config, directory, request.sweep, **how, say=say), directory)
            return 0
        outcome = run(env, request.config, directory, **how, say=say)
        if film is not None:
            with kept_if_not_drawn(directory, f"{go_on} --film"):
                _film(env, film, outcome, directory)
        _tell(outcome, directory)
        return 0

    return in_first_free(request.directory, request.named, start)


def parse(environment: str | None, argv: list[str] | None, suite: str = "gymnax") -> Request:
    """Read the command line of the agent for `environment` of a suite, or for the one that `--env` names if that is None.

    Raises:
        ConfigError: a bad flag or setting, a name that is taken, or a run that cannot be resumed so.
    """
    parser = Parser(
        prog=f"python -m agents.{environment.split('-')[0].lower() if environment else suite}",
        description=f"Train an agent on {environment or f'an environment of {suite}'} with a learned model of it.",
        epilog="The defaults are those of --preset default; every setting of a run is written to its config.json.",
    )
    elsewhere = (option.name for option in options(Settings) if any(at[0] == "suite" and at[1] != suite for at in option.where))
    parser.add_settings(Settings, leave_out=("suite", *elsewhere, *(("env",) if environment else ())))
    parser.add_directory(resume="continue the run in DIR; with --steps MORE, extend it")
    parser.add_argument(
        "--film", action="store_true", help="draw an episode of the first seed's policy: film.gif, or film.html"
    )
    parser.add_argument("--checkpoint-share", type=float, default=CHECKPOINT_SHARE, metavar="X",
                        help="largest share of time for checkpoints, above 0 and up to 1 (default: %(default)s)")  # fmt: skip
    parser.add_argument("--debug-nans", action="store_true", help="repeat the update at which a run stopped learning, and "
                        "name the operation that was not finite")  # fmt: skip
    parser.add_argument("--from-config", metavar="FILE", help="start from the settings in another run's config.json or "
                        "summary.json; settings on the command line override them")  # fmt: skip
    parser.add_argument("--sweep", action="append", metavar="NAME=X,X", help="train all of these values of a setting in one "
                        "program, such as metric-lr=1e-3,3e-3; with several --sweep, every combination")  # fmt: skip
    given, rest = parser.read(argv)
    share = rest["checkpoint_share"]
    if not 0 < share <= 1:
        raise ConfigError(f"--checkpoint-share is {share}; give a number above 0 and up to 1")
    given["suite"] = suite
    if environment is not None:
        given["env"] = environment
    rest["sweep"] = read_sweep(rest["sweep"] or ())
    open_run = _new if rest["resume"] is None else _resumed
    config, sweep, directory = open_run(given, rest)
    if sweep and rest["film"]:
        raise ConfigError("--film draws one run, and this is a sweep; leave it out")
    named = rest["name"] is not None or rest["resume"] is not None
    trusted = given.get("env") if ":" in given.get("env", "") else None
    return Request(config, sweep, directory, named, trusted, rest["film"], share, rest["debug_nans"])


def _new(given: dict[str, Any], rest: dict[str, Any]) -> tuple[Config, Sweep, Path]:
    if rest["from_config"] is not None:
        given, rest["sweep"] = _repeated(Path(rest["from_config"]), given, rest["sweep"])
    if "env" not in given:
        raise ConfigError(f"--env is missing; give {SUITES[given['suite']].example}")
    config, sweep = Config(**given), rest["sweep"]
    settings = grid(config, sweep).settings[0]
    last = settings.seed + settings.seeds - 1
    parts = [given["env"].lower(), f"d{settings.environment.distractors}", settings.names["method"],
             f"{settings.steps}steps", f"seeds{settings.seed}-{last}"]  # fmt: skip
    named = ("suite", "env", "distractors", "method", "steps", "seed", "seeds")
    more = {name: value for name, value in given.items() if name not in named}
    more |= {name: ",".join(map(str, values)) for name, values in sweep.items()}
    return config, sweep, free_directory(rest["name"], rest["logdir"], parts, more)


def _repeated(path: Path, given: dict[str, Any], sweep: Sweep) -> tuple[dict[str, Any], Sweep]:
    """The settings and the sweep of another run's `config.json`, overridden by those given here."""
    if not path.is_file():
        raise ConfigError(f"--from-config {path} is no file; give the config.json or summary.json of a run")
    saved, axes = read_config(path, read_saved).names, read_config(path, read_axes)
    _check_suite(path, saved, given)
    swept = {**{name: values for name, values in axes.items() if name not in given}, **sweep}
    return {name: value for name, value in saved.items() if name not in swept and value is not None} | given, swept


def _check_suite(where: Path, saved: Mapping[str, Any], given: dict[str, Any]) -> None:
    """Raise ConfigError unless this agent can have made a run with these settings, and may run its code."""
    if given["suite"] != saved["suite"]:
        raise ConfigError(f"{where} is a run on {saved['env']} of {saved['suite']}; use python -m agents.{saved['suite']}")
    check_code(where, saved["env"], given.get("env"))
    if given.get("env") not in (None, saved["env"]):
        raise ConfigError(f"{where} is a run on {saved['env']}; use that environment's agent")


def _resumed(given: dict[str, Any], rest: dict[str, Any]) -> tuple[Config, Sweep, Path]:
    directory = resumed_directory(rest["resume"], rest["name"], rest["logdir"])
    if rest["from_config"] is not None:
        raise ConfigError(f"--from-config {rest['from_config']} starts a run; leave it out with --resume")
    check_whole(directory)
    saved, sweep = saved_settings(directory, read_saved), saved_sweep(directory)
    if rest["sweep"]:
        check_same_sweep(directory, rest["sweep"])
    _check_suite(directory, saved.names, given)
    check_same(directory, {name: value for name, value in given.items() if name != "steps"}, saved.names)
    kept = {name: value for name, value in saved.names.items() if name not in sweep}
    config = Config(**kept) | {"steps": given.get("steps", saved.steps)}
    from mbrl_taskmet.runner.agent import check_extends

    check_extends(directory, grid(config, sweep))
    return config, sweep, directory


def _film(env: Environment, film: Film, outcome: Outcome, directory: Path) -> None:
    """Draw an episode of the first seed's policy."""
    import jax

    from envs.film import episode

    with jax.enable_x64(outcome.settings.x64):
        learner = jax.tree.map(lambda leaf: leaf[0], outcome.learner)
        recording = episode(env, partial(outcome.method.act, learner), jax.random.key(outcome.settings.seed))
    print(f"film: {film(recording, directory)}, {len(recording.observations) - 1} steps")


def _tell(outcome: Outcome, directory: Path) -> None:
    summary = outcome.summary
    interval = summary["ci95"]
    spread = f", 95 % interval {interval[0]:.1f} to {interval[1]:.1f}" if interval else ""
    score = "unknown" if summary["mean"] is None else f"{summary['mean']:.1f}"
    print(f"final return {score}{spread} over {outcome.settings.seeds} seed(s), "
          f"{summary['steps_per_second']:.0f} steps per second")  # fmt: skip
    print(f"curves: {directory / 'curves.png'}    tensorboard --logdir {directory / 'tensorboard'}")


def _tell_sweep(outcomes: dict[str, Outcome], directory: Path) -> None:
    width = max(map(len, outcomes))
    print(f"{'setting':{width}}  final return  95 % interval")
    for folder, outcome in outcomes.items():
        mean, interval = outcome.summary["mean"], outcome.summary["ci95"]
        spread = f"  {interval[0]:.1f} to {interval[1]:.1f}" if interval else ""
        print(f"{folder:{width}}  {'unknown' if mean is None else f'{mean:.1f}':>12}{spread}")
    print(f"picture: {directory / 'sweep.png'}    tensorboard --logdir {directory}")
