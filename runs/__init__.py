"""Experiments and measurements; their results are in `runs/results/`."""
