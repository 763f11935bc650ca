"""Reinforcement learning: environments, replay, critics, methods and the compiled loop."""
