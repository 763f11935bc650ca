"""Files of format 1, which runs were saved in before settings were nested, as today's code reads them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

_PARTS = {-1: -1, 0: 0, 1: 1, 2: 1, 3: 2, 4: 3}
"""Today's place in `Learner` of what was at a place; the target network has become part of the critic."""


def names(saved: Mapping[str, Any]) -> dict[str, Any]:
    """The settings by name in a `config.json`."""
    return {**saved["config"], "env": saved["environment"], "distractors": saved["distractors"]}


def arrays(saved: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays of a checkpoint, or of a block of the replay, by name; those of today's format as they are.

    Runs stopped at their first update that was not finite; now some are skipped. Truncations were not kept: every step then
    ends its segment, as it does where the next one is of another episode.
    """
    new = {name.replace(".learner.target_params", ".learner.critic.target_params"): array for name, array in saved.items()}
    if len(new.keys() - saved.keys()):
        new[".failed_part"] = np.vectorize(_PARTS.get, otypes=[np.int32])(new[".failed_part"])
    if ".failed_step" in new and ".skipped" not in new:
        new |= {name: (new[".failed_step"] >= 0).astype(np.int32) for name in (".skipped", ".skipped_in_row")}
    if "terminated" in new and "truncated" not in new:
        new |= {"terminated": new["terminated"] != 0, "truncated": np.ones(new["terminated"].shape, bool)}
    return new
