"""Ways of learning the model, one per file."""

from mbrl_taskmet.methods.base import Info, Learner, Method, Trained
from mbrl_taskmet.methods.mle import MLE
from mbrl_taskmet.methods.omd import OMD
from mbrl_taskmet.methods.taskmet import TaskMet

METHODS: dict[str, type[Method]] = {"mle": MLE, "omd": OMD, "taskmet": TaskMet}
"""Every method by the name the configuration uses."""

__all__ = ["METHODS", "MLE", "OMD", "Info", "Learner", "Method", "TaskMet", "Trained"]
