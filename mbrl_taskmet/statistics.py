"""Statistics over seeds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def mean(values: Sequence[float]) -> float:
    """The arithmetic mean."""
    return float(np.mean(values))


def iqm(values: Sequence[float]) -> float:
    """Interquartile mean: the mean without the lowest and highest quarter (Agarwal et al. 2021)."""
    from scipy.stats import trim_mean  # here, because importing scipy.stats takes a second

    return float(trim_mean(values, 0.25))


def ci95(values: Sequence[float]) -> tuple[float, float] | None:
    """95 % percentile-bootstrap interval of the mean, 10 000 resamples with a fixed key; None for fewer than two values."""
    from scipy.stats import bootstrap

    if len(values) < 2:
        return None
    interval = bootstrap((values,), np.mean, n_resamples=10_000, method="percentile", rng=0).confidence_interval
    return float(interval.low), float(interval.high)
