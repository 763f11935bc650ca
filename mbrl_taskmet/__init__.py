"""Decision-aware model learning in JAX: OMD, TaskMet and the methods around them.

    from mbrl_taskmet import Config, train, run

What is public is listed here. It is imported when it is first asked for, so that the mathematics of `core` can be used
without loading reinforcement learning.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from mbrl_taskmet.core.bilevel import Bilevel as Bilevel
    from mbrl_taskmet.core.implicit import implicit_vjp as implicit_vjp
    from mbrl_taskmet.core.linear_solve import SOLVERS as SOLVERS
    from mbrl_taskmet.core.linear_solve import Solver as Solver
    from mbrl_taskmet.core.metric import METRICS as METRICS
    from mbrl_taskmet.core.metric import Diagonal as Diagonal
    from mbrl_taskmet.core.metric import Full as Full
    from mbrl_taskmet.core.metric import Metric as Metric
    from mbrl_taskmet.core.metric import Scalar as Scalar
    from mbrl_taskmet.core.settings import ConfigError as ConfigError
    from mbrl_taskmet.core.settings import setting as setting
    from mbrl_taskmet.rl.critics import CRITICS as CRITICS
    from mbrl_taskmet.rl.critics import Critic as Critic
    from mbrl_taskmet.rl.critics import SoftQ as SoftQ
    from mbrl_taskmet.rl.critics import SoftQSettings as SoftQSettings
    from mbrl_taskmet.rl.environment import Environment as Environment
    from mbrl_taskmet.rl.environment import Step as Step
    from mbrl_taskmet.rl.environment import UnsupportedEnvironment as UnsupportedEnvironment
    from mbrl_taskmet.rl.environment import Wrapper as Wrapper
    from mbrl_taskmet.rl.environment import check_environment as check_environment
    from mbrl_taskmet.rl.make import make_method as make_method
    from mbrl_taskmet.rl.methods import METHODS as METHODS
    from mbrl_taskmet.rl.methods import Learner as Learner
    from mbrl_taskmet.rl.methods import Method as Method
    from mbrl_taskmet.rl.methods import ModelBased as ModelBased
    from mbrl_taskmet.rl.settings import Config as Config
    from mbrl_taskmet.rl.settings import Settings as Settings
    from mbrl_taskmet.rl.spaces import Box as Box
    from mbrl_taskmet.rl.spaces import Discrete as Discrete
    from mbrl_taskmet.rl.training import Result as Result
    from mbrl_taskmet.rl.training import train as train
    from mbrl_taskmet.runner.agent import Outcome as Outcome
    from mbrl_taskmet.runner.agent import run as run
    from mbrl_taskmet.runner.agent import run_sweep as run_sweep

_HOMES = {
    "core.bilevel": ("Bilevel",),
    "core.implicit": ("implicit_vjp",),
    "core.linear_solve": ("SOLVERS", "Solver"),
    "core.metric": ("METRICS", "Diagonal", "Full", "Metric", "Scalar"),
    "core.settings": ("ConfigError", "setting"),
    "rl.critics": ("CRITICS", "Critic", "SoftQ", "SoftQSettings"),
    "rl.environment": ("Environment", "Step", "UnsupportedEnvironment", "Wrapper", "check_environment"),
    "rl.make": ("make_method",),
    "rl.methods": ("METHODS", "Learner", "Method", "ModelBased"),
    "rl.settings": ("Config", "Settings"),
    "rl.spaces": ("Box", "Discrete"),
    "rl.training": ("Result", "train"),
    "runner.agent": ("Outcome", "run", "run_sweep"),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"mbrl_taskmet.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
