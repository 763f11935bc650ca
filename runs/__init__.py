"""Experiments and measurements; their results are in `runs/results/`."""

import mbrl_taskmet.runner.starting  # noqa: F401
