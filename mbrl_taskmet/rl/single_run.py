"""One run of an agent, as compiled functions of explicit state: act, step, store, update; then evaluate.

Step and seed determine every random number: nothing else is carried.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mbrl_taskmet.core.layout import Layout, Unchanged
from mbrl_taskmet.rl import replay
from mbrl_taskmet.rl.environment import Environment
from mbrl_taskmet.rl.evaluation import evaluate
from mbrl_taskmet.rl.methods import Learner, Method
from mbrl_taskmet.rl.normalization import prior
from mbrl_taskmet.rl.replay import Replay
from mbrl_taskmet.rl.settings import Settings

DIAGNOSTIC_BATCHES = 8


class Carry(NamedTuple):
    """Everything a seed has between two environment steps."""

    key: jax.Array  # the seed's own key, never changed: step t uses fold_in(key, t)
    learner: Learner
    env_state: Any
    observation: jax.Array  # (n,), what the next action sees
    skipped: jax.Array  # updates so far that were not finite, and were not taken
    skipped_in_row: jax.Array  # of these, the last ones without one that was taken
    failed_step: jax.Array  # the first of so many skipped in a row that the run stopped learning, or −1
    failed_part: jax.Array  # the index in `Learner` of what was not finite then, or −1
    replay: Replay


class Report(NamedTuple):
    """What a chunk tells of each seed, at its end. Shapes are per seed; NaN where a method has no such quantity."""

    episode_returns: jax.Array  # (eval_episodes,), undiscounted
    model_mse: jax.Array  # E‖ŝ' − s'‖² over all dimensions, in the environment's units, on batches of the replay
    model_mse_state: jax.Array  # the same over the task's own dimensions, `Environment.state_of`
    task_loss: jax.Array  # L_task(ω)
    q_loss: jax.Array  # L_Q(ω, θ)
    residual: jax.Array | None  # of the implicit solve, relative, on batches of the replay; None without one
    metric_diagonal: jax.Array | None  # (n,), the mean of Λ's diagonal over the batch; None without a metric
    skipped: jax.Array
    failed_step: jax.Array
    failed_part: jax.Array


@dataclass(frozen=True)
class SingleRun:
    """An environment, a method and the sizes of a run.

    Attributes:
        env: the environment, as `check_environment` gives it.
        method: how the model is learned.
        settings: what `method` was made of, and the sizes; numbers may be traced.
        raveled: whether what is learned is a few vectors between two steps: fewer kernels for an accelerator. A CPU computes as
            fast without, and compiles a fifth faster.
    """

    env: Environment
    method: Method
    settings: Settings
    raveled: bool = False

    def init(self, seed: jax.Array) -> Carry:
        """The start of a seed, an int scalar, but for the replay."""
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
            skipped=jnp.int32(0),
            skipped_in_row=jnp.int32(0),
            failed_step=jnp.int32(-1),
            failed_part=jnp.int32(-1),
            replay=None,  # type: ignore[arg-type]
        )

    def advance(self, carry: Carry, start: jax.Array) -> tuple[Carry, Report]:
        """The steps from `start`, an int scalar, to the next evaluation, and that."""
        carry = self.steps(carry, start)
        return carry, self._report(carry, start + self.settings.eval_every)

    def steps(self, carry: Carry, start: jax.Array) -> Carry:
        """The steps alone."""
        layouts = Learner._make(map(Layout if self.raveled else Unchanged, carry.learner))

        def env_step(carry: Carry, step: jax.Array) -> tuple[Carry, None]:
            return self._env_step(carry, layouts, step), None

        carry = carry._replace(learner=_ravel(layouts, carry.learner))
        steps = start + jnp.arange(self.settings.eval_every, dtype=jnp.int32)
        carry, _ = jax.lax.scan(env_step, carry, steps)
        return carry._replace(learner=_unravel(layouts, carry.learner))

    def _env_step(self, carry: Carry, layouts: Any, step: jax.Array) -> Carry:
        """One step, of a carry whose learner is as `layouts` ravel it."""
        settings = self.settings
        learner = _unravel(layouts, carry.learner)
        act_key, env_key, sample_key, update_key = jax.random.split(jax.random.fold_in(carry.key, step), 4)
        blindly = step < settings.random_steps
        action = self.method.act(learner, act_key, carry.observation, explore=True, random=blindly)
        env_state, result = self.env.step(env_key, carry.env_state, action)
        reward = settings.reward_scale * result.reward
        buffer = replay.add(
            carry.replay, step, self.env.action_space.encode(action), reward, result.terminated, result.truncated,
            result.next_observation, result.observation,
        )  # fmt: skip
        carry = carry._replace(env_state=env_state, observation=result.observation, replay=buffer)
        moments = learner.observe(result.next_observation).moments
        observed = carry.learner._replace(moments=layouts.moments.ravel(moments))

        def learn() -> Learner:
            learner = _unravel(layouts, observed)  # here, for whatever enters a branch is made before it
            return _ravel(layouts, self._updated(learner, buffer, step, sample_key, update_key))

        return _skip_nonfinite(carry, jax.lax.cond(~blindly, learn, lambda: observed), step, settings.skip_limit)

    def failed_update(self, carry: Carry) -> Learner:
        """What the update gave at which a run began to fail, once more: the state before it was kept."""
        step = carry.failed_step
        _, _, sample_key, update_key = jax.random.split(jax.random.fold_in(carry.key, step), 4)
        learner = carry.learner.observe(replay.gather(carry.replay, step).next_observation)
        return self._updated(learner, carry.replay, step, sample_key, update_key)

    def _updated(
        self, learner: Learner, buffer: Replay, step: jax.Array, sample_key: jax.Array, update_key: jax.Array
    ) -> Learner:
        batch = replay.sample(buffer, sample_key, step + 1, self.settings.batch_size)
        return self.method.update(learner, learner.normalized_batch(batch), step, update_key)

    def _report(self, carry: Carry, step: jax.Array) -> Report:
        learner = carry.learner
        eval_key, batch_key = jax.random.split(jax.random.fold_in(jax.random.fold_in(carry.key, step), 1))

        def diagnose(key: jax.Array) -> dict[str, jax.Array | None]:
            batch = replay.sample(carry.replay, key, step, self.settings.batch_size)
            return self.method.diagnose(learner, batch, self.env.state_of, step, jax.random.fold_in(key, 1))

        # One batch after the other: they need the memory of one.
        figures = jax.lax.map(diagnose, jax.random.split(batch_key, DIAGNOSTIC_BATCHES))
        return Report(
            episode_returns=evaluate(self.env, partial(self.method.act, learner), eval_key, self.settings.eval_episodes),
            skipped=carry.skipped,
            failed_step=carry.failed_step,
            failed_part=carry.failed_part,
            **jax.tree.map(lambda figure: jnp.mean(figure, axis=0), figures),
        )


def _ravel(layouts: Any, learner: Learner) -> Learner:
    """The learner, each part as its layout ravels it."""
    return Learner._make(layout.ravel(part) for layout, part in zip(layouts, learner, strict=True))


def _unravel(layouts: Any, learner: Learner) -> Learner:
    """The inverse of `_ravel`."""
    return Learner._make(layout.unravel(part) for layout, part in zip(layouts, learner, strict=True))


def _skip_nonfinite(carry: Carry, learner: Learner, step: jax.Array, limit: int) -> Carry:
    """Take the new learner if it is finite, else skip the update; after `limit` skipped in a row take none any more."""
    sums = jnp.stack([sum((jnp.sum(x) for x in jax.tree.leaves(part)), jnp.float32(0)) for part in learner])
    bad = ~jnp.isfinite(sums)
    learns = carry.failed_step < 0
    take, skip = learns & ~bad.any(), learns & bad.any()
    in_row = jnp.where(take, 0, carry.skipped_in_row + skip)
    stops = skip & (in_row >= limit)
    return carry._replace(
        learner=jax.tree.map(lambda new, old: jnp.where(take, new, old), learner, carry.learner),
        skipped=carry.skipped + skip,
        skipped_in_row=in_row,
        failed_step=jnp.where(stops, step + 1 - in_row, carry.failed_step),
        failed_part=jnp.where(stops, jnp.argmax(bad).astype(jnp.int32), carry.failed_part),
    )
