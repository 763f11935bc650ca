"""The axis of independent runs, a seed or a data set and a seed each, over devices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mbrl_taskmet.core.settings import ConfigError

PyTree = Any
MOST_RUNS = 2**20


class RunAxis:
    """`count` runs over `devices`, JAX's by default.

    Repetitions of the last run fill up the last device, which would wait otherwise.

    Raises:
        ConfigError: there are more runs than any machine holds.
    """

    def __init__(self, count: int, devices: Sequence[jax.Device] | None = None):
        if count > MOST_RUNS:
            raise ConfigError(
                f"{count} runs are more than the {MOST_RUNS} that train at once; give fewer --seeds or --datasets"
            )
        used = list(devices or jax.devices())[:count]
        self.count = count
        self.on_cpu = used[0].platform == "cpu"
        self.sharding = NamedSharding(Mesh(np.array(used), ("run",)), PartitionSpec("run"))
        self.runs = np.minimum(np.arange(-(-count // len(used)) * len(used)), count - 1)

    def to_devices(self, tree: PyTree) -> PyTree:
        """Leaves (count, …), with the repetitions, on the devices."""
        return jax.tree.map(lambda leaf: jax.device_put(leaf[self.runs], self.sharding), tree)

    def to_host(self, tree: PyTree) -> PyTree:
        """The inverse of `to_devices`."""
        return jax.tree.map(lambda leaf: np.asarray(leaf)[: self.count], tree)

    def sharded(self, function: Callable[..., PyTree], common: int = 0) -> Callable[..., PyTree]:
        """`function` on every device's own runs, without communication; its last `common` arguments are the same for all."""

        def everywhere(*args: PyTree) -> PyTree:
            specs = (self.sharding.spec,) * (len(args) - common) + (PartitionSpec(),) * common
            return jax.shard_map(
                function, mesh=self.sharding.mesh, in_specs=specs, out_specs=self.sharding.spec, check_vma=False
            )(*args)

        return everywhere

    def compiler_options(self, level: int) -> dict[str, int]:
        """LLVM's optimisation takes most of a compilation on a CPU, and gains nothing measurable from level 1 on."""
        return {"xla_backend_optimization_level": level} if self.on_cpu else {}
