"""Statistics over seeds (Agarwal et al., *Deep RL at the Edge of the Statistical Precipice*, NeurIPS 2021).

`rliable`, which that paper published, does not install beside a current NumPy; tests hold these functions against its numbers.
Scores are arrays (seeds,) of one task or (seeds, tasks); null results are the caller's to leave out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike

RESAMPLES = 10_000


def mean(values: Sequence[float]) -> float:
    """The arithmetic mean."""
    return float(np.mean(values))


def standard_error(values: ArrayLike) -> float:
    """The standard error of the mean, s/√n with the sample's standard deviation; NaN for one value."""
    values = np.asarray(values)
    return float(np.std(values, ddof=1) / np.sqrt(values.size)) if values.size > 1 else float("nan")


def iqm(scores: ArrayLike) -> float:
    """Interquartile mean: the mean without the lowest and highest quarter, over seeds and tasks together."""
    from scipy.stats import trim_mean  # here, because importing scipy.stats takes a second

    return float(trim_mean(np.asarray(scores), 0.25, axis=None))


def probability_of_improvement(scores: ArrayLike, others: ArrayLike) -> float:
    """P(X > Y) + P(X = Y)/2 of a seed of `scores` against one of `others`, the mean over tasks (Mann-Whitney's U)."""
    x, y = _columns(scores)[:, None], _columns(others)[None]
    return float(np.mean((x > y) + 0.5 * (x == y)))


def ci95(values: Sequence[float]) -> tuple[float, float] | None:
    """95 % percentile-bootstrap interval of the mean, 10 000 resamples with a fixed key; None for fewer than two values."""
    from scipy.stats import bootstrap

    if len(values) < 2:
        return None
    interval = bootstrap((values,), np.mean, n_resamples=RESAMPLES, method="percentile", rng=0).confidence_interval
    return float(interval.low), float(interval.high)


def stratified_ci95(
    statistic: Callable[..., float], *groups: ArrayLike, resamples: int = RESAMPLES
) -> tuple[float, float] | None:
    """95 % percentile interval of `statistic`(*groups) by the stratified bootstrap; None for fewer than two seeds.

    The seeds of each task are resampled on their own, with replacement and a fixed key.
    """
    columns = [_columns(group) for group in groups]
    if min(len(scores) for scores in columns) < 2:
        return None
    rng = np.random.default_rng(0)

    def resample(scores: np.ndarray) -> np.ndarray:
        return np.take_along_axis(scores, rng.integers(0, len(scores), scores.shape), axis=0)

    low, high = np.percentile([statistic(*map(resample, columns)) for _ in range(resamples)], [2.5, 97.5])
    return float(low), float(high)


def _columns(scores: ArrayLike) -> np.ndarray:
    """(seeds, tasks) of scores (seeds,) or (seeds, tasks)."""
    scores = np.asarray(scores, float)
    return scores[:, None] if scores.ndim == 1 else scores
