"""From a configuration to a method: the one place where names become values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import optax

from mbrl_taskmet.config import Config
from mbrl_taskmet.critics import SoftQ
from mbrl_taskmet.linear_solve import SOLVERS, Solver
from mbrl_taskmet.methods import METHODS, Method
from mbrl_taskmet.metric import Metric
from mbrl_taskmet.networks import Model
from mbrl_taskmet.optimizers import critic_optimizer, inverse_sqrt, model_optimizer

if TYPE_CHECKING:
    from envs.base import Environment


def make_method(env: Environment, resolved: Config) -> Method:
    """The method that a `resolved` configuration describes, for the sizes of `env`."""
    n, m = env.observation_size, env.num_actions
    config: Any = resolved  # None only where the method has no such thing, and then not read
    parts: dict[str, Any] = {
        "critic": SoftQ(n, m, (config.q_hidden,) * 2, config.temperature, config.discount, config.q_layer_norm),
        "critic_optimizer": critic_optimizer(config.critic_lr, config.q_sparsity),
        "tau": config.tau,
        "policy": config.policy,
    }
    if config.model_hidden is not None:
        hidden = (config.model_hidden,) * 2
        parts |= {
            "model": Model(n, m, hidden),
            "model_optimizer": model_optimizer(config.model_optimizer, config.model_lr, config.model_sparsity, len(hidden)),
        }
    if config.critic_solver is not None:
        parts["critic_solver"] = make_solver(config.critic_solver, config.critic_solver_steps, config.critic_damping)
    if config.metric is not None:
        parts |= {
            "metric": Metric(
                n, m, config.metric, config.metric_input, config.normalize, config.metric_floor,
                config.metric_hidden or (), config.metric_start == "published", config.metric_activation or "softplus",
            ),
            "metric_optimizer": optax.adam(inverse_sqrt(config.metric_lr, config.metric_lr_decay)),
            "solver": make_solver(config.solver, config.solver_steps, config.damping),
            "l1": config.l1 * (config.batch_size if config.l1_reduction == "sum" else 1),
            "warmup": config.metric_warmup,
            "every": config.metric_every,
        }  # fmt: skip
    return METHODS[config.method](**parts)


def make_solver(name: str, steps: int, damping: float) -> Solver:
    """A solver by name."""
    return SOLVERS[name](steps=steps, damping=damping)
