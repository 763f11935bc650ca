"""Statistics over seeds, against values known by hand."""

from __future__ import annotations

import numpy as np
import pytest

from mbrl_taskmet.statistics import ci95, iqm, mean


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
