"""Names and line styles of the methods in all figures of the experiments."""

from __future__ import annotations

from typing import Any

from mbrl_taskmet.runner.plotting import STYLES

NAMES = {
    "mle": "MLE", "omd": "OMD", "taskmet": "TaskMet", "vep": "VEP", "vagram": "VaGraM", "itervaml": "IterVAML",
    "model_free": "true transitions", "omd_code": "OMD, authors' code", "taskmet_exp": "TaskMet, exponential",
    "taskmet_full": "TaskMet, full metric", "taskmet_shared": "TaskMet, shared metric",
}  # fmt: skip
"""By the first part of a setting's name."""
_SHARED = {**STYLES[-1], "color": "#aa3377"}
STYLE: dict[str, dict[str, Any]] = dict(zip(NAMES.values(), (*STYLES, STYLES[-1], STYLES[-1], _SHARED), strict=True))
"""By what it is called. Variants, of different experiments, share the last."""
