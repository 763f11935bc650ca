"""The exact tabular study of OMD: two states, two actions, a model of bounded norm; no sampling and no networks.

    P̂(s'|s,a) = softmax(z_as / T),   r̂(s,a) free,   θ = (z, r̂) ~ U(0, 1) at the start
    MLE   min  E_s,a [ KL(P ‖ P̂) + (r̂ − R)² ]
    OMD   max  J(softmax(Q*/T)),   Q* = r̂ + γ P̂ V*,   V* = T log Σ_a exp(Q*/T),   J = E_s0 (I − γ P_π)⁻¹ R_π
    both  by Adam, θ shortened to a norm of B after every step; Adam's moments are left alone

Nikishin et al. (2022), section 5.1. ∂Q* comes from the implicit function theorem, with the Bellman residual's squared norm as
the inner problem. The norm that made their figure is not their text's: see `PROJECTIONS`.
`python -m agents.tabular` prints the returns beside the published ones.
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
BOUNDS = np.linspace(0, 6, 20)[[1, 2, 3, 4, 6, 9, 13, 16]]
FIGURE = {
    "MLE": (-0.83, -0.73, -0.48, 0.19, 0.67, 0.92, 0.99, 1.00),
    "OMD": (-0.60, -0.33, 0.13, 0.595, 0.99, 1.03, 1.02, 1.03),
}
"""J under every bound, read off the published figure, ±0.02."""
ORIGINAL = {
    "MLE": (-0.825, -0.722, -0.482, 0.202, 0.653, 0.920, 0.996, 1.013),
    "OMD": (-0.593, -0.328, 0.134, 0.597, 0.995, 1.024, 1.022, 1.026),
}
"""J under every bound, the mean over seeds 1 to 10 of the original code run again."""
_NEWTON_STEPS = 12  # policy iteration of two states and two actions ends after four; the soft one is as fast but for rounding


class Params(NamedTuple):
    """A tabular model θ."""

    logits: jax.Array  # z (actions, states, next states)
    reward: jax.Array  # r̂ (states, actions)


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
    """J, the exact discounted return of the policy softmax(Q/T) from a uniform start, scalar."""
    policy = jax.nn.softmax(values / TEMPERATURE)
    moves = jnp.einsum("sa,ast->st", policy, TRANSITION)
    return jnp.mean(jnp.linalg.solve(jnp.eye(2) - DISCOUNT * moves, jnp.sum(policy * REWARD, axis=-1)))


def mle_gradient(params: Params) -> Params:
    """The gradient of the mean KL(P ‖ P̂), without P's constant entropy, plus the mean squared error of the reward."""

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


def _shortening(square: jax.Array, bound: jax.Array) -> jax.Array:
    """min(1, B/n), n² = `square`, by which what has the norm n is multiplied to have B at most."""
    return jnp.minimum(1.0, bound / jnp.sqrt(square))


def project_original(params: Params, bound: jax.Array) -> Params:
    """Each of x = z and x = r̂ by itself, shortened to √(‖x[0]/T‖² + ‖x[1]‖²) ≤ B.

    The original applies to one array at a time the line that means `project_text`, so what were to be the two arrays are the
    two entries of each one's first axis: action 0's logits and state 0's rewards count in units of T, the others as they are.
    """

    def shortened(x: jax.Array) -> jax.Array:
        return x * _shortening(jnp.sum((x[0] / TEMPERATURE) ** 2) + jnp.sum(x[1] ** 2), bound)

    return Params(shortened(params.logits), shortened(params.reward))


def project_text(params: Params, bound: jax.Array) -> Params:
    """The whole model shortened to √(‖z/T‖² + ‖r̂‖²) ≤ B."""
    by = _shortening(jnp.sum((params.logits / TEMPERATURE) ** 2) + jnp.sum(params.reward**2), bound)
    return Params(by * params.logits, by * params.reward)


PROJECTIONS: dict[str, Callable[[Params, jax.Array], Params]] = {"original": project_original, "text": project_text}
"""The norm that runs in the code that made the published figure, and the one that the paper's text gives."""


def start(seed: int) -> Params:
    """The original's model of a seed before any step, U(0, 1) and not projected, from JAX's generator of 2021."""
    with jax.threefry_partitionable(False):
        _, logits, reward = jax.random.split(jax.random.key(seed, impl="threefry2x32"), 3)  # the first drew Q, solved for here
        return Params(jax.random.uniform(logits, (2, 2, 2)), jax.random.uniform(reward, (2, 2)))


def learn(begin: Params, bound: jax.Array, method: str, norm: str, steps: int) -> jax.Array:
    """J after `steps` of projected Adam, scalar.

    As in the original, the last step counts for nothing: J is that of the Q* which it begins with. MLE's alternates from step
    to step to the end, by up to 0.15 under B = 1.26, so it is averaged with the one before.
    """
    optimizer = optax.adam(0.01)

    def step(carry: tuple[Params, Params, optax.OptState], _: None) -> tuple[tuple[Params, Params, optax.OptState], None]:
        _before, params, state = carry
        updates, state = optimizer.update(METHODS[method](params), state)
        return (params, PROJECTIONS[norm](optax.apply_updates(params, updates), bound), state), None

    (before, last, _), _ = jax.lax.scan(step, (begin, begin, optimizer.init(begin)), length=steps - 1)
    return (policy_return(optimal_values(before)) + policy_return(optimal_values(last))) / 2


def study(seeds: int, steps: int, norm: str = "original") -> dict[str, np.ndarray]:
    """J of every method, (seeds, bounds), of seeds from 1 on, in float64."""
    with jax.enable_x64(True):
        begin = jax.tree.map(lambda *x: jnp.stack(x), *(start(seed) for seed in range(1, seeds + 1)))
        every = {method: partial(learn, method=method, norm=norm, steps=steps) for method in METHODS}
        runs = {method: jax.jit(jax.vmap(jax.vmap(run, (None, 0)), (0, None))) for method, run in every.items()}
        return {method: np.asarray(run(begin, jnp.array(BOUNDS))) for method, run in runs.items()}


def table(returns: dict[str, np.ndarray]) -> str:
    """Markdown: mean ± standard error over seeds under every bound, beside the published mean; and the largest difference."""
    from mbrl_taskmet.runner.statistics import standard_error

    lines = ["| method | B | here | original code run again | published figure |", "|---|---|---|---|---|"]
    differences = {}
    for method, values in returns.items():
        for bound, column, original, figure in zip(BOUNDS, values.T, ORIGINAL[method], FIGURE[method], strict=True):
            ours = f"{column.mean():.3f} ± {standard_error(column):.3f}"
            read_off = f"{figure:.3f}".removesuffix("0")
            lines.append(f"| {method} | {bound:.2f} | {ours} | {original:.3f} | {read_off} |")
            differences[f"{method}, B = {bound:.2f}"] = abs(column.mean() - original)
    furthest = max(differences, key=lambda cell: differences[cell])
    found = f"Largest difference from the original code run again: {differences[furthest]:.3f} ({furthest})."
    return "\n".join([*lines, "", found]).replace("| -", "| −")


def read(argv: list[str] | None, parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The options of `parser` and those of the study; ConfigError for a size below 1 or an unknown norm."""
    parser.add_argument("--seeds", type=int, default=10, help="number of random starts (default: 10)")
    parser.add_argument("--steps", type=int, default=10_000, help="Adam steps (default: 10000)")
    norm = "norm that is bounded: original, of the published figure, or text, of the paper's text (default: original)"
    parser.add_argument("--norm", choices=tuple(PROJECTIONS), default="original", help=norm)
    options = parser.parse_args(argv)
    check_counts(options, "seeds", "steps")
    return options


@command
def main(argv: list[str] | None = None) -> int:
    """Run the study and print its table."""
    options = read(argv, Parser(prog="python -m agents.tabular", description="OMD's exact tabular study."))
    print(table(study(options.seeds, options.steps, options.norm)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
