"""What evaluators share: unseen cells, regions, ranks, coarser grids."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from mmcam.errors import EvaluationError
from mmcam.evaluators.maps import (
    average_ranks,
    box_region,
    positive,
    read_map,
    read_region,
    spearman,
    to_cells,
    visible_part,
)

NAN = math.nan


@pytest.mark.parametrize(
    ("heatmap", "words"),
    [
        (np.full((2, 3), NAN), "no cell is visible"),
        (np.array([[1.0, np.inf]]), "infinite"),
        (np.zeros((2, 2, 2, 2)), "one map at a time"),
        (np.zeros((0, 4)), "one map at a time"),
    ],
)
def test_maps_that_cannot_be_read(heatmap: np.ndarray, words: str) -> None:
    with pytest.raises(EvaluationError, match=words):
        read_map(heatmap)


def test_the_positive_part_is_zero_where_nothing_was_seen() -> None:
    heatmap = np.array([[-1, NAN], [2, 0]], dtype=np.float32)
    values, visible = positive(heatmap)
    assert values.tolist() == [[0, 0], [2, 0]]
    assert visible.tolist() == [[True, False], [True, True]]
    assert values.dtype == np.float64
    assert heatmap[0, 0] == -1


def test_a_region_of_one_frame_holds_for_all() -> None:
    region = np.array([[True, False]])
    assert read_region(region, np.ones((2, 1, 2), bool)).tolist() == [[[True, False]]] * 2


def test_a_region_of_another_size_is_refused() -> None:
    with pytest.raises(EvaluationError, match=r"\(2, 3\).*\(2, 2\)"):
        read_region(np.ones((2, 3), bool), np.ones((2, 2), bool))
    with pytest.raises(EvaluationError, match=r"\(2,\)"):
        read_region(np.ones(2, bool), np.ones((2, 2), bool))


def test_only_the_seen_part_of_a_region_counts() -> None:
    visible = np.array([[True, True, False]])
    assert visible_part(np.array([[True, False, True]]), visible).tolist() == [[True, False, False]]
    for region in ([[False, False, True]], [[False] * 3]):
        with pytest.raises(EvaluationError, match="leave this sample out"):
            visible_part(np.array(region), visible)


def test_a_box_holds_the_pixels_whose_middles_it_holds() -> None:
    # Middles of columns: 0.5, 1.5, 2.5, 3.5; of rows: 0.5, 1.5.
    inside = box_region((0.6, 0, 2.5, 1.5), (2, 4))
    assert inside.tolist() == [[False, True, False, False], [False] * 4]
    with pytest.raises(EvaluationError, match="holds no pixel"):
        box_region((2.6, 0, 3.4, 2), (2, 4))


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=30))
def test_ranks_are_scipys(values: list[int]) -> None:
    array = np.array(values, dtype=float)
    assert average_ranks(array).tolist() == scipy.stats.rankdata(array).tolist()


pairs = st.lists(st.tuples(st.integers(-4, 4), st.integers(-4, 4)), min_size=3, max_size=30)


@given(pairs)
def test_spearman_is_scipys_and_zero_where_a_map_is_constant(values: list[tuple[int, int]]) -> None:
    first, second = np.array(values, dtype=float).T
    if np.ptp(first) and np.ptp(second):
        expected = scipy.stats.spearmanr(first, second).statistic
        assert spearman(first, second) == pytest.approx(expected, abs=1e-12)
    else:
        assert spearman(first, second) == 0


@given(pairs)
def test_spearman_does_not_change_under_a_rising_function(values: list[tuple[int, int]]) -> None:
    first, second = np.array(values, dtype=float).T
    rho = spearman(first, second)
    assert spearman(np.exp(first), 3 * second - 7) == pytest.approx(rho, abs=1e-12)
    assert spearman(second, first) == pytest.approx(rho, abs=1e-12)
    assert spearman(-first, second) == pytest.approx(-rho, abs=1e-12)


def test_spearman_leaves_out_what_either_map_did_not_see() -> None:
    # Of (1, 10), (2, 30), (3, 20): ranks 1 2 3 against 1 3 2, rho = 1 - 6 * 2 / (3 * 8) = 0.5.
    first, second = np.array([1, 2, NAN, 3, 9]), np.array([10, 30, -5, 20, NAN])
    assert spearman(first, second) == pytest.approx(0.5)
    with pytest.raises(EvaluationError, match="needs two"):
        spearman(np.array([NAN, 1.0]), np.array([1.0, 1.0]))
    with pytest.raises(EvaluationError, match="one grid"):
        spearman(np.zeros(3), np.zeros(4))


def test_cells_are_means_of_what_was_seen() -> None:
    heatmap = np.array([[1, 3, NAN, 4], [5, 7, NAN, NAN]])
    assert to_cells(heatmap, (1, 2)).tolist() == [[4, 4]]
    assert to_cells(heatmap, (1, 4))[0, :2].tolist() == [3, 5]
    assert np.isnan(to_cells(heatmap, (1, 4))[0, 2])


def test_pixels_across_an_edge_count_in_both_cells() -> None:
    # Three pixels in two cells of 1.5: (1 + 0.5 * 2) / 1.5 and (0.5 * 2 + 4) / 1.5.
    cells = to_cells(np.array([[1.0, 2.0, 4.0]]), (1, 2))
    np.testing.assert_allclose(cells, [[2 / 1.5, 5 / 1.5]])


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9), st.integers(1, 9))
def test_cells_keep_the_mean_of_a_map(h: int, w: int, rows: int, columns: int) -> None:
    heatmap = np.random.default_rng(h * w).normal(size=(h, w))
    assert to_cells(heatmap, (rows, columns)).mean() == pytest.approx(heatmap.mean())


def test_cells_of_a_clip() -> None:
    clip = np.arange(16.0).reshape(4, 2, 2)
    np.testing.assert_allclose(to_cells(clip, (2, 1, 1)).ravel(), [3.5, 11.5])
    with pytest.raises(EvaluationError, match="axes"):
        to_cells(clip, (2, 2))
