"""Confidence intervals, and the quantiles that they need."""

from __future__ import annotations

import math
from functools import cache
from statistics import NormalDist

import numpy as np


@cache
def student_t(share: float, freedom: int) -> float:
    """The quantile of Student's t for a `share` of at least a half; infinite without freedom.

    Found by bisection; with t = sqrt(freedom) tan(angle) the distribution is the integral of
    cos(angle)^(freedom - 1), which is smooth.
    """
    if freedom < 1:
        return math.inf
    nodes, weights = np.polynomial.legendre.leggauss(64)
    log_scale = math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2) - math.log(math.pi) / 2

    def below(t: float) -> float:
        angle = math.atan(t / math.sqrt(freedom))
        cosines = np.cos(angle * (nodes + 1) / 2)
        density = np.exp(log_scale + (freedom - 1) * np.log(cosines))
        return 0.5 + angle / 2 * float(weights @ density)

    # Student's t reaches further than the normal distribution.
    low = NormalDist().inv_cdf(share)
    high = 2 * low + 1
    while below(high) < share:
        low, high = high, 2 * high
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if below(middle) < share else (low, middle)
    return (low + high) / 2


def wilson(share: float, n: float, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's interval of a share among n (Wilson 1927): in [0, 1], and sound near its ends."""
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return max(middle - half, 0.0), min(middle + half, 1.0)
