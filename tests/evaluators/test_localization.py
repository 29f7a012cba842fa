"""Boxes from maps and overlaps: by hand, and against scipy, torchvision and sklearn."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.ndimage
import torch
import torchvision
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import jaccard_score

from mmcam.errors import EvaluationError
from mmcam.evaluators.localization import (
    bounding_box,
    box_iou,
    highlighted,
    loc,
    localization_error,
    segmentation_iou,
    segments,
)

NAN = math.nan


def blocks() -> np.ndarray:
    """A hot cell, a larger segment of medium heat, and a faint background: maximum 1."""
    heatmap = np.full((6, 8), 0.1, dtype=np.float32)
    heatmap[0, 0] = 1
    heatmap[2:5, 3:6] = 0.4
    return heatmap


def test_what_is_above_the_threshold_is_highlighted() -> None:
    heatmap = np.array([[1.0, 0.15, 0.151], [-3, 0, NAN]]).astype(np.float64)
    assert highlighted(heatmap).tolist() == [[True, False, True], [False] * 3]
    assert not highlighted(np.zeros((2, 2))).any()
    assert not highlighted(np.full((2, 2), -1.0)).any()
    assert highlighted(np.full((2, 2), 0.1)).all()


@given(st.integers(0, 2**32 - 1), st.sampled_from([(1, 9), (7, 8), (3, 4, 5)]), st.floats(0, 1))
def test_segments_are_scipys(seed: int, shape: tuple[int, ...], density: float) -> None:
    mask = np.random.default_rng(seed).random(shape) < density
    expected, _ = scipy.ndimage.label(mask, np.ones((3,) * len(shape)))
    assert np.array_equal(segments(mask), expected)


def test_a_long_winding_segment_is_one() -> None:
    mask = np.zeros((41, 41), dtype=bool)
    mask[::4] = True
    mask[2::8, -1] = mask[1::8, -1] = mask[3::8, -1] = True
    mask[6::8, 0] = mask[5::8, 0] = mask[7::8, 0] = True
    assert segments(mask).max() == 1
    assert segments(np.zeros((0, 3), dtype=bool)).shape == (0, 3)


def test_the_box_is_around_the_largest_segment() -> None:
    assert bounding_box(blocks()) == (3, 2, 6, 5)
    # At 5 % everything is one segment; at 50 % the hot cell alone is left.
    assert bounding_box(blocks(), 0.05) == (0, 0, 8, 6)
    assert bounding_box(blocks(), 0.5) == (0, 0, 1, 1)


def test_the_box_of_uniform_empty_and_half_seen_maps() -> None:
    assert bounding_box(np.ones((3, 5))) == (0, 0, 5, 3)
    assert bounding_box(np.zeros((3, 5))) is None
    assert bounding_box(-np.ones((3, 5))) is None
    heatmap = np.ones((3, 5))
    heatmap[:, 2:] = NAN
    assert bounding_box(heatmap) == (0, 0, 2, 3)
    with pytest.raises(EvaluationError, match="NaN everywhere"):
        bounding_box(np.full((2, 2), NAN))


def test_the_box_of_a_clip_holds_all_frames() -> None:
    clip = np.zeros((2, 6, 8))
    clip[0, 1:3, 1:3] = clip[1, 2:5, 2:6] = 1
    assert bounding_box(clip) == (1, 1, 6, 5)


@given(st.lists(st.tuples(*[st.integers(0, 9)] * 2, *[st.integers(1, 9)] * 2), min_size=2))
def test_overlaps_of_boxes_are_torchvisions(rows: list[tuple[int, int, int, int]]) -> None:
    first, second = ((x, y, x + w, y + h) for x, y, w, h in rows[:2])
    expected = torchvision.ops.box_iou(torch.tensor([first]), torch.tensor([second]))
    assert box_iou(first, second) == pytest.approx(float(expected))


def test_boxes_without_area_have_no_overlap() -> None:
    assert box_iou((1, 1, 1, 5), (1, 1, 1, 5)) == 0


@pytest.mark.parametrize(
    ("predictions", "boxes", "error"),
    [
        (["dog"], [(3, 2, 6, 5)], False),
        (["dog"], [(3, 2, 6, 8)], False),  # 9 / 18: exactly half
        (["dog"], [(3, 2, 6, 8.1)], True),
        (["dog"], [(0, 0, 1, 1), (3, 2, 6, 5)], False),
        (["cat"], [(3, 2, 6, 5)], True),
        (["cat", "dog"], [(3, 2, 6, 5)], False),
        (["cat", "dog"], [(0, 0, 1, 1)], True),
    ],
)
def test_the_localization_error(
    predictions: list[str], boxes: list[tuple[float, ...]], error: bool
) -> None:
    rows = [(label, blocks()) for label in predictions]
    assert localization_error(rows, "dog", boxes) is error  # type: ignore[arg-type]


def test_each_prediction_is_judged_by_its_own_map() -> None:
    rows = [("cat", blocks()), ("dog", np.zeros((6, 8)))]
    assert localization_error(rows, "dog", [(3, 2, 6, 5)])
    with pytest.raises(EvaluationError, match="no predictions"):
        localization_error([], "dog", [(3, 2, 6, 5)])
    with pytest.raises(EvaluationError, match="no box"):
        localization_error(rows, "dog", [])


def test_loc_by_hand() -> None:
    # Of 0 1 2 4 the scaled map is 0, 1/4, 1/2, 1; the box holds the last two of four.
    heatmap = np.array([[0.0, 1.0, 2.0, 4.0]])
    box = [(2.0, 0.0, 4.0, 1.0)]
    assert loc(heatmap, box, 0.0) == pytest.approx(2 / (2 + 1))
    assert loc(heatmap, box, 0.25) == pytest.approx(2 / (2 + 0))
    assert loc(heatmap, box, 0.5) == pytest.approx(1 / (2 + 0))
    assert loc(-heatmap, box, 0.0) == pytest.approx(1 / (2 + 2))


@given(st.integers(0, 2**32 - 1), st.floats(0.1, 9), st.floats(-5, 5))
def test_loc_is_the_overlap_of_a_mask_and_does_not_see_scale(
    seed: int, scale: float, offset: float
) -> None:
    heatmap = np.random.default_rng(seed).integers(0, 9, (6, 6)).astype(float)
    heatmap[0, :2] = 0, 8
    box = np.zeros((6, 6), bool)
    box[1:4, 2:5] = True
    expected = jaccard_score(box.ravel(), heatmap.ravel() > 3)
    # 0.45 of the range lies well between the integers.
    assert loc(heatmap, [(2, 1, 5, 4)], 0.45) == pytest.approx(expected)
    assert loc(scale * heatmap + offset, [(2, 1, 5, 4)], 0.45) == pytest.approx(expected)


def test_loc_takes_several_boxes_as_their_union() -> None:
    heatmap = np.array([[0.0, 1.0, 1.0, 1.0]])
    boxes = [(0.0, 0.0, 2.0, 1.0), (1.0, 0.0, 3.0, 1.0)]
    assert loc(heatmap, boxes) == pytest.approx(2 / (3 + 1))


def test_loc_of_constant_and_unseen_maps() -> None:
    assert loc(np.full((3, 3), 0.7), [(0, 0, 1, 1)]) == 0
    assert loc(np.zeros((3, 3)), [(0, 0, 1, 1)]) == 0
    # The unseen half of the box is missed: one pixel of two.
    assert loc(np.array([[0.0, 1.0, NAN]]), [(1, 0, 3, 1)]) == pytest.approx(1 / 2)
    with pytest.raises(EvaluationError, match="no box"):
        loc(np.ones((2, 2)), [])
    with pytest.raises(EvaluationError, match="holds no pixel"):
        loc(np.ones((2, 2)), [(5, 5, 6, 6)])


def test_loc_of_a_clip_counts_all_frames() -> None:
    clip = np.array([[[0.0, 1.0]], [[1.0, 0.0]]])
    assert loc(clip, [(1, 0, 2, 1)]) == pytest.approx(1 / (2 + 1))


@given(st.integers(0, 2**32 - 1))
def test_the_segmentation_overlap_is_sklearns(seed: int) -> None:
    rng = np.random.default_rng(seed)
    heatmap, region = rng.normal(size=(5, 6)), rng.random((5, 6)) > 0.5
    heatmap[0, 0], region[0, 0] = 3, True
    above = heatmap > 0.3 * heatmap.max()
    expected = jaccard_score(region.ravel(), above.ravel())
    assert segmentation_iou(heatmap, region, 0.3) == pytest.approx(expected)


def test_the_segmentation_overlap_of_odd_maps() -> None:
    region = np.array([[True, True, False, False]])
    assert segmentation_iou(np.ones((1, 4)), region) == 0.5
    assert segmentation_iou(np.zeros((1, 4)), region) == 0
    assert segmentation_iou(np.array([[1.0, NAN, 0.0, 0.0]]), region) == 0.5
    with pytest.raises(EvaluationError, match="segmentation is empty"):
        segmentation_iou(np.ones((1, 4)), ~region & region)
