"""Environments, behind the contract of `mbrl_taskmet.Environment`."""

from envs.make import make_environment as make_environment
