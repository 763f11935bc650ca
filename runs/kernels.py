"""How many kernels an accelerator starts in one environment step, counted in the optimised program that XLA compiles.

A kernel is an instruction that computes or copies arrays, in the body of the loop over environment steps or in what it calls.
Scalars that a loop counts with, and whatever only names memory, are none. The evaluation is no part of it.
"""

from __future__ import annotations

import importlib.util
import math
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mbrl_taskmet.rl.single_run import Carry, SingleRun
from mbrl_taskmet.rl.training import Trainer
from runs.programs import STEPS, trainer

H100 = """
gpu_device_info {
  threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: 2048 core_count: 132 fpus_per_core: 128
  shared_memory_per_block: 49152 shared_memory_per_core: 233472 shared_memory_per_block_optin: 232448
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
  memory_bandwidth: 3352320000000 l2_cache_size: 52428800 device_memory_size: 84942979072 clock_rate_ghz: 1.98
  cuda_compute_capability { major: 9 }
}
platform_name: "CUDA" dnn_version_info { major: 9 minor: 8 } device_description_str: "NVIDIA H100 80GB HBM3"
"""
"""What XLA needs to know of a GPU to compile for it without one."""

FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "partition-id", "replica-id"}
_INSTRUCTION = re.compile(r"\s+(?:ROOT )?%\S+ = (\(.*?\)|\S+) ([\w-]+)\((.*)")
_CALLED = re.compile(r"(?:to_apply|body|true_computation|false_computation)=%([\w.-]+)|branch_computations=\{([^}]*)\}")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')

Choice = Callable[..., Any]
"""`max` or `min`."""


class Kernel(NamedTuple):
    """One instruction."""

    operation: str
    numbers: int  # of its largest result
    starts: int  # in one environment step: more than one where it is in a loop


class Instruction(NamedTuple):
    """A line of XLA's text: the shape of its result, what it does, and the rest."""

    shape: str
    operation: str
    rest: str

    @property
    def called(self) -> list[str]:
        """The computations that it runs; a fusion's is part of it."""
        names = [one or many.replace("%", "").replace(" ", "") for one, many in _CALLED.findall(self.rest)]
        return ",".join(names).split(",")

    @property
    def sizes(self) -> list[int]:
        """The number of numbers in each array of its result."""
        return [math.prod(map(int, filter(None, sizes.split(",")))) for sizes in re.findall(r"\w+\[([\d,]*)\]", self.shape)]

    @property
    def trips(self) -> int:
        """How often a loop is run, 1 where that is not known."""
        found = _TRIPS.search(self.rest)
        return int(found[1]) if found else 1


def kernels(program: str, steps: int, inner: Choice = max) -> list[Kernel]:
    """The kernels of one environment step, of whose branches the one with the most is taken.

    Args:
        program: the text of an optimised program, in which one loop has `steps` iterations.
        steps: the environment steps of that loop.
        inner: which branch is taken within a branch, by the number of kernels: with `min` TaskMet's metric rests.
    """
    computations: dict[str, list[Instruction]] = {}
    for line in program.splitlines():
        if line[:1] in ("%", "E") and line.endswith("{"):
            name = line.removeprefix("ENTRY ").split()[0].removeprefix("%")
            computations[name] = []
        elif found := _INSTRUCTION.match(line):
            computations[name].append(Instruction(*found.groups()))
    (loop,) = (one for body in computations.values() for one in body if one.operation == "while" and one.trips == steps)
    return list(_kernels(computations, loop.called[0], 1, (max, inner)))


def _kernels(
    computations: dict[str, list[Instruction]], name: str, starts: int, choices: tuple[Choice, Choice]
) -> Iterator[Kernel]:
    for one in computations[name]:
        if one.operation == "call":
            yield from _kernels(computations, one.called[0], starts, choices)
        elif one.operation == "conditional":
            choice, inner = choices
            yield from choice((list(_kernels(computations, branch, starts, (inner, inner))) for branch in one.called), key=len)
        elif one.operation == "while" and not _random(one):
            yield from _kernels(computations, one.called[0], starts * one.trips, choices)
        elif one.operation not in FREE and not (one.operation == "copy" and one.sizes == [1]):
            yield Kernel(one.operation, max(one.sizes), starts)


def _random(loop: Instruction) -> bool:
    """Whether a loop carries whole numbers alone: on a CPU the rounds of a random number are one, on a GPU part of a kernel."""
    return set(re.findall(r"(\w+)\[", loop.shape)) <= {"s32", "u32"}


def compiled(timed: Trainer, side_by_side: bool) -> str:
    """The optimised program of the environment steps between two evaluations, of one run or of runs side by side."""
    run = SingleRun(timed.env, timed.method, timed.settings, raveled=side_by_side)

    def one(carry: Carry, start: jax.Array) -> Carry:
        after = run.steps(jax.tree.map(lambda leaf: leaf[0], carry), start)
        return jax.tree.map(lambda leaf: leaf[None], after)

    steps = jax.vmap(run.steps, in_axes=(0, None)) if side_by_side else one
    program = jax.jit(timed.axis.sharded(steps, common=1), donate_argnums=0, compiler_options=timed.axis.compiler_options(0))
    return str(program.lower(timed.shapes(), jnp.int32(0)).compile().as_text())


def gpu() -> list[jax.Device]:
    """An H100 that programs can be compiled for and not run on; none where JAX' plugin for CUDA is not installed."""
    from jax.experimental import topologies

    if importlib.util.find_spec("jax_plugins") is None:
        return []
    try:
        return list(topologies.get_topology_desc("h100", "cuda", target_config=H100, topology="1x1x1").devices)
    except NotImplementedError:
        return []


def measure() -> dict[str, dict[str, Any]]:
    """Kernels and their starts in an environment step by method: of one run, of 5 side by side, and of these on an H100."""
    platform, figures = jax.devices()[0].platform, dict[str, dict[str, Any]]()
    for method in ("taskmet", "omd", "mle"):
        given = {"method": method}
        side_by_side = {f"5 runs, {platform}": trainer(given, seeds=5, devices=jax.devices()[:1])}
        if platform == "cpu" and (devices := gpu()):
            side_by_side["5 runs, H100"] = trainer(given, seeds=5, devices=devices)
        programs = {name: compiled(timed, side_by_side=True) for name, timed in side_by_side.items()}
        programs[f"one run, {platform}"] = compiled(trainer(given), side_by_side=False)
        for name, program in programs.items():
            found, rest = (kernels(program, STEPS, inner) for inner in (max, min))
            figures.setdefault(name, {})[method] = {
                "kernels": len(found),
                "starts": sum(kernel.starts for kernel in found),
                "starts while the metric rests": sum(kernel.starts for kernel in rest),
            }
    return figures
