"""Runnable agents."""

import mbrl_taskmet.runner.starting  # noqa: F401
