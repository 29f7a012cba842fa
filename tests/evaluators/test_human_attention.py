"""Rank correlation with people's maps."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from mmcam.errors import EvaluationError
from mmcam.evaluators.human_attention import (
    centre_map,
    human_ceiling,
    human_correlation,
    random_map,
)

NAN = math.nan
CELLS = (1, 4)


def test_the_correlation_by_hand() -> None:
    # Ranks 1 2 3 4 against 2 1 3 4: rho = 1 - 6 * (1 + 1) / (4 * 15) = 0.8; against 4 3 2 1: -1.
    heatmap = np.array([[1.0, 2.0, 3.0, 4.0]])
    near, far = np.array([[5.0, 0.0, 6.0, 9.0]]), np.array([[8.0, 7.0, 1.0, 0.0]])
    assert human_correlation(heatmap, [near], CELLS) == pytest.approx(0.8)
    assert human_correlation(heatmap, [near, far], CELLS) == pytest.approx((0.8 - 1) / 2)
    assert human_correlation(-heatmap, [near], CELLS) == pytest.approx(-0.8)


def test_both_maps_come_to_fourteen_by_fourteen() -> None:
    rng = np.random.default_rng(0)
    heatmap, human_map = rng.normal(size=(28, 42)), rng.random((14, 28))
    cells = heatmap.reshape(14, 2, 14, 3).mean((1, 3)), human_map.reshape(14, 14, 2).mean(2)
    expected = scipy.stats.spearmanr(cells[0].ravel(), cells[1].ravel()).statistic
    assert human_correlation(heatmap, [human_map]) == pytest.approx(expected)


@given(st.integers(0, 2**32 - 1))
def test_scale_and_offset_of_either_map_do_not_matter(seed: int) -> None:
    rng = np.random.default_rng(seed)
    heatmap, human_map = rng.normal(size=(15, 20)), rng.random((30, 40))
    rho = human_correlation(heatmap, [human_map])
    assert human_correlation(7 * heatmap - 2, [human_map / 3]) == pytest.approx(rho)


def test_unseen_cells_are_left_out() -> None:
    heatmap = np.array([[1.0, 2.0, 3.0, NAN]])
    assert human_correlation(heatmap, [np.array([[1.0, 2.0, 3.0, -9.0]])], CELLS) == pytest.approx(
        1
    )


def test_a_constant_map_has_no_correlation() -> None:
    human_map = np.array([[1.0, 2.0, 3.0, 4.0]])
    for value in (0.0, 0.1, -0.7):
        assert human_correlation(np.full((7, 9), value), [human_map], CELLS) == 0
    with pytest.raises(EvaluationError, match="human map 1 is constant"):
        human_correlation(human_map, [human_map, 0 * human_map], CELLS)


def test_the_ceiling_is_the_mean_over_pairs() -> None:
    first, second = np.array([[1.0, 2.0, 3.0, 4.0]]), np.array([[2.0, 1.0, 3.0, 4.0]])
    assert human_ceiling([first, second], CELLS) == pytest.approx(0.8)
    assert human_ceiling([first, second, first], CELLS) == pytest.approx((0.8 + 0.8 + 1) / 3)
    with pytest.raises(EvaluationError, match="1 human maps"):
        human_ceiling([first], CELLS)
    with pytest.raises(EvaluationError, match="0 human maps"):
        human_correlation(first, [], CELLS)


def test_a_clip_is_no_human_map() -> None:
    with pytest.raises(EvaluationError, match="axes"):
        human_correlation(np.zeros((2, 4, 4)), [np.ones((4, 4))])


def test_the_baselines() -> None:
    centre = centre_map((5, 7))
    assert centre.argmax() == 2 * 7 + 3
    np.testing.assert_allclose(centre, centre[::-1, ::-1])
    # Half a side off the middle is two spreads: a factor of exp(-2).
    assert centre_map((1, 1001))[0, 0] == pytest.approx(math.exp(-2), rel=0.01)
    human_maps = [centre_map((14, 14))]
    chance = [human_correlation(random_map(seed), human_maps) for seed in range(200)]
    # The standard deviation of one is 1 / sqrt(195) = 0.072, that of the mean of 200, 0.005.
    assert abs(np.mean(chance)) < 0.02
    assert np.std(chance) == pytest.approx(1 / math.sqrt(195), rel=0.2)
    assert np.array_equal(random_map(3), random_map(3))
