"""Methods of training the model, one per file."""

from mbrl_taskmet.rl.methods.base import Learner as Learner
from mbrl_taskmet.rl.methods.base import Method as Method
from mbrl_taskmet.rl.methods.base import MethodSettings as MethodSettings
from mbrl_taskmet.rl.methods.base import ModelBased as ModelBased
from mbrl_taskmet.rl.methods.itervaml import IterVAMLSettings
from mbrl_taskmet.rl.methods.mle import MLESettings
from mbrl_taskmet.rl.methods.model_free import ModelFreeSettings
from mbrl_taskmet.rl.methods.omd import OMDSettings
from mbrl_taskmet.rl.methods.taskmet import TaskMetSettings
from mbrl_taskmet.rl.methods.vagram import VaGraMSettings
from mbrl_taskmet.rl.methods.vep import VEPSettings

METHODS: dict[str, type[MethodSettings]] = {
    "mle": MLESettings, "omd": OMDSettings, "taskmet": TaskMetSettings, "vep": VEPSettings, "vagram": VaGraMSettings,
    "itervaml": IterVAMLSettings, "model_free": ModelFreeSettings,
}  # fmt: skip
"""Every method by its name."""
