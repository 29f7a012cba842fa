"""Confidence intervals, and the quantiles of Student's t."""

from __future__ import annotations

import math
from functools import cache
from statistics import NormalDist

import numpy as np


@cache
def student_t(probability: float, degrees_of_freedom: int) -> float:
    """The quantile of Student's t for a `probability` of 0.5 or more.

    Infinite for fewer than one degree of freedom. Computed by bisection: with n degrees of freedom
    and t = sqrt(n) tan(angle), the distribution function is an integral of cos(angle)^(n - 1),
    which is smooth.
    """
    if degrees_of_freedom < 1:
        return math.inf
    nodes, weights = np.polynomial.legendre.leggauss(64)
    log_scale = (
        math.lgamma((degrees_of_freedom + 1) / 2)
        - math.lgamma(degrees_of_freedom / 2)
        - math.log(math.pi) / 2
    )

    def distribution(t: float) -> float:
        angle = math.atan(t / math.sqrt(degrees_of_freedom))
        cosines = np.cos(angle * (nodes + 1) / 2)
        density = np.exp(log_scale + (degrees_of_freedom - 1) * np.log(cosines))
        return 0.5 + angle / 2 * float(weights @ density)

    # The quantile of Student's t is larger than that of the normal distribution.
    low = NormalDist().inv_cdf(probability)
    high = 2 * low + 1
    while distribution(high) < probability:
        low, high = high, 2 * high
    for _ in range(80):
        centre = (low + high) / 2
        low, high = (centre, high) if distribution(centre) < probability else (low, centre)
    return (low + high) / 2


def wilson(proportion: float, n: float, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a proportion in n trials (Wilson 1927), valid near 0 and 1."""
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    centre = (proportion + z**2 / (2 * n)) / (1 + z**2 / n)
    half_width = (
        z / (1 + z**2 / n) * math.sqrt(proportion * (1 - proportion) / n + z**2 / (4 * n**2))
    )
    return max(centre - half_width, 0.0), min(centre + half_width, 1.0)
