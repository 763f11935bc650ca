"""1, 2, 4 and 8 simulated devices give the same runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.slow

PROGRAM = """
import sys
import jax
jax.config.update("jax_num_cpu_devices", 8)
import numpy as np
from envs.probes import Walk
from mbrl_taskmet import Config, make_method
from mbrl_taskmet.rl.training import Trainer
config = Config(steps=264, eval_every=264, eval_episodes=1, random_steps=64, batch_size=32, seeds=8, x64=True, metric_warmup=0)
settings = config.resolve(Walk().action_space)
for count in (1, 2, 4, 8):
    trainer = Trainer(Walk(), make_method(Walk(), settings), settings, jax.devices()[:count])
    carry, report = trainer.chunk(trainer.init(), 0)
    leaves = jax.tree.leaves((trainer.axis.to_host(carry.learner), trainer.axis.to_host(report)))
    np.savez(f"{sys.argv[1]}/{count}.npz", *leaves)
"""


def test_the_number_of_devices_does_not_count(tmp_path: Path) -> None:
    """TaskMet's learner and report after 200 updates in float64."""
    subprocess.run([sys.executable, "-c", PROGRAM, str(tmp_path)], check=True, timeout=1200)
    one = np.load(tmp_path / "1.npz")
    for count in (2, 4, 8):
        other = np.load(tmp_path / f"{count}.npz")
        assert len(other.files) == len(one.files) > 40
        for name in one.files:
            np.testing.assert_allclose(other[name], one[name], rtol=1e-9, atol=1e-12)  # the order of sums
