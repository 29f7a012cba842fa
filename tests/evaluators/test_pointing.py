"""Pointing: on small maps by hand, and against brute force."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.ndimage
from hypothesis import given, settings
from hypothesis import strategies as st

from mmcam.errors import EvaluationError
from mmcam.evaluators.pointing import (
    PointingResult,
    centre_pointing,
    chance,
    energy_inside,
    peak,
    pointing_game,
    pointing_or_rejecting,
    rejection_threshold,
    word_pointing,
)

NAN = math.nan


def single_cell(size: tuple[int, ...], *cell: int, value: float = 1.0) -> np.ndarray:
    """A map that is 0 but for one cell."""
    heatmap = np.zeros(size, dtype=np.float32)
    heatmap[cell] = value
    return heatmap


def lit(size: tuple[int, ...], *cell: int) -> np.ndarray:
    return single_cell(size, *cell) > 0


def test_the_peak_is_the_highest_seen_cell() -> None:
    assert peak(np.array([[0, 3, 1], [NAN, 2, 0]])) == (0, 1)
    assert peak(np.array([[NAN, NAN, -1], [NAN, 2, 0]])) == (1, 1)
    assert peak(single_cell((3, 4, 5), 2, 1, 3)) == (2, 1, 3)


def test_a_map_without_positive_values_has_no_peak() -> None:
    assert peak(np.zeros((3, 3))) is None
    assert peak(np.array([[-2.0, -1.0], [NAN, 0.0]])) is None


def test_of_equal_maxima_the_one_in_their_middle_is_the_peak() -> None:
    assert peak(np.full((5, 7), 0.3)) == (2, 3)
    plateau = np.zeros((6, 6))
    plateau[3:6, 0:3] = 1
    assert peak(plateau) == (4, 1)
    # Two far apart: their middle is no maximum, so the nearer of them, the first of equals.
    assert peak(single_cell((1, 5), 0, 0) + single_cell((1, 5), 0, 4)) == (0, 0)


def test_a_hit_is_a_peak_in_the_region() -> None:
    heatmap = np.array([[0.1, 0.9], [0.2, 0.3]], dtype=np.float32)
    assert pointing_game(heatmap, lit((2, 2), 0, 1), tolerance=0)
    assert not pointing_game(heatmap, lit((2, 2), 1, 1), tolerance=0)
    assert not pointing_game(1 - heatmap, lit((2, 2), 0, 1), tolerance=0)


@pytest.mark.parametrize(
    ("down", "right", "hit"),
    [(15, 0, True), (0, -15, True), (16, 0, False), (9, 12, True), (11, 11, False), (10, 11, True)],
)
def test_the_tolerance_is_a_disc_of_fifteen_pixels(down: int, right: int, hit: bool) -> None:
    # 9^2 + 12^2 = 15^2 lies on its edge; 11^2 + 11^2 = 242 > 225 >= 10^2 + 11^2 = 221.
    region = lit((60, 60), 30 + down, 30 + right)
    assert pointing_game(single_cell((60, 60), 30, 30), region) is hit


def test_the_tolerance_ends_at_the_picture() -> None:
    assert pointing_game(single_cell((5, 40), 0, 0), lit((5, 40), 4, 0))
    assert not pointing_game(single_cell((5, 40), 0, 0), lit((5, 40), 0, 39))


def test_the_tolerance_stays_in_the_frame() -> None:
    clip = single_cell((3, 8, 8), 1, 4, 4)
    assert pointing_game(clip, lit((3, 8, 8), 1, 4, 6))
    assert not pointing_game(clip, lit((3, 8, 8), 0, 4, 4))
    assert pointing_game(clip, lit((8, 8), 4, 4), tolerance=0)


def test_an_empty_map_misses() -> None:
    assert not pointing_game(np.zeros((4, 4)), np.ones((4, 4), bool))
    assert not pointing_game(np.full((4, 4), -1.0), np.ones((4, 4), bool))


def test_only_what_was_seen_can_be_hit() -> None:
    heatmap = single_cell((4, 40), 1, 30)
    heatmap[:, 34:] = NAN
    region = np.zeros((4, 40), bool)
    region[:, 35:] = True
    with pytest.raises(EvaluationError, match="empty inside the model's input"):
        pointing_game(heatmap, region)
    region[0, 0] = True
    assert not pointing_game(heatmap, region)


def test_no_ground_truth_is_an_error() -> None:
    for metric in (pointing_game, centre_pointing, chance, energy_inside):
        with pytest.raises(EvaluationError, match="leave this sample out"):
            metric(np.ones((3, 3)), np.zeros((3, 3), bool))
        with pytest.raises(EvaluationError, match="NaN everywhere"):
            metric(np.full((3, 3), NAN), np.ones((3, 3), bool))


@given(st.integers(0, 2**32 - 1), st.floats(0, 6))
def test_the_game_is_a_distance_to_the_region(seed: int, tolerance: float) -> None:
    rng = np.random.default_rng(seed)
    heatmap, region = rng.random((9, 13)), rng.random((9, 13)) > 0.95
    region[rng.integers(9), rng.integers(13)] = True
    distances = scipy.ndimage.distance_transform_edt(~region)
    cell = np.unravel_index(heatmap.argmax(), heatmap.shape)
    assert pointing_game(heatmap, region, tolerance) == (distances[cell] <= tolerance)
    assert chance(heatmap, region, tolerance) == pytest.approx((distances <= tolerance).mean())


@given(st.integers(0, 2**32 - 1), st.floats(0.1, 5))
def test_scaling_a_map_changes_nothing(seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    heatmap, region = rng.normal(size=(6, 6)), rng.random((6, 6)) > 0.5
    region[0, 0] = True
    assert pointing_game(scale * heatmap, region, 1) == pointing_game(heatmap, region, 1)


def test_chance_is_a_share_of_what_was_seen() -> None:
    heatmap = np.zeros((2, 4))
    region = np.array([[True, True, False, True], [False, False, False, True]])
    assert chance(heatmap, region) == 4 / 8
    heatmap[:, 3] = NAN
    assert chance(heatmap, region) == 2 / 6
    # Grown by one pixel: the corner (1, 2) alone is too far.
    assert chance(heatmap, region, tolerance=1) == 5 / 6
    # Grown over all that was seen, and no further.
    assert chance(heatmap, region, tolerance=3) == 1


def test_the_centre_is_the_middle_of_what_was_seen() -> None:
    heatmap = np.full((5, 9), -3.0)
    assert centre_pointing(heatmap, lit((5, 9), 2, 4), tolerance=0)
    heatmap[:, 5:] = NAN
    assert centre_pointing(heatmap, lit((5, 9), 2, 2), tolerance=0)
    assert not centre_pointing(heatmap, lit((5, 9), 2, 4), tolerance=0)


@pytest.mark.parametrize(
    ("present", "inside", "maximum", "right"),
    [
        (True, True, 3.0, True),
        (True, False, 3.0, False),
        (True, True, 1.0, False),
        (False, True, 3.0, False),
        (False, True, 1.0, True),
    ],
)
def test_rejecting_is_right_for_what_is_absent(
    present: bool, inside: bool, maximum: float, right: bool
) -> None:
    heatmap = single_cell((4, 4), 1, 1, value=maximum)
    region = lit((4, 4), 1, 1) if inside else lit((4, 4), 3, 3)
    truth = region if present else None
    assert pointing_or_rejecting(heatmap, truth, threshold=2, tolerance=0) is right
    # The same by shares of the maximum.
    shares = heatmap / maximum
    assert pointing_or_rejecting(shares, truth, 2, tolerance=0, maximum=maximum) is right


def test_an_empty_map_is_rejected_by_any_positive_threshold() -> None:
    assert pointing_or_rejecting(np.zeros((3, 3)), None, 1e-9)
    assert not pointing_or_rejecting(np.zeros((3, 3)), None, 0)
    assert not pointing_or_rejecting(np.zeros((3, 3)), np.ones((3, 3), bool), 0)


def test_the_threshold_with_most_hits() -> None:
    # Rejecting below 3 is right twice (1, 2) and keeps the hits 3 and 5: four of five.
    rows = [
        PointingResult(5, True, True),
        PointingResult(1, True, False),
        PointingResult(3, True, True),
        PointingResult(2, False, False),
        PointingResult(4, False, True),
    ]
    assert rejection_threshold(rows) == 3
    # Rejecting the absent one would cost two hits.
    assert (
        rejection_threshold([PointingResult(1, True, True)] * 2 + [PointingResult(2, True, False)])
        == 1
    )
    assert rejection_threshold([PointingResult(2, True, True)]) == 2
    assert rejection_threshold([PointingResult(2, True, False)]) > 2
    with pytest.raises(EvaluationError, match="no predictions"):
        rejection_threshold([])


rows_of_predictions = st.lists(
    st.builds(PointingResult, st.integers(0, 4).map(float), st.booleans(), st.booleans()),
    min_size=1,
    max_size=8,
)


@settings(max_examples=200)
@given(rows_of_predictions)
def test_no_other_threshold_has_more_hits(rows: list[PointingResult]) -> None:
    def hits(threshold: float) -> int:
        return sum(
            not row.present if row.maximum < threshold else row.hit and row.present for row in rows
        )

    best = max(hits(threshold) for threshold in np.arange(-0.5, 5.5, 0.5))
    assert hits(rejection_threshold(rows)) == best


def test_a_word_points_at_its_category() -> None:
    regions = {"dog": lit((4, 4), 0, 0), "cat": lit((4, 4), 0, 1)}
    assert word_pointing(single_cell((4, 4), 0, 0), regions, "dog")
    assert not word_pointing(single_cell((4, 4), 0, 0), regions, "cat")
    assert word_pointing(single_cell((4, 4), 0, 0), regions, "cat", tolerance=1)
    with pytest.raises(EvaluationError, match="no segment of 'cot'; it has: cat"):
        word_pointing(single_cell((4, 4), 0, 0), regions, "cot")


def test_energy_is_the_share_of_positive_values_inside() -> None:
    heatmap = np.array([[1.0, 2.0], [-7.0, NAN]])
    assert energy_inside(heatmap, np.array([[False, True], [True, True]])) == pytest.approx(2 / 3)
    assert energy_inside(-heatmap, np.array([[False, True], [False, True]])) == 0
    assert energy_inside(np.zeros((2, 2)), lit((2, 2), 0, 0)) == 0


def test_a_uniform_map_has_the_energy_of_chance() -> None:
    heatmap = np.full((4, 5), 0.2)
    heatmap[3] = NAN
    region = np.random.default_rng(0).random((4, 5)) > 0.6
    assert energy_inside(heatmap, region) == pytest.approx(chance(heatmap, region))
