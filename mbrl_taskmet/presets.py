"""The presets: what fills the settings that were not given."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mbrl_taskmet.config import Config

PRESETS = ("default", "paper", "paper-code")
SOLVERS = {  # iterations and damping unless told otherwise
    "identity": (0, 0.0), "cg": (10, 0.0), "normal_cg": (10, 0.0), "minres": (5, 0.0), "gauss_newton": (5, 1e-3),
    "dense": (0, 0.0), "neumann": (10, 0.0),
}  # fmt: skip


def preset_values(config: Config, noisy: bool) -> dict[str, Any]:
    """The values of a configuration's preset for its method.

    What the default does differently was chosen by return on CartPole with 8 to 512 distractors, on other seeds than those
    reported: `runs/results/NOTES.md`. The published values are those of TaskMet's Table 5 and of OMD.
    """
    published = config.preset != "default"
    diagonal = noisy or not published
    metric = config.metric or ("diagonal" if diagonal else "full")
    metric_input = config.metric_input or ("none" if diagonal else "state_action")
    solver = config.solver or ("normal_cg" if published else "minres")
    critic_solver = config.critic_solver or "identity"
    values: dict[str, Any] = {
        "steps": 200_000 if published else 100_000,
        "seeds": 10 if published else 1,
        "q_layer_norm": not published,
        "q_sparsity": 0.0 if published else 0.1,
        "normalize_observations": not published,
        "policy": "critic" if published else "target",
        "metric": metric,
        "metric_input": metric_input,
        "metric_activation": None if metric == "full" else "softplus",
        "normalize": metric != "scalar",
        "metric_floor": 0.0 if published else 0.5,
        "metric_hidden": None if metric_input == "none" else (32, 32),
        "metric_start": "identity",
        "metric_lr": 1e-3 if published else 3e-3,
        "metric_lr_decay": 0 if published else 1000,
        "metric_warmup": 5000,
        "metric_every": 1 if published else 4,
        "l1": 0.0,
        "l1_reduction": "mean",
        "solver": solver,
        "solver_steps": SOLVERS[solver][0],
        "damping": SOLVERS[solver][1],
        "critic_solver": critic_solver,
        "critic_solver_steps": SOLVERS[critic_solver][0],
        "critic_damping": SOLVERS[critic_solver][1],
        "model_hidden": 32,
        "model_optimizer": "adam",
        "model_lr": 1e-3,
        "model_sparsity": 0.0 if published else 0.1,
    }
    if config.preset == "paper-code":
        values |= {"metric_start": "published", "l1_reduction": "sum"}
        values["metric_hidden"] = values["metric_hidden"] and (32,)
        values["model_optimizer"] = "first_adam" if config.method == "taskmet" else "adam"
    return values
