"""Statistics over seeds, against values known by hand."""

from __future__ import annotations

import numpy as np
import pytest

from mbrl_taskmet.runner.statistics import ci95, iqm, mean, probability_of_improvement, standard_error, stratified_ci95


def test_the_mean_is_the_arithmetic_one() -> None:
    assert mean([1.0, 2.0, 6.0]) == 3.0


def test_the_interquartile_mean_leaves_out_the_lowest_and_highest_quarter() -> None:
    assert iqm([-1000.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 1000.0]) == 3.5
    assert iqm([7.0]) == 7.0
    assert iqm([2.0, 4.0]) == 3.0


def test_the_interval_is_that_of_the_bootstrapped_mean() -> None:
    values = np.random.default_rng(0).normal(10.0, 2.0, 100)
    interval = ci95(list(values))
    assert interval is not None
    half = 1.96 * values.std() / 10  # the bootstrap's distribution is close to normal for 100 values
    np.testing.assert_allclose(interval, [values.mean() - half, values.mean() + half], atol=0.1 * half)


def test_the_interval_is_the_same_every_time() -> None:
    assert ci95([1.0, 5.0, 9.0]) == ci95([1.0, 5.0, 9.0])


@pytest.mark.parametrize("values", [[], [3.0]])
def test_fewer_than_two_seeds_have_no_interval(values: list[float]) -> None:
    assert ci95(values) is None


def test_seeds_that_agree_have_an_interval_of_no_width() -> None:
    assert ci95([500.0, 500.0, 500.0]) == (500.0, 500.0)


# Numbers of rliable 1.2.0 (aggregate_iqm, probability_of_improvement, get_interval_estimates with 20 000 repetitions) on these.
X = [[312.6, 286.8, 364.0], [310.5, 246.4, 336.2], [430.4, 394.7, 229.6], [173.5, 237.7, 304.1], [67.5, 278.1, 175.4],
     [226.8, 245.6, 268.4], [341.2, 404.3, 287.1], [436.6, 233.5, 335.2], [390.3, 309.4, 225.7],
     [207.8, 254.2, 322.0]]  # fmt: skip
Y = [[128.8, 224.9, 230.9], [314.9, 275.8, 292.6], [171.5, 234.4, 344.1], [429.2, 98.9, 431.7], [411.5, 343.8, 281.7],
     [212.3, 425.0, 485.2], [466.2, 407.8, 292.9], [105.0, 249.5, 328.8]]  # fmt: skip


def test_the_interquartile_mean_of_several_tasks_is_rliables() -> None:
    assert iqm(X) == pytest.approx(285.4875, abs=1e-6)
    assert iqm(Y) == pytest.approx(299.7666667, abs=1e-6)


def test_the_stratified_interval_is_rliables() -> None:
    # two bootstraps of 20 000 and 10 000 resamples: a percentile's Monte Carlo error is about 1 % of the width
    np.testing.assert_allclose(stratified_ci95(iqm, X), [257.062, 318.025], atol=2.0)
    np.testing.assert_allclose(stratified_ci95(iqm, Y), [252.800, 357.725], atol=3.0)


def test_the_probability_of_improvement_counts_pairs_and_halves_ties() -> None:
    assert probability_of_improvement([1.0, 3.0], [2.0, 3.0]) == (0 + 0 + 1 + 0.5) / 4
    assert probability_of_improvement([500.0, 500.0, 303.0], [303.0]) == pytest.approx((1 + 1 + 0.5) / 3)
    assert probability_of_improvement(X, X) == 0.5
    assert probability_of_improvement(X, Y) + probability_of_improvement(Y, X) == pytest.approx(1.0)


def test_the_probability_of_improvement_is_rliables() -> None:
    assert probability_of_improvement(X, Y) == pytest.approx(0.4625)
    interval = stratified_ci95(probability_of_improvement, X, Y)
    np.testing.assert_allclose(interval, [0.30417, 0.62917], atol=0.015)  # of 5 000 resamples; steps of 1/240


def test_tasks_are_resampled_on_their_own() -> None:
    """Two tasks of which each pair of scores adds up to 1: resampled together, every mean would be ½."""
    scores = np.array([[0.0, 1.0], [1.0, 0.0]])
    assert stratified_ci95(np.mean, scores, resamples=500) == (0.0, 1.0)


def test_the_stratified_interval_needs_two_seeds_and_is_the_same_every_time() -> None:
    assert stratified_ci95(iqm, [3.0]) is None
    assert stratified_ci95(iqm, X, resamples=50) == stratified_ci95(iqm, X, resamples=50)


def test_the_standard_error_is_that_of_the_mean() -> None:
    assert standard_error([1.0, 2.0, 3.0, 4.0]) == pytest.approx((5 / 3) ** 0.5 / 2)
    assert np.isnan(standard_error([1.0]))
