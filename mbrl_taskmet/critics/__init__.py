"""Critics: what values actions, behind one interface."""

from mbrl_taskmet.critics.soft_q import SoftQ

__all__ = ["SoftQ"]
