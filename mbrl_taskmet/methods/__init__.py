"""Ways of learning the model, one per file."""

from mbrl_taskmet.methods.base import Info, Learner, Method, Trained
from mbrl_taskmet.methods.itervaml import IterVAML
from mbrl_taskmet.methods.mle import MLE
from mbrl_taskmet.methods.model_free import ModelFree
from mbrl_taskmet.methods.omd import OMD
from mbrl_taskmet.methods.taskmet import TaskMet
from mbrl_taskmet.methods.vagram import VaGraM
from mbrl_taskmet.methods.vep import VEP

METHODS: dict[str, type[Method]] = {
    "mle": MLE, "omd": OMD, "taskmet": TaskMet, "vep": VEP, "vagram": VaGraM, "itervaml": IterVAML, "model_free": ModelFree,
}  # fmt: skip
"""Every method by the name the configuration uses."""

__all__ = [
    "METHODS", "MLE", "OMD", "VEP", "Info", "IterVAML", "Learner", "Method", "ModelFree", "TaskMet", "Trained", "VaGraM",
]  # fmt: skip
