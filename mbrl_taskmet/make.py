"""From a configuration to a method: the one place where names become values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import optax

from mbrl_taskmet.config import Config
from mbrl_taskmet.critics import SoftQ
from mbrl_taskmet.linear_solve import SOLVERS, Solver
from mbrl_taskmet.methods import METHODS, Method
from mbrl_taskmet.metric import Metric
from mbrl_taskmet.networks import Model

if TYPE_CHECKING:
    from envs.base import Environment


def make_method(env: Environment, resolved: Config) -> Method:
    """The method that a `resolved` configuration describes, for the sizes of `env`."""
    n, m = env.observation_size, env.num_actions
    config: Any = resolved  # None only where the method has no such thing, and then not read
    parts: dict[str, Any] = {
        "critic": SoftQ(n, m, (config.q_hidden,) * 2, config.temperature, config.discount, config.q_layer_norm),
        "critic_optimizer": critic_optimizer(config.critic_lr, n * config.q_weight_decay),
        "tau": config.tau,
        "policy": config.policy,
    }
    if config.model_hidden is not None:
        parts |= {
            "model": Model(n, m, (config.model_hidden,) * 2),
            "model_optimizer": {"adam": optax.adam, "first_adam": first_adam}[config.model_optimizer](config.model_lr),
        }
    if config.critic_solver is not None:
        parts["critic_solver"] = make_solver(config.critic_solver, config.critic_solver_steps, config.critic_damping)
    if config.metric is not None:
        parts |= {
            "metric": Metric(
                n, m, config.metric, config.metric_input, config.normalize, config.metric_floor,
                config.metric_hidden or (), config.metric_start == "published",
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


def critic_optimizer(learning_rate: float, decay: float) -> optax.GradientTransformation:
    """Adam, with decoupled weight decay λ of the weights on the inputs, which alone removes the start of those on noise.

    There Adam walks at random, and λ keeps the walk's variance at lr/2λ: from n such inputs a unit gets noise of variance
    n·lr/2λ. Hence `Config` gives λ per input.
    """

    def first_layer(params: Any) -> Any:
        return jax.tree_util.tree_map_with_path(lambda path, _: {"Dense_0", "kernel"} <= {key.key for key in path}, params)

    return optax.adamw(learning_rate, weight_decay=decay, mask=first_layer) if decay else optax.adam(learning_rate)


def inverse_sqrt(learning_rate: float, decay: int) -> optax.ScalarOrSchedule:
    """lr/√(1 + k/k₀) at update k, or lr where k₀ = `decay` is 0.

    Of a gradient that is mostly noise, k such steps add up √k of the signal and √log k of the noise: early ones can be large
    without late ones undoing what was learned, whatever the length of the run.
    """
    return (lambda count: learning_rate / jnp.sqrt(1 + count / decay)) if decay else learning_rate


def first_adam(learning_rate: float, eps: float = 1e-8) -> optax.GradientTransformation:
    """Every step as Adam's first: −lr·g/(|g| + ε), about lr·sign(g). What the published TaskMet runs did to the model."""

    def update(updates: optax.Updates, params: optax.Params | None = None) -> optax.Updates:
        return jax.tree.map(lambda g: -learning_rate * g / (jnp.abs(g) + eps), updates)

    return optax.stateless(update)
