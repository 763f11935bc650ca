"""The loop: environment step → replay → update, compiled in chunks, side by side over seeds.

A chunk is one compiled program: a scan over the environment steps between two evaluations, then the evaluation, vmapped over
the seeds of a device and sharded over devices. Step and seed determine every random number: nothing else is carried.
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
from mbrl_taskmet.rl import format_1, replay
from mbrl_taskmet.rl.environment import Environment, check_environment, episodic
from mbrl_taskmet.rl.evaluation import evaluate
from mbrl_taskmet.rl.make import make_method
from mbrl_taskmet.rl.methods import Learner, Method
from mbrl_taskmet.rl.normalization import prior
from mbrl_taskmet.rl.replay import Replay
from mbrl_taskmet.rl.settings import Config, Settings

DIAGNOSTIC_BATCHES = 8


class Carry(NamedTuple):
    """Everything a seed has between two environment steps."""

    key: jax.Array  # the seed's own key, never changed: step t uses fold_in(key, t)
    learner: Learner
    env_state: Any
    observation: jax.Array  # (n,), what the next action sees
    failed_step: jax.Array  # the step at which the learner turned non-finite, or −1; it is frozen from then on
    failed_part: jax.Array  # the index in `Learner` of what turned non-finite, or −1
    replay: Replay


class Report(NamedTuple):
    """What a chunk tells of each seed, at its end. Shapes are per seed; NaN where a method has no such quantity."""

    episode_returns: jax.Array  # (eval_episodes,), undiscounted
    model_mse: jax.Array  # E‖ŝ' − s'‖² over all dimensions, in the environment's units, on batches of the replay
    model_mse_state: jax.Array  # the same over the real dimensions
    task_loss: jax.Array  # L_task(ω)
    q_loss: jax.Array  # L_Q(ω, θ)
    residual: jax.Array | None  # of the implicit solve, relative, on batches of the replay; None without one
    metric_diagonal: jax.Array | None  # (n,), the mean of Λ's diagonal over the batch; None without a metric
    failed_step: jax.Array
    failed_part: jax.Array


class Result(NamedTuple):
    """A finished run. S seeds, T evaluations."""

    steps: np.ndarray  # (T,), environment steps of each seed at an evaluation
    returns: np.ndarray  # (S, T), mean undiscounted return of an evaluation
    reports: Report  # every figure of `Report`, each (S, T, …)
    learner: Learner  # what was learned, each leaf (S, …)


def train(env: Environment, config: Config | Settings, method: Method | None = None) -> Result:
    """Train every seed of `config` on `env` and return arrays; nothing is written.

    Args:
        env: the environment; what `config` says of one counts for nothing.
        config: the settings, as they are given or resolved.
        method: a way of learning the model of your own, instead of the one that `config` names.

    Raises:
        ConfigError: the configuration cannot work, or an argument is none of these.
    """
    settings = resolved(env, config)
    if not isinstance(method, Method | None):
        raise ConfigError(f"the method is {shown(method)}; give an instance of a subclass of mbrl_taskmet.Method, or none")
    trainer = Trainer(env, method or make_method(env, settings), settings)
    steps, reports, carry = [], [], trainer.init()
    for step, carry, report in trainer.run(carry):  # noqa: B020, B007
        steps.append(step)
        reports.append(report)
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves, axis=1), *reports)
    returns = stacked.episode_returns.mean(axis=-1)
    return Result(np.array(steps), returns, stacked, trainer.axis.to_host(carry.learner))


def resolved(env: Environment, config: Config | Settings) -> Settings:
    """The settings of a configuration on `env`, whose action space and distractors count.

    Raises:
        ConfigError: they cannot work, or an attribute of `env` will not do.
    """
    env = episodic(env)
    if isinstance(config, Settings):
        return config
    if not isinstance(config, Config):
        raise ConfigError(f"the configuration is {shown(config)}; give a mbrl_taskmet.Config, such as Config(steps=2000)")
    noise = env.observation_size - len(env.state_names)
    return Config(**{"env": env.name, **config.given, "distractors": noise}).resolve(env.action_space)


class Trainer:
    """An environment, a method and the sizes of a run, made into compiled functions of a `Carry` with a seed axis.

    Args:
        env: the environment.
        method: how the model is learned; `make.make_method` makes the one that `settings` name.
        settings: for the sizes of the run.
        devices: what the seeds are spread over; all of JAX's by default.

    Raises:
        UnsupportedEnvironment: `env` breaks the contract of `check_environment`.
    """

    def __init__(self, env: Environment, method: Method, settings: Settings, devices: Sequence[jax.Device] | None = None):
        with jax.enable_x64(settings.x64):
            self.env = check_environment(env)
        self.method, self.settings = method, settings
        self.axis = axis = RunAxis(settings.seeds, devices)
        self._init = jax.jit(axis.sharded(self._init_seeds), compiler_options=axis.compiler_options(0))
        chunk = axis.sharded(self._all_seeds, common=1)
        self._chunk = jax.jit(chunk, donate_argnums=0, compiler_options=axis.compiler_options(1))
        self.compiled: Any = None  # the chunk, once it has been compiled ahead

    def init(self) -> Carry:
        """The start of every seed, on its device."""
        with jax.enable_x64(self.settings.x64):
            return self._init(self._seeds())

    def chunk(self, carry: Carry, start: int) -> tuple[Carry, Report]:
        """Advance every seed from step `start` by the steps between two evaluations, then evaluate. `carry` is donated."""
        with jax.enable_x64(self.settings.x64):
            return (self.compiled or self._chunk)(carry, jnp.int32(start))

    @cached_property
    def traced(self) -> Any:
        """The chunk as a program of JAX's, not compiled."""
        with jax.enable_x64(self.settings.x64):
            return self._chunk.trace(self.shapes(), jnp.int32(0))

    def compile(self) -> float:
        """Compile the chunk ahead of its first use; seconds taken."""
        begin = time.monotonic()
        with jax.enable_x64(self.settings.x64):
            self.compiled = self.traced.lower().compile()
        return time.monotonic() - begin

    def shapes(self) -> Carry:
        """A carry in shapes and types alone."""
        with jax.enable_x64(self.settings.x64):
            return jax.tree.map(self._on_devices, jax.eval_shape(self._init, self._seeds()))

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

    def _seeds(self) -> jax.Array:
        return self.axis.to_devices(np.arange(self.settings.seed, self.settings.seed + self.settings.seeds, dtype=np.int32))

    def _on_devices(self, leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=self.axis.sharding)

    def _init_seeds(self, seeds: jax.Array) -> Carry:
        carry = jax.lax.map(self._init_seed, seeds)  # one after the other: see `SoftQ.init`
        rows = min(self.settings.replay_capacity or self.settings.steps, self.settings.steps)
        create = partial(
            replay.create, rows, action=jnp.zeros(self.env.action_space.size), state_size=len(self.env.state_names),
            noise_dtype=self.env.noise_dtype,
        )  # fmt: skip
        return carry._replace(replay=jax.vmap(create)(carry.observation))

    def _init_seed(self, seed: jax.Array) -> Carry:
        key = jax.random.fold_in(jax.random.key(0), seed)
        key, learner_key, env_key = jax.random.split(key, 3)
        env_state, observation = self.env.reset(env_key)
        learner = self.method.init(learner_key)
        if self.settings.normalize_observations:
            learner = learner._replace(moments=prior(observation))
        return Carry(
            key=key,
            learner=learner,
            env_state=env_state,
            observation=observation,
            failed_step=jnp.int32(-1),
            failed_part=jnp.int32(-1),
            replay=None,  # type: ignore[arg-type]
        )

    def _all_seeds(self, carry: Carry, start: jax.Array) -> tuple[Carry, Report]:
        """A device's seeds: side by side, or on a CPU, where small products run faster alone, one after the other."""
        if not self.axis.on_cpu:
            # The step is the same for all seeds and stays unbatched: branches on it stay branches, and the replay's row is
            # written in place.
            return jax.vmap(self._one_seed, in_axes=(0, None))(carry, start)

        def advance(carry: Carry, seed: jax.Array) -> tuple[Carry, Report]:
            one, report = self._one_seed(jax.tree.map(lambda leaf: leaf[seed], carry), start)
            return jax.tree.map(lambda leaf, new: leaf.at[seed].set(new), carry, one), report

        return jax.lax.scan(advance, carry, jnp.arange(len(carry.key)))

    def _one_seed(self, carry: Carry, start: jax.Array) -> tuple[Carry, Report]:
        length = self.settings.eval_every
        carry, _ = jax.lax.scan(self._env_step, carry, start + jnp.arange(length, dtype=jnp.int32))
        return carry, self._report(carry, start + length)

    def _env_step(self, carry: Carry, step: jax.Array) -> tuple[Carry, None]:
        settings = self.settings
        act_key, env_key, sample_key, update_key = jax.random.split(jax.random.fold_in(carry.key, step), 4)
        blindly = step < settings.random_steps
        action = self.method.act(carry.learner, act_key, carry.observation, explore=True, random=blindly)
        env_state, result = self.env.step(env_key, carry.env_state, action)
        buffer = replay.add(
            carry.replay, step, self.env.action_space.encode(action), result.reward, result.terminated, result.truncated,
            result.next_observation, result.observation,
        )  # fmt: skip
        carry = carry._replace(env_state=env_state, observation=result.observation, replay=buffer)
        learner = carry.learner.observe(result.next_observation)

        def learn() -> Learner:
            batch = replay.sample(buffer, sample_key, step + 1, settings.batch_size)
            return self.method.update(learner, learner.normalized_batch(batch), step, update_key)

        return _keep_finite(carry, jax.lax.cond(~blindly, learn, lambda: learner), step), None

    def _report(self, carry: Carry, step: jax.Array) -> Report:
        learner = carry.learner
        eval_key, batch_key = jax.random.split(jax.random.fold_in(jax.random.fold_in(carry.key, step), 1))

        def diagnose(key: jax.Array) -> dict[str, jax.Array | None]:
            batch = replay.sample(carry.replay, key, step, self.settings.batch_size)
            return self.method.diagnose(learner, batch, len(self.env.state_names), step, jax.random.fold_in(key, 1))

        # One batch after the other: they need the memory of one.
        figures = jax.lax.map(diagnose, jax.random.split(batch_key, DIAGNOSTIC_BATCHES))
        return Report(
            episode_returns=evaluate(self.env, partial(self.method.act, learner), eval_key, self.settings.eval_episodes),
            failed_step=carry.failed_step,
            failed_part=carry.failed_part,
            **jax.tree.map(lambda figure: jnp.mean(figure, axis=0), figures),
        )


def _keep_finite(carry: Carry, learner: Learner, step: jax.Array) -> Carry:
    """Take the new learner, or keep the last finite one for ever and remember when and what failed."""
    sums = jnp.stack([sum((jnp.sum(x) for x in jax.tree.leaves(part)), jnp.float32(0)) for part in learner])
    bad = ~jnp.isfinite(sums)
    healthy = (carry.failed_step < 0) & ~bad.any()
    first = (carry.failed_step < 0) & bad.any()
    return carry._replace(
        learner=jax.tree.map(lambda new, old: jnp.where(healthy, new, old), learner, carry.learner),
        failed_step=jnp.where(first, step, carry.failed_step),
        failed_part=jnp.where(first, jnp.argmax(bad).astype(jnp.int32), carry.failed_part),
    )
