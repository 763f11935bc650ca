"""How much memory a run needs, from its traced and its compiled program, and how much the machine has for it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn

from mbrl_taskmet.core.settings import ConfigError
from mbrl_taskmet.rl.training import Trainer

PROCESS_BYTES = 1_100_000_000
"""A process that trains, without its arrays: the interpreter, the libraries and the compiler. Measured: see `runs.speed`."""

_MADE = frozenset({"dot_general", "while", "eigh", "svd", "qr", "cholesky", "lu", "sort", "conv_general_dilated"})
"""Operations whose results are arrays in any compiled program; others may be fused away."""


def check_start(trainer: Trainer) -> int:
    """Refuse a run that cannot fit, before anything is compiled or allocated.

    Returns:
        `least_bytes`.

    Raises:
        ConfigError: there is not as much.
    """
    check_memory(_carried_bytes(trainer), trainer.env.name)  # first, for tracing takes seconds
    least = least_bytes(trainer)
    check_memory(least, trainer.env.name)
    return least


def least_bytes(trainer: Trainer) -> int:
    """A lower bound of the bytes needed, without compiling or allocating anything.

    What is carried from chunk to chunk, the replay above all, and the largest result in the program of a device.
    """
    largest = max(_result_bytes(equation) + _work_bytes(equation) for equation in _equations(trainer.traced.jaxpr.jaxpr))
    return _carried_bytes(trainer) + _devices(trainer) * largest


def required_bytes(trainer: Trainer) -> int:
    """Bytes of the whole process at its peak, by the compiled program's own figures; compiles it where that is not done.

    Where the backend gives none: `least_bytes`.
    """
    if trainer.compiled is None:
        trainer.compile()
    stats = trainer.compiled.memory_analysis()
    if stats is None:
        return least_bytes(trainer)
    on_device = stats.argument_size_in_bytes + stats.output_size_in_bytes - stats.alias_size_in_bytes
    on_device += stats.temp_size_in_bytes + stats.generated_code_size_in_bytes
    on_device += max(map(_work_bytes, _equations(trainer.traced.jaxpr.jaxpr)))
    return _devices(trainer) * on_device + _process_bytes(trainer)


def check_memory(required: int, name: str) -> None:
    """Refuse what cannot fit into the memory that is available to this process (or that of its accelerators).

    Raises:
        ConfigError: naming the memory the run on the environment `name` would need and what there is.
    """
    available = available_bytes()
    if available is not None and required > available:
        raise ConfigError(
            f"{name} would need {gigabytes(required)} and this machine has {gigabytes(available)} available; "
            "give fewer distractors, seeds or steps, a smaller --replay-capacity or fewer --eval-episodes"
        )


def available_bytes() -> int | None:
    """Bytes that this process may have in all, those it has included; None where the machine does not say.

    On an accelerator, what JAX was given of it. On a CPU, what Linux calls available and its control groups allow; on other
    systems what is installed.
    """
    devices = jax.devices()
    if devices[0].platform != "cpu":
        return sum((device.memory_stats() or {}).get("bytes_limit", 0) for device in devices) or None
    mine = _own_bytes()
    free = [*_free_of_machine(Path("/proc/meminfo")), *_free_of_groups(Path("/proc/self/cgroup"), Path("/sys/fs/cgroup"))]
    if free:
        return max(0, min(free)) + mine
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # no such system
        return None


def gigabytes(count: int) -> str:
    """A number of bytes as text, in gigabytes."""
    return f"{count / 1e9:.1f} GB"


def _free_of_machine(meminfo: Path) -> Iterator[int]:
    for line in _read(meminfo).splitlines():
        if line.startswith("MemAvailable:"):
            yield int(line.split()[1]) * 1024


def _free_of_groups(membership: Path, mount: Path) -> Iterator[int]:
    """What each control group that this process is in has left, in version 2 or 1. What its files cached can be freed."""
    for line in _read(membership).splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            root, limit, usage, cached = mount, "memory.max", "memory.current", "inactive_file"
        elif "memory" in controllers.split(","):
            root, limit, usage, cached = (
                mount / "memory",
                "memory.limit_in_bytes",
                "memory.usage_in_bytes",
                "total_inactive_file",
            )
        else:
            continue
        group = root / path.lstrip("/")
        for folder in (group, *group.parents):
            most, used = _read(folder / limit).strip(), _read(folder / usage).strip()
            if most.isdigit() and used.isdigit():
                stat = dict(line.split() for line in _read(folder / "memory.stat").splitlines())
                yield int(most) - int(used) + int(stat.get(cached, 0))
            if folder == root:
                break


def _own_bytes() -> int:
    """Resident bytes of this process, 0 where the system does not say."""
    fields = _read(Path("/proc/self/statm")).split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE") if len(fields) > 1 else 0


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _equations(jaxpr: Jaxpr) -> Iterator[JaxprEqn]:
    """All of a program and of the programs in it."""
    for equation in jaxpr.eqns:
        yield equation
        for value in equation.params.values():
            for inner in value if isinstance(value, (tuple, list)) else (value,):
                if isinstance(inner, ClosedJaxpr):
                    yield from _equations(inner.jaxpr)
                elif isinstance(inner, Jaxpr):
                    yield from _equations(inner)


def _result_bytes(equation: JaxprEqn) -> int:
    """Bytes of results that are arrays beside what the program is given: 0 where that is not sure."""
    if equation.primitive.name == "scan":  # its carry may be the chunk's own, in place; what it stacks, by an axis more, is new
        results = zip(equation.outvars, equation.params["jaxpr"].out_avals, strict=True)
        return sum(_bytes([variable.aval]) for variable, inside in results if _bytes([variable.aval]) != _bytes([inside]))
    return _bytes([variable.aval for variable in equation.outvars]) if equation.primitive.name in _MADE else 0


def _work_bytes(equation: JaxprEqn) -> int:
    """Bytes that LAPACK's syevd works in, twice its matrix, which no compiler counts."""
    return 2 * _bytes([variable.aval for variable in equation.invars]) if equation.primitive.name == "eigh" else 0


def _carried_bytes(trainer: Trainer) -> int:
    return _bytes(trainer.shapes()) + _process_bytes(trainer)


def _devices(trainer: Trainer) -> int:
    return int(trainer.axis.sharding.mesh.size)


def _process_bytes(trainer: Trainer) -> int:
    return PROCESS_BYTES if trainer.axis.on_cpu else 0  # it is not in an accelerator's memory


def _bytes(tree: Any) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
