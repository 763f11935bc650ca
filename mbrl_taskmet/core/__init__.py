"""Mathematics without reinforcement learning: implicit gradients, linear solvers, metrics, networks, settings."""
