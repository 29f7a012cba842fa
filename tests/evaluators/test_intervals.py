"""Quantiles of Student's t and Wilson's interval, against scipy."""

from __future__ import annotations

import math

import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from mmcam.evaluators.intervals import student_t, wilson

CONFIDENCES = (0.5, 0.9, 0.95, 0.999)


@pytest.mark.parametrize("degrees", [1, 2, 3, 5, 10, 29, 30, 100, 1_000, 100_000])
@pytest.mark.parametrize("probability", [0.5, 0.6, 0.75, 0.9, 0.95, 0.975, 0.99, 0.9995])
def test_the_quantile_is_scipys(probability: float, degrees: int) -> None:
    expected = scipy.stats.t.ppf(probability, degrees)
    assert student_t(probability, degrees) == pytest.approx(expected, rel=1e-6, abs=1e-9)


@given(st.floats(0.5, 0.9999), st.integers(1, 10_000))
def test_the_quantile_is_scipys_for_any_arguments(probability: float, degrees: int) -> None:
    expected = scipy.stats.t.ppf(probability, degrees)
    assert student_t(probability, degrees) == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_one_degree_of_freedom_is_the_cauchy_distribution() -> None:
    assert student_t(0.975, 1) == pytest.approx(math.tan(0.475 * math.pi))


@pytest.mark.parametrize("degrees", [0, -1])
def test_without_degrees_of_freedom_the_quantile_is_infinite(degrees: int) -> None:
    assert student_t(0.975, degrees) == math.inf


def test_many_degrees_of_freedom_approach_the_normal_distribution() -> None:
    expected = scipy.stats.norm.ppf(0.975)
    assert student_t(0.975, 10**7) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("confidence", CONFIDENCES)
@pytest.mark.parametrize("n", [1, 2, 9, 100, 12_345])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_wilsons_interval_is_scipys(share: float, n: int, confidence: float) -> None:
    successes = round(share * n)
    expected = scipy.stats.binomtest(successes, n).proportion_ci(confidence, method="wilson")
    low, high = wilson(successes / n, n, confidence)
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-9)


@given(st.integers(1, 5_000), st.data(), st.sampled_from(CONFIDENCES))
def test_wilsons_interval_is_scipys_for_any_count(
    n: int, data: st.DataObject, confidence: float
) -> None:
    successes = data.draw(st.integers(0, n))
    expected = scipy.stats.binomtest(successes, n).proportion_ci(confidence, method="wilson")
    low, high = wilson(successes / n, n, confidence)
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-9)
    assert 0 <= low <= successes / n + 1e-15
    assert successes / n - 1e-15 <= high <= 1


def test_no_and_all_successes_touch_the_ends_of_the_range() -> None:
    low, high = wilson(0.0, 20)
    assert low == pytest.approx(0.0, abs=1e-15)
    assert 0 < high < 0.2
    assert wilson(1.0, 20) == pytest.approx((1 - high, 1.0))


def test_the_default_confidence_is_95_percent_and_n_need_not_be_whole() -> None:
    assert wilson(0.3, 40) == wilson(0.3, 40, 0.95)
    z, p, n = scipy.stats.norm.ppf(0.975), 0.3, 12.5
    # The ends solve (p - x)^2 = z^2 x (1 - x) / n (Wilson 1927).
    for x in wilson(p, n):
        assert (p - x) ** 2 == pytest.approx(z**2 * x * (1 - x) / n)
