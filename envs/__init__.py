"""Environments, behind the contract of `envs.base`."""
