"""What made a result: the versions and the device."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import jax

_PACKAGES = ("mbrl-taskmet", "jax", "jaxlib", "flax", "optax", "gymnax", "orbax-checkpoint", "numpy")


def environment() -> dict[str, Any]:
    """`versions`, `device` and `random_numbers`, the settings of JAX's generator, for `config.json` and `summary.json`."""
    device = jax.devices()[0]
    config: Any = jax.config
    return {
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in _PACKAGES}},
        "device": {"platform": device.platform, "kind": device.device_kind, "count": len(jax.devices()),
                   "machine": platform.machine()},
        "random_numbers": {"generator": config.jax_default_prng_impl, "partitionable": config.jax_threefry_partitionable},
    }  # fmt: skip


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
