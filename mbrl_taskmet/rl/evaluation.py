"""Returns of a policy over whole episodes, compiled."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from mbrl_taskmet.rl.environment import Environment, episodic


def evaluate(
    env: Environment,
    act: Callable[[jax.Array, jax.Array], jax.Array],
    key: jax.Array,
    episodes: int,
) -> jax.Array:
    """Undiscounted returns (episodes,) of the policy `act`(key, observation) → action. `key` is consumed."""
    env = episodic(env)

    def episode(key: jax.Array) -> jax.Array:
        reset_key, key = jax.random.split(key)
        state, observation = env.reset(reset_key)

        def running(carry: tuple) -> jax.Array:
            return ~carry[-1]

        def step(carry: tuple) -> tuple:
            count, state, observation, total, _ = carry
            act_key, env_key = jax.random.split(jax.random.fold_in(key, count))
            state, result = env.step(env_key, state, act(act_key, observation))
            done = result.terminated | result.truncated | (count + 1 >= env.max_episode_steps)
            return count + 1, state, result.observation, total + result.reward, done

        start = (jnp.int32(0), state, observation, jnp.zeros((), observation.dtype), jnp.array(False))
        return jax.lax.while_loop(running, step, start)[3]

    return jax.vmap(episode)(jax.random.split(key, episodes))
