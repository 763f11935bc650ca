"""The part `decision` of `runs.speed`.

Milliseconds, medians over interleaved repetitions. `reference` is what the published code took on one busy core, for scale.
"""

from __future__ import annotations

from typing import Any

REFERENCE = {
    "taskmet iteration, cubic, one run": 2200.0,
    "soft top-k 200×50": 30.0,
    "portfolio solve": 22.0,
    "budget solve": 105.0,
}


def measure() -> dict[str, Any]:
    """One TaskMet iteration of 50 cubic runs, 200×50 soft top-k, 100 portfolios of 50 stocks, 100 budgets.

    The portfolios also by cvxpylayers, of the `test` extra.
    """
    import jax
    import jax.numpy as jnp

    from decision_tasks.budget import Budget
    from decision_tasks.cubic import Cubic, soft_top_k
    from decision_tasks.objectives import MetricLearning
    from decision_tasks.one_run import VALIDATE_EVERY
    from decision_tasks.portfolio import risk_matrix
    from decision_tasks.settings import CellSettings
    from decision_tasks.simplex_qp import simplex_qp
    from decision_tasks.training import CellTrainer
    from runs.timing import interleaved

    keys = jax.random.split(jax.random.key(0), 5)
    trainer = CellTrainer(CellSettings(task=Cubic(), objective=MetricLearning()))
    carry = trainer.init()

    def iterations() -> None:
        _wait(next(trainer.run(carry))[1])

    scores, weights = jax.random.normal(keys[0], (2, 200, 50))
    top_k = jax.jit(jax.grad(lambda s: jnp.sum(weights * jax.vmap(lambda row: soft_top_k(row, 1, 0.01))(s))))
    returns = jax.random.normal(keys[1], (100, 9, 50))
    b, a = 0.02 * jax.random.normal(keys[2], (100, 50)), 0.2 * jax.vmap(risk_matrix)(returns)
    shares = jax.random.normal(keys[3], (100, 50))
    portfolio = jax.jit(jax.grad(lambda b: jnp.sum(shares * jax.vmap(simplex_qp)(b, a))))
    layer = _cvxpy_layer(50)
    factors = jnp.swapaxes(jnp.linalg.cholesky(a), 1, 2)
    cvxpy = jax.grad(lambda b: jnp.sum(shares * layer(b, factors)[0]))
    rates, budget = jax.random.uniform(keys[4], (100, 5, 10)), jax.jit(jax.vmap(Budget().decide))
    seconds = interleaved({
        "iterations": iterations,
        "top_k": lambda: _wait(top_k(scores)),
        "portfolio": lambda: _wait(portfolio(b)),
        "budget": lambda: _wait(budget(rates)),
    })  # fmt: skip
    # apart: its threads hold up what comes next
    versus = interleaved({"ours": lambda: _wait(portfolio(b)), "cvxpylayers": lambda: _wait(cvxpy(b))})
    return {
        "taskmet iteration, cubic, 50 runs, validation included": 1e3 * seconds["iterations"] / VALIDATE_EVERY,
        "soft top-k 200×50, forward and backward": 1e3 * seconds["top_k"],
        "100 portfolio solves of 50 stocks, forward and backward": 1e3 * seconds["portfolio"],
        "the same with cvxpylayers": 1e3 * versus["cvxpylayers"],
        "cvxpylayers against ours, in turns": versus["cvxpylayers"] / versus["ours"],
        "relative difference of the two gradients": float(
            jnp.linalg.norm(portfolio(b) - cvxpy(b)) / jnp.linalg.norm(portfolio(b))
        ),
        "100 budget decisions": 1e3 * seconds["budget"],
        "reference": REFERENCE,
    }


def _cvxpy_layer(n: int) -> Any:
    """argmax_z bᵀz − ½‖Fz‖² over the simplex, of batches of b (n,) and F (n, n)."""
    import cvxpy
    from cvxpylayers.jax import CvxpyLayer

    z, b, factor = cvxpy.Variable(n), cvxpy.Parameter(n), cvxpy.Parameter((n, n))
    objective = cvxpy.Maximize(b @ z - cvxpy.sum_squares(factor @ z) / 2)
    return CvxpyLayer(cvxpy.Problem(objective, [z >= 0, cvxpy.sum(z) == 1]), parameters=[b, factor], variables=[z])


def _wait(result: Any) -> None:
    import jax

    jax.block_until_ready(result)
