"""Environments, behind the contract of `mbrl_taskmet.rl.environment`."""
