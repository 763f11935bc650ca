"""The exact tabular study of OMD: two states, two actions, a model of bounded norm; no sampling and no networks.

    P̂(s'|s,a) = softmax(z_a,s),  z = logits/α,   r̂ free,   ‖(z, r̂)‖ ≤ B by projection after every Adam step
    MLE   min  E_s,a [ −Σ_s' P log P̂ + (r̂ − R)² ]
    OMD   max  J(softmax(Q*/α)),   Q* = r̂ + γ P̂ V*,   V* = α log Σ_a exp(Q*/α),   J = E_s0 (I − γ P_π)⁻¹ R_π

Nikishin et al. (2022), section 5.1. ∂Q* comes from the implicit function theorem, with the Bellman residual's squared norm as
the inner problem. `python -m agents.tabular` prints the returns beside the published ones.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mbrl_taskmet.core.implicit import implicit_vjp
from mbrl_taskmet.core.linear_solve import Dense
from mbrl_taskmet.rl.values import soft_value
from mbrl_taskmet.runner.command import Parser, check_counts, command

DISCOUNT, TEMPERATURE = 0.9, 0.01
TRANSITION = np.array([[[0.7, 0.3], [0.2, 0.8]], [[0.99, 0.01], [0.99, 0.01]]])  # [action, state, next state]
REWARD = np.array([[-0.45, -0.1], [0.5, 0.5]])  # [state, action]
BOUNDS = (0.32, 0.63, 0.95, 1.26, 1.89, 2.84, 4.11, 5.05)
PUBLISHED = {  # read off the figure, ±.02
    "MLE": (-0.83, -0.72, -0.48, 0.19, 0.67, 0.92, 1.00, 1.01),
    "OMD": (-0.60, -0.33, 0.13, 0.59, 1.00, 1.02, 1.03, 1.03),
}
_NEWTON_STEPS = 12  # policy iteration of two states and two actions ends after four; the soft one is as fast but for rounding


class Params(NamedTuple):
    """A tabular model θ."""

    logits: jax.Array  # (actions, states, next states), times 1/α
    reward: jax.Array  # (states, actions)


def transition(params: Params) -> jax.Array:
    """P̂ (actions, states, next states)."""
    return jax.nn.softmax(params.logits / TEMPERATURE)


def bellman(values: jax.Array, params: Params) -> jax.Array:
    """The soft Bellman operator of a model: Q (states, actions) → r̂ + γ P̂ V."""
    return params.reward + DISCOUNT * jnp.einsum("ast,t->sa", transition(params), soft_value(values, TEMPERATURE))


def optimal_values(params: Params) -> jax.Array:
    """Q*, the fixed point of `bellman`, by Newton's method, which here is soft policy iteration: it always converges."""

    def step(_: int, values: jax.Array) -> jax.Array:
        slope = jax.jacfwd(lambda x: bellman(x.reshape(2, 2), params).ravel() - x)(values.ravel())
        return values - jnp.linalg.solve(slope, (bellman(values, params) - values).ravel()).reshape(2, 2)

    return jax.lax.fori_loop(0, _NEWTON_STEPS, step, jnp.zeros_like(params.reward))


def policy_return(values: jax.Array) -> jax.Array:
    """J, the exact discounted return of the policy softmax(Q/α) from a uniform start, scalar."""
    policy = jax.nn.softmax(values / TEMPERATURE)
    moves = jnp.einsum("sa,ast->st", policy, TRANSITION)
    return jnp.mean(jnp.linalg.solve(jnp.eye(2) - DISCOUNT * moves, jnp.sum(policy * REWARD, axis=-1)))


def mle_gradient(params: Params) -> Params:
    """The gradient of the negative log-likelihood and the squared error of the reward."""

    def loss(params: Params) -> jax.Array:
        likelihood = jnp.sum(TRANSITION * jax.nn.log_softmax(params.logits / TEMPERATURE), axis=-1)
        return -jnp.mean(likelihood) + jnp.mean((params.reward - REWARD) ** 2)

    return jax.grad(loss)(params)


def omd_gradient(params: Params) -> Params:
    """The gradient of −J(Q*(θ)), implicit in Q*, which minimises ½‖Q − bellman(Q, θ)‖²."""
    values = optimal_values(params)
    gradient, _ = implicit_vjp(
        predict=lambda q: q,
        loss=lambda q, theta: 0.5 * jnp.sum((q - bellman(q, theta)) ** 2),
        solution=values,
        parameters=params,
        cotangent=jax.grad(lambda q: -policy_return(q))(values),
        solver=Dense(),
    )
    return gradient


METHODS: dict[str, Callable[[Params], Params]] = {"MLE": mle_gradient, "OMD": omd_gradient}


def project(params: Params, bound: jax.Array) -> Params:
    """The model scaled down to ‖(z, r̂)‖ = `bound` if it is longer."""
    norm = jnp.sqrt(jnp.sum((params.logits / TEMPERATURE) ** 2) + jnp.sum(params.reward**2))
    return jax.tree.map(lambda x: x * jnp.minimum(1.0, bound / norm), params)


def learn(method: str, key: jax.Array, bound: jax.Array, steps: int) -> jax.Array:
    """J after `steps` of projected Adam from a model drawn from U(0, 1), scalar. `key` is consumed."""
    optimizer = optax.adam(0.01)
    keys = jax.random.split(key)
    start = project(Params(jax.random.uniform(keys[0], (2, 2, 2)), jax.random.uniform(keys[1], (2, 2))), bound)

    def step(carry: tuple[Params, optax.OptState], _: None) -> tuple[tuple[Params, optax.OptState], None]:
        params, state = carry
        updates, state = optimizer.update(METHODS[method](params), state)
        return (project(optax.apply_updates(params, updates), bound), state), None

    (params, _), _ = jax.lax.scan(step, (start, optimizer.init(start)), length=steps)
    return policy_return(optimal_values(params))


def study(seeds: int, steps: int) -> dict[str, np.ndarray]:
    """J of every method, (seeds, bounds), in float64."""
    with jax.enable_x64(True):
        keys, bounds = jax.random.split(jax.random.key(0), seeds), jnp.array(BOUNDS)
        every = {method: jax.vmap(jax.vmap(partial(learn, method, steps=steps), (None, 0)), (0, None)) for method in METHODS}
        return {method: np.asarray(jax.jit(run)(keys, bounds)) for method, run in every.items()}


def table(returns: dict[str, np.ndarray]) -> str:
    """Markdown: mean ± standard error over seeds under every bound, beside the published mean."""
    from mbrl_taskmet.runner.statistics import standard_error

    lines = ["| method | " + " | ".join(f"B = {bound}" for bound in BOUNDS) + " |", "|---" * (len(BOUNDS) + 1) + "|"]
    for method, values in returns.items():
        cells = [f"{column.mean():.2f} ± {standard_error(column):.2f}" for column in values.T]
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
        lines.append(f"| {method}, published | " + " | ".join(f"{value:.2f}" for value in PUBLISHED[method]) + " |")
    return "\n".join(lines).replace("| -", "| −")


def read(argv: list[str] | None, parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The options of `parser` and the size of the study; ConfigError if that is below 1."""
    parser.add_argument("--seeds", type=int, default=10, help="number of random starts (default: 10)")
    parser.add_argument("--steps", type=int, default=10_000, help="Adam steps (default: 10000)")
    options = parser.parse_args(argv)
    check_counts(options, "seeds", "steps")
    return options


@command
def main(argv: list[str] | None = None) -> int:
    """Run the study and print its table."""
    options = read(argv, Parser(prog="python -m agents.tabular", description="OMD's exact tabular study."))
    print(table(study(options.seeds, options.steps)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
