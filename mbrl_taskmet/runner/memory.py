"""How much memory a run needs, from the shapes of what it carries, before anything is allocated."""

from __future__ import annotations

import os

import jax

from mbrl_taskmet.core.linear_solve import Dense
from mbrl_taskmet.core.settings import ConfigError
from mbrl_taskmet.rl.methods.taskmet import TaskMet
from mbrl_taskmet.rl.training import Trainer

PROCESS_BYTES = 1_900_000_000
"""A process that trains, and the copy of a seed that each CPU device works on; measured at 512 distractors."""


def required_bytes(trainer: Trainer) -> int:
    """Bytes in all, for every seed. The replay dominates; what an update works with is an upper estimate."""
    settings, env, method = trainer.settings, trainer.env, trainer.method
    with jax.enable_x64(settings.x64):
        carry = trainer.shapes()
        learner = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), carry.learner)
        batch = jax.ShapeDtypeStruct((settings.batch_size, env.observation_size), carry.observation.dtype)
        actions = jax.ShapeDtypeStruct((settings.batch_size, env.action_space.size), carry.observation.dtype)
        work: list[jax.ShapeDtypeStruct] = [batch, batch, actions]
        if isinstance(method, TaskMet):
            work.append(jax.eval_shape(method.settings.metric.batch, learner.metric.params, batch, actions))
    width = carry.observation.dtype.itemsize
    parameters = sum(leaf.size for leaf in jax.tree.leaves(learner.model.params))
    dense = any(isinstance(getattr(method.settings, name, None), Dense) for name in ("solver", "critic_solver"))
    # gradients and Krylov vectors of all parameters; a batch, its units and its tangents; a matrix and its eigenvectors
    hidden = getattr(getattr(method.settings, "model", None), "hidden", 0) * settings.batch_size * width
    update = 4 * _bytes(learner) + 12 * (_bytes(work) + hidden) + 3 * dense * parameters**2 * width
    return _bytes(carry) + settings.seeds * update + PROCESS_BYTES


def check_memory(required: int, name: str) -> None:
    """Refuse what cannot fit into this machine's memory (or its accelerators').

    Raises:
        ConfigError: naming the memory the run on the environment `name` would need and what there is.
    """
    devices = jax.devices()
    if devices[0].platform == "cpu":
        available = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    else:
        available = sum((device.memory_stats() or {}).get("bytes_limit", 0) for device in devices)
    if available and required > available:
        raise ConfigError(
            f"{name} would need {gigabytes(required)} and this machine has {gigabytes(available)}; "
            "give fewer distractors, seeds or steps, or a smaller --replay-capacity"
        )


def gigabytes(count: int) -> str:
    """A number of bytes for people."""
    return f"{count / 1e9:.1f} GB"


def _bytes(tree: object) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
