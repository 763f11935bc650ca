"""The loop: environment step → replay → update, compiled in chunks, side by side over runs.

A chunk is one compiled program: a scan over the environment steps between two evaluations, then the evaluation, vmapped over
the runs of a device and sharded over devices. A run is a seed, or in a sweep a seed under one combination of numbers.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from functools import cached_property, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mbrl_taskmet.core.run_axis import RunAxis
from mbrl_taskmet.core.settings import ConfigError, shown
from mbrl_taskmet.core.settings_tree import flatten, with_numbers
from mbrl_taskmet.rl import format_1, replay
from mbrl_taskmet.rl.environment import Environment, check_environment, episodic
from mbrl_taskmet.rl.make import make_method
from mbrl_taskmet.rl.methods import Learner, Method
from mbrl_taskmet.rl.replay import Replay
from mbrl_taskmet.rl.settings import Config, Settings
from mbrl_taskmet.rl.single_run import Carry, Report, SingleRun
from mbrl_taskmet.rl.sweep import Grid, Sweep, grid


class Result(NamedTuple):
    """A finished run. S runs, which are the seeds or, in a sweep, the seeds of every combination; T evaluations."""

    steps: np.ndarray  # (T,), environment steps of each seed at an evaluation
    returns: np.ndarray  # (S, T), mean undiscounted return of an evaluation
    reports: Report  # every figure of `Report`, each (S, T, …)
    learner: Learner  # what was learned, each leaf (S, …)
    seeds: np.ndarray  # (S,)
    numbers: dict[str, np.ndarray]  # what was swept, by name, each (S,)


def train(env: Environment, config: Config | Settings, method: Method | None = None, sweep: Sweep | None = None) -> Result:
    """Train every seed of `config` on `env` and return arrays; nothing is written.

    Args:
        env: the environment; what `config` says of one counts for nothing.
        config: the settings, as they are given or resolved.
        method: a way of learning the model of your own, instead of the one that `config` names.
        sweep: values of settings by name, such as `{"metric_lr": [1e-3, 3e-3], "l1": [0, 0.1]}`: every combination is trained
            with every seed, all in one program.

    Raises:
        ConfigError: the configuration cannot work, or an argument is none of these.
    """
    if not isinstance(method, Method | None):
        raise ConfigError(f"the method is {shown(method)}; give an instance of a subclass of mbrl_taskmet.Method, or none")
    if sweep and method is not None:
        raise ConfigError("a method of your own is given and a sweep, whose methods are made of settings; register the method")
    over = grid_of(env, config, sweep or {})
    settings = over.settings[0]
    trainer = Trainer(env, method or make_method(env, settings), settings, over=over)
    steps, reports, carry = [], [], trainer.init()
    for step, carry, report in trainer.run(carry):  # noqa: B020, B007
        steps.append(step)
        reports.append(report)
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves, axis=1), *reports)
    returns = stacked.episode_returns.mean(axis=-1)
    learner = trainer.axis.to_host(carry.learner)
    return Result(np.array(steps), returns, stacked, learner, trainer.seeds, over.per_run())


def resolved(env: Environment, config: Config | Settings) -> Settings:
    """The settings of a configuration on `env`, whose action space and distractors count.

    Raises:
        ConfigError: they cannot work, or an attribute of `env` will not do.
    """
    return grid_of(env, config, {}).settings[0]


def grid_of(env: Environment, config: Config | Settings, sweep: Sweep) -> Grid:
    """The combinations of a sweep on `env`, whose action space and distractors count; of an empty one, a single one.

    Raises:
        ConfigError: one cannot work, something cannot be swept, or an attribute of `env` will not do.
    """
    env = episodic(env)
    if isinstance(config, Settings):
        if not sweep:
            return Grid((config,), {})
        config = Config(**{name: value for name, value in config.names.items() if name not in sweep})
    return grid(_placed(env, config), sweep, env.action_space)


def _placed(env: Environment, config: Config) -> Config:
    if not isinstance(config, Config):
        raise ConfigError(f"the configuration is {shown(config)}; give a mbrl_taskmet.Config, such as Config(steps=2000)")
    if env.made_of is not None:
        described = flatten(env.made_of)
    else:
        described = {"env": env.name, "distractors": env.observation_size - env.state_size}
    return Config(**{**described, **config.given, "distractors": described["distractors"]})


class Trainer:
    """An environment, a method and the sizes of a run, made into compiled functions of a `Carry` with a seed axis.

    Args:
        env: the environment.
        method: how the model is learned; `make.make_method` makes the one that `settings` name.
        settings: for the sizes of the run.
        devices: what the runs are spread over; all of JAX's by default.
        over: the combinations of a sweep, of which `settings` are the first and of each of which a method is made.
        vmapped: whether the runs of a device go side by side; by default they do but on a CPU, where small products run
            faster alone.

    Raises:
        UnsupportedEnvironment: `env` breaks the contract of `check_environment`.
    """

    def __init__(
        self, env: Environment, method: Method, settings: Settings, devices: Sequence[jax.Device] | None = None,
        over: Grid | None = None, vmapped: bool | None = None,
    ):  # fmt: skip
        with jax.enable_x64(settings.x64):
            self.env = check_environment(env)
        self.method, self.settings = method, settings
        self.over = over = over or Grid((settings,), {})
        self.axis = axis = RunAxis(over.total, devices)  # first, for it refuses more than any machine holds
        self.seeds = over.seeds()
        self._vmapped = not axis.on_cpu if vmapped is None else vmapped
        self._numbers = over.per_run()
        self._init = jax.jit(axis.sharded(self._init_runs), compiler_options=axis.compiler_options(0))
        chunk = axis.sharded(self._all_runs, common=1)
        self._chunk = jax.jit(chunk, donate_argnums=0, compiler_options=axis.compiler_options(1))
        self.compiled: Any = None  # the chunk, once it has been compiled ahead

    def init(self) -> Carry:
        """The start of every run, on its device."""
        with jax.enable_x64(self.settings.x64):
            return self._init(self.axis.to_devices(self.seeds), self.numbers)

    def chunk(self, carry: Carry, start: int) -> tuple[Carry, Report]:
        """Advance every run from step `start` by the steps between two evaluations, then evaluate. `carry` is donated."""
        with jax.enable_x64(self.settings.x64):
            return (self.compiled or self._chunk)(carry, self.numbers, jnp.int32(start))

    @cached_property
    def numbers(self) -> dict[str, jax.Array]:
        """What is swept, by name, (runs,) on the devices."""
        with jax.enable_x64(self.settings.x64):
            return self.axis.to_devices(self._numbers)

    @cached_property
    def traced(self) -> Any:
        """The chunk as a program of JAX's, not compiled."""
        with jax.enable_x64(self.settings.x64):
            return self._chunk.trace(self.shapes(), self.numbers, jnp.int32(0))

    def compile(self) -> float:
        """Compile the chunk ahead of its first use; seconds taken."""
        begin = time.monotonic()
        with jax.enable_x64(self.settings.x64):
            self.compiled = self.traced.lower().compile()
        return time.monotonic() - begin

    def shapes(self) -> Carry:
        """A carry in shapes and types alone."""
        with jax.enable_x64(self.settings.x64):
            return jax.tree.map(self._on_devices, jax.eval_shape(self._init, self.seeds[self.axis.runs], self.numbers))

    def run(self, carry: Carry, start: int = 0) -> Iterator[tuple[int, Carry, Report]]:
        """Chunk by chunk to the configured end: (environment steps done, carry, report without the padding).

        A yielded carry is valid until the iterator is advanced.
        """
        for step in range(start, self.settings.steps, self.settings.eval_every):
            carry, report = self.chunk(carry, step)
            yield step + self.settings.eval_every, carry, self.axis.to_host(report)

    @property
    def x64(self) -> bool:
        """Whether it computes in float64."""
        return self.settings.x64

    def blank(self) -> Carry:
        """A carry whose numbers count for nothing."""
        return self.init()

    def split(self, carry: Carry) -> tuple[Carry, dict[str, jax.Array]]:
        """The carry without its replay, and the arrays of that."""
        rows = {name: array for name, array in carry.replay._asdict().items() if array is not None}
        return carry._replace(replay=()), rows  # type: ignore[arg-type]

    def join(self, state: Carry, rows: dict[str, jax.Array], step: int) -> Carry:
        """The inverse of `split`, where `step` is the next one."""
        write = jax.jit(jax.vmap(replay.set_observation, in_axes=(0, None, 0)), donate_argnums=0)
        buffer = write(Replay(**rows), jnp.int32(step), state.observation)
        return state._replace(replay=jax.device_put(buffer, self.axis.sharding))

    def upgrade(self, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The arrays of a checkpoint that an earlier version wrote, as today's."""
        return format_1.arrays(arrays)

    def _on_devices(self, leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=self.axis.sharding)

    def run_with(self, numbers: dict[str, jax.Array]) -> SingleRun:
        """The run with these numbers, each a scalar."""
        if not numbers:
            return SingleRun(self.env, self.method, self.settings, self._vmapped)
        settings = with_numbers(self.settings, numbers)
        return SingleRun(self.env, make_method(self.env, settings), settings, self._vmapped)

    def _init_runs(self, seeds: jax.Array, numbers: dict[str, jax.Array]) -> Carry:
        # one after the other: see `SoftQ.init`
        carry = jax.lax.map(lambda one: self.run_with(one[1]).init(one[0]), (seeds, numbers))
        rows = min(self.settings.replay_capacity or self.settings.steps, self.settings.steps)
        create = partial(
            replay.create, rows, action=jnp.zeros(self.env.action_space.size), state_size=len(self.env.state_names),
            noise_dtype=self.env.noise_dtype,
        )  # fmt: skip
        return carry._replace(replay=jax.vmap(create)(carry.observation))

    def _all_runs(self, carry: Carry, numbers: dict[str, jax.Array], start: jax.Array) -> tuple[Carry, Report]:
        """A device's runs: side by side, or one after the other."""

        def advance(carry: Carry, numbers: dict[str, jax.Array]) -> tuple[Carry, Report]:
            return self.run_with(numbers).advance(carry, start)

        if self._vmapped:
            # The step is the same for all runs and stays unbatched: branches on it stay branches, and the replay's row is
            # written in place.
            return jax.vmap(advance)(carry, numbers)

        def following(carry: Carry, run: jax.Array) -> tuple[Carry, Report]:
            one, own = jax.tree.map(lambda leaf: leaf[run], (carry, numbers))
            one, report = advance(one, own)
            return jax.tree.map(lambda leaf, new: leaf.at[run].set(new), carry, one), report

        return jax.lax.scan(following, carry, jnp.arange(len(carry.key)))
