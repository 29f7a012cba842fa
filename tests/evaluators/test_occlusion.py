"""Rank correlation with occlusion maps."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats

from mmcam.errors import EvaluationError
from mmcam.evaluators.occlusion import occlusion_correlation


def test_the_correlation_by_hand() -> None:
    # Means of pairs 1, 2, 4: ranks 1 2 3 against 2 1 3: rho = 1 - 6 * 2 / (3 * 8) = 0.5.
    heatmap = np.array([[0.0, 2.0, 1.0, 3.0, 4.0, 4.0]])
    assert occlusion_correlation(heatmap, np.array([[0.1, -0.2, 0.3]])) == pytest.approx(0.5)


def test_the_grid_is_the_occlusion_maps() -> None:
    rng = np.random.default_rng(0)
    heatmap, drops = rng.random((8, 12)), rng.normal(size=(4, 4))
    cells = heatmap.reshape(4, 2, 4, 3).mean((1, 3))
    expected = scipy.stats.spearmanr(cells.ravel(), drops.ravel()).statistic
    assert occlusion_correlation(heatmap, drops) == pytest.approx(expected)
    # A map agrees with itself and disagrees with its inverse, on any grid.
    assert occlusion_correlation(heatmap, heatmap) == pytest.approx(1)
    assert occlusion_correlation(heatmap, 1 - heatmap, (3, 5)) == pytest.approx(-1)


def test_clips_are_compared_over_time_too() -> None:
    clip = np.arange(16.0).reshape(4, 2, 2)
    assert occlusion_correlation(clip, np.array([[[2.0]], [[5.0]]])) == pytest.approx(1)
    with pytest.raises(EvaluationError, match="axes"):
        occlusion_correlation(clip, np.array([[1.0, 2.0]]))


def test_constant_and_unseen_maps() -> None:
    drops = np.array([[1.0, 2.0, 3.0]])
    assert occlusion_correlation(np.full((2, 6), 0.5), drops) == 0
    assert occlusion_correlation(np.array([[1.0, 2.0, math.nan]]), drops) == pytest.approx(1)
    with pytest.raises(EvaluationError, match="occlusion map is constant"):
        occlusion_correlation(drops, 0 * drops)
    with pytest.raises(EvaluationError, match="NaN everywhere"):
        occlusion_correlation(math.nan * drops, drops)
