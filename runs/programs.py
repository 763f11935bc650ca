"""Compiled programs whose time is measured: an agent's bare updates, and its whole environment steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax

from mbrl_taskmet.rl.environment import Environment
from mbrl_taskmet.rl.sweep import Sweep
from mbrl_taskmet.rl.training import Trainer

STEPS = 400
"""Updates or environment steps that a program repeats."""


def trainer(
    given: dict[str, Any], *, seeds: int = 1, steps: int = 8000, eval_every: int = STEPS, sweep: Sweep | None = None,
    devices: Sequence[jax.Device] | None = None, **where: Any,
) -> Trainer:  # fmt: skip
    """The trainer of the settings `given`, by default on CartPole with 8 distractors; TaskMet's metric moves from the start."""
    from envs.make import make_environment
    from mbrl_taskmet.rl.make import make_method
    from mbrl_taskmet.rl.settings import Config
    from mbrl_taskmet.rl.training import grid_of

    at_once: dict[str, Any] = {"metric_warmup": 0} if given.get("method", "taskmet") == "taskmet" else {}
    sizes = {"seeds": seeds, "steps": steps, "eval_every": eval_every, "random_steps": 400, "eval_episodes": 10}
    config = Config(**{**sizes, **at_once, **given})
    env = make_environment(**{"name": "CartPole-v1", "distractors": 8, **where})
    over = grid_of(env, config, sweep or {})
    return Trainer(env, make_method(env, over.settings[0]), over.settings[0], devices, over=over)


def updates(given: dict[str, Any], **where: Any) -> Callable[[], None]:
    """`STEPS` bare updates on a batch of random transitions."""
    import jax
    import jax.numpy as jnp

    from mbrl_taskmet.rl.methods import Learner
    from mbrl_taskmet.rl.replay import Transitions

    timed = trainer(given, **where)
    method, env, keys = timed.method, timed.env, jax.random.split(jax.random.key(0), 5)
    size = timed.settings.batch_size
    observation, following = jax.random.normal(keys[0], (2, size, env.observation_size))
    actions = jax.vmap(env.action_space.sample)(jax.random.split(keys[1], size))
    batch = Transitions(observation, env.action_space.encode(actions), jnp.ones(size), jnp.zeros(size), following)

    @jax.jit
    def run(learner: Learner, batch: Transitions, keys: jax.Array) -> Learner:
        def step(learner: Learner, now: tuple[jax.Array, jax.Array]) -> tuple[Learner, None]:
            return method.update(learner, batch, *now), None

        return jax.lax.scan(step, learner, (jnp.arange(STEPS), keys))[0]

    learner, keys = method.init(keys[3]), jax.random.split(keys[4], STEPS)
    return lambda: jax.block_until_ready(run(learner, batch, keys)) and None


def steps(given: dict[str, Any], eval_every: int, **where: Any) -> Callable[[], None]:
    """A chunk of `eval_every` environment steps of every run after the random ones, with its evaluation."""
    import jax

    timed = trainer(given, eval_every=eval_every, **where)
    state = [timed.init()]

    def run() -> None:
        carry, _ = timed.chunk(state.pop(), eval_every * (4000 // eval_every))
        state.append(jax.block_until_ready(carry))

    return run


def stepping(env: Environment, steps: int) -> Callable[[], None]:
    """So many steps of an environment alone, by random actions."""
    import jax

    @jax.jit
    def run(key: jax.Array) -> Any:
        def step(state: Any, key: jax.Array) -> tuple[Any, jax.Array]:
            act, move = jax.random.split(key)
            state, result = env.step(move, state, env.action_space.sample(act))
            return state, result.reward

        state, _ = env.reset(key)
        return jax.lax.scan(step, state, jax.random.split(key, steps))

    return lambda: jax.block_until_ready(run(jax.random.key(0))) and None
