"""How much memory a run needs, from its sizes alone, before anything is allocated."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np

from mbrl_taskmet.config import Config, ConfigError

if TYPE_CHECKING:
    from envs.base import Environment

PROCESS_BYTES = 1_900_000_000
"""A process that trains, and the copy of a seed that each CPU device works on; measured at 512 distractors."""


def required_bytes(env: Environment, config: Config) -> int:
    """Bytes in all, for every seed of a resolved configuration. The replay dominates; the rest is an upper estimate."""
    n, k, m = env.observation_size, len(env.state_names), env.num_actions
    rows = min(config.replay_capacity or config.steps, config.steps) + 1
    width = 8 if config.x64 else 4
    noise_width = np.dtype(env.noise_dtype).itemsize if env.noise_dtype else width
    replay = rows * ((2 * k + m + 2) * width + (n - k) * noise_width)

    def mlp(inputs: int, hidden: int, outputs: int) -> int:
        return (inputs + 1) * hidden + (hidden + 1) * hidden + (hidden + 1) * outputs

    hidden = config.model_hidden or 0
    dynamics = mlp(n + m, hidden, n)
    learner = dynamics + mlp(n + m, hidden, 1) + 3 * (mlp(n, config.q_hidden, m) + 4 * config.q_hidden)
    batch = config.batch_size * (n + k + m + hidden)
    if config.metric is not None:
        entries = {"scalar": 1, "diagonal": n, "full": n * n}[config.metric]
        conditional = config.metric_input != "none"
        copies = n + m if config.metric_start == "published" and config.metric == "diagonal" else 1
        learner += mlp(n + m, max(config.metric_hidden or (1,)), entries) if conditional else copies * entries
        batch += config.batch_size * entries if conditional else entries
    dense = dynamics**2 if config.solver == "dense" else 0
    # parameters, two Adam moments, gradients and Krylov vectors; a batch and its tangents
    floats = 16 * learner + 12 * batch + 3 * dense
    return config.seeds * (replay + floats * width) + PROCESS_BYTES


def check_memory(required: int, env: Environment) -> None:
    """Refuse what cannot fit into this machine's memory (or its accelerators').

    Raises:
        ConfigError: naming the memory the run would need and what there is.
    """
    import jax

    devices = jax.devices()
    if devices[0].platform == "cpu":
        available = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    else:
        available = sum((device.memory_stats() or {}).get("bytes_limit", 0) for device in devices)
    if available and required > available:
        raise ConfigError(
            f"{env.name} would need {gigabytes(required)} and this machine has {gigabytes(available)}; "
            "give fewer distractors, seeds or steps, or a smaller --replay-capacity"
        )


def gigabytes(count: int) -> str:
    """A number of bytes for people."""
    return f"{count / 1e9:.1f} GB"
