"""The loop: environment step → replay → update, compiled in chunks, side by side over seeds.

A chunk is one compiled program: a scan over the environment steps between two evaluations, then the evaluation, vmapped over
the seeds of a device and sharded over devices. Step and seed determine every random number: nothing else is carried.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mbrl_taskmet import replay
from mbrl_taskmet.config import Config
from mbrl_taskmet.evaluation import evaluate
from mbrl_taskmet.make import make_method
from mbrl_taskmet.methods import Learner, Method
from mbrl_taskmet.normalization import prior
from mbrl_taskmet.replay import Replay
from mbrl_taskmet.spread import Spread

if TYPE_CHECKING:
    from envs.base import Environment

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
    residual: jax.Array  # mean over the chunk of the implicit solve's relative residual
    metric_diagonal: jax.Array | None  # (n,), the mean of Λ's diagonal over the batch; None without a metric
    failed_step: jax.Array
    failed_part: jax.Array


class Result(NamedTuple):
    """A finished run. S seeds, T evaluations."""

    steps: np.ndarray  # (T,), environment steps of each seed at an evaluation
    returns: np.ndarray  # (S, T), mean undiscounted return of an evaluation
    reports: Report  # every figure of `Report`, each (S, T, …)
    learner: Learner  # what was learned, each leaf (S, …)


def train(env: Environment, config: Config, method: Method | None = None) -> Result:
    """Train every seed of `config` on `env` and return arrays; nothing is written.

    Args:
        method: a way of learning the model of your own, instead of the one that `config` names.

    Raises:
        ConfigError: the configuration cannot work.
    """
    config = config.resolve(noisy=env.observation_size > len(env.state_names))
    trainer = Trainer(env, method or make_method(env, config), config)
    steps, reports, carry = [], [], trainer.init()
    for step, carry, report in trainer.run(carry):  # noqa: B020, B007
        steps.append(step)
        reports.append(report)
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves, axis=1), *reports)
    returns = stacked.episode_returns.mean(axis=-1)
    return Result(np.array(steps), returns, stacked, trainer.spread.to_host(carry.learner))


class Trainer:
    """An environment, a method and the sizes of a run, made into compiled functions of a `Carry` with a seed axis.

    Args:
        env: an `envs.base.Environment`.
        method: how the model is learned; `make.make_method` makes the one that `config` names.
        config: a resolved configuration, for the sizes of the run and its exploration.
        devices: what the seeds are spread over; all of JAX's by default.
    """

    def __init__(self, env: Environment, method: Method, config: Config, devices: list[jax.Device] | None = None):
        self.env, self.method, self.config = env, method, config
        self.spread = spread = Spread(config.seeds, devices)
        self._init = jax.jit(spread.sharded(self._init_seeds), compiler_options=spread.compiler_options(0))
        chunk = spread.sharded(self._all_seeds, common=1)
        self._chunk: Any = jax.jit(chunk, donate_argnums=0, compiler_options=spread.compiler_options(1))

    def init(self) -> Carry:
        """The start of every seed, on its device."""
        with jax.enable_x64(self.config.x64):
            return self._init(self._seeds())

    def chunk(self, carry: Carry, start: int) -> tuple[Carry, Report]:
        """Advance every seed from step `start` by the steps between two evaluations, then evaluate. `carry` is donated."""
        with jax.enable_x64(self.config.x64):
            return self._chunk(carry, jnp.int32(start))

    def compile(self) -> float:
        """Compile the chunk ahead of its first use; seconds taken."""
        begin = time.monotonic()
        with jax.enable_x64(self.config.x64):
            carry = jax.tree.map(self._on_devices, jax.eval_shape(self._init, self._seeds()))
            self._chunk = self._chunk.lower(carry, jnp.int32(0)).compile()
        return time.monotonic() - begin

    def run(self, carry: Carry, start: int = 0) -> Iterator[tuple[int, Carry, Report]]:
        """Chunk by chunk to the configured end: (environment steps done, carry, report without the padding).

        A yielded carry is valid until the iterator is advanced.
        """
        for step in range(start, self.config.steps, self.config.eval_every):
            carry, report = self.chunk(carry, step)
            yield step + self.config.eval_every, carry, self.spread.to_host(report)

    def _seeds(self) -> jax.Array:
        return self.spread.to_devices(np.arange(self.config.seed, self.config.seed + self.config.seeds, dtype=np.int32))

    def _on_devices(self, leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=self.spread.sharding)

    def _init_seeds(self, seeds: jax.Array) -> Carry:
        carry = jax.lax.map(self._init_seed, seeds)  # one after the other: see `SoftQ.init`
        rows = min(self.config.replay_capacity or self.config.steps, self.config.steps)
        create = partial(
            replay.create, rows, action=self.method.critic.encode(jnp.int32(0)), state_size=len(self.env.state_names),
            noise_dtype=self.env.noise_dtype,
        )  # fmt: skip
        return carry._replace(replay=jax.vmap(create)(carry.observation))

    def _init_seed(self, seed: jax.Array) -> Carry:
        key = jax.random.fold_in(jax.random.key(0), seed)
        key, learner_key, env_key = jax.random.split(key, 3)
        env_state, observation = self.env.reset(env_key)
        learner = self.method.init(learner_key)
        if self.config.normalize_observations:
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
        if not self.spread.on_cpu:
            # The step is the same for all seeds and stays unbatched: branches on it stay branches, and the replay's row is
            # written in place.
            return jax.vmap(self._one_seed, in_axes=(0, None))(carry, start)

        def advance(carry: Carry, seed: jax.Array) -> tuple[Carry, Report]:
            one, report = self._one_seed(jax.tree.map(lambda leaf: leaf[seed], carry), start)
            return jax.tree.map(lambda leaf, new: leaf.at[seed].set(new), carry, one), report

        return jax.lax.scan(advance, carry, jnp.arange(len(carry.key)))

    def _one_seed(self, carry: Carry, start: jax.Array) -> tuple[Carry, Report]:
        length = self.config.eval_every
        carry, residuals = jax.lax.scan(self._env_step, carry, start + jnp.arange(length, dtype=jnp.int32))
        return carry, self._report(carry, residuals, start + length)

    def _env_step(self, carry: Carry, step: jax.Array) -> tuple[Carry, jax.Array]:
        config, critic = self.config, self.method.critic
        act_key, env_key, sample_key = jax.random.split(jax.random.fold_in(carry.key, step), 3)
        epsilon = jnp.where(step < config.random_steps, 1.0, config.epsilon)
        action = self.method.act(carry.learner, act_key, carry.observation, epsilon)
        env_state, result = self.env.step(env_key, carry.env_state, action)
        memory = replay.add(
            carry.replay, step, critic.encode(action), result.reward, result.terminated, result.next_observation,
            result.observation,
        )  # fmt: skip
        carry = carry._replace(env_state=env_state, observation=result.observation, replay=memory)
        learner = carry.learner.observe(result.next_observation)

        def learn() -> tuple[Learner, jax.Array]:
            batch = replay.sample(memory, sample_key, step + 1, config.batch_size)
            updated, info = self.method.update(learner, learner.normalized_batch(batch), step)
            return updated, info.residual

        def wait() -> tuple[Learner, jax.Array]:
            return learner, jnp.full_like(result.reward, jnp.nan)

        learner, residual = jax.lax.cond(step >= config.random_steps, learn, wait)
        return _keep_finite(carry, learner, step), residual

    def _report(self, carry: Carry, residuals: jax.Array, step: jax.Array) -> Report:
        learner = carry.learner
        eval_key, batch_key = jax.random.split(jax.random.fold_in(jax.random.fold_in(carry.key, step), 1))

        def diagnose(key: jax.Array) -> dict[str, jax.Array | None]:
            batch = replay.sample(carry.replay, key, step, self.config.batch_size)
            return self.method.diagnose(learner, batch, len(self.env.state_names))

        # One batch after the other: they need the memory of one.
        figures = jax.lax.map(diagnose, jax.random.split(batch_key, DIAGNOSTIC_BATCHES))
        return Report(
            episode_returns=evaluate(self.env, partial(self.method.act, learner), eval_key, self.config.eval_episodes),
            residual=jnp.nanmean(residuals),
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
