"""The ratio of activation inside and outside a box."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmcam.errors import EvaluationError
from mmcam.evaluators.densecap import in_out_means, in_out_ratio
from mmcam.evaluators.maps import box_region

NAN = math.nan
HEATMAP = np.array([[4, 2, 1], [0, 2, 1]], dtype=np.float32)
LEFT = np.array([[True, False, False], [True, False, False]])


def test_the_ratio_by_hand() -> None:
    # Inside (4 + 0) / 2 = 2, outside (2 + 1 + 2 + 1) / 4 = 1.5.
    assert in_out_means(HEATMAP, LEFT) == (2, 1.5)
    assert in_out_ratio(HEATMAP, LEFT) == pytest.approx(4 / 3)
    assert in_out_ratio(HEATMAP, ~LEFT) == pytest.approx(3 / 4)


def test_the_inverted_map_prefers_the_other_side() -> None:
    # 4 - map: inside (0 + 4) / 2 = 2, outside (2 + 3 + 2 + 3) / 4 = 2.5.
    assert in_out_ratio(4 - HEATMAP, LEFT) == pytest.approx(2 / 2.5)


@given(st.floats(0.01, 100), st.integers(1, 6), st.integers(1, 6))
def test_a_uniform_map_has_a_ratio_of_one(value: float, right: int, bottom: int) -> None:
    region = box_region((0, 0, right, bottom), (7, 7))
    assert in_out_ratio(np.full((7, 7), value), region) == pytest.approx(1)


@given(st.integers(0, 2**32 - 1), st.floats(0.01, 100))
def test_scale_does_not_matter(seed: int, scale: float) -> None:
    heatmap = np.random.default_rng(seed).normal(size=(5, 6))
    heatmap[0, 0] = heatmap[4, 5] = 1
    region = box_region((0, 0, 3, 3), (5, 6))
    ratio = in_out_ratio(heatmap, region)
    assert in_out_ratio(scale * heatmap, region) == pytest.approx(ratio)
    assert in_out_ratio(heatmap, ~region) == pytest.approx(1 / ratio)


def test_unseen_and_negative_cells_are_no_activation() -> None:
    heatmap = HEATMAP.copy()
    heatmap[0, 1] = NAN
    heatmap[1, 1] = -100
    # Outside (1 + 0 + 1) / 3.
    assert in_out_ratio(heatmap, LEFT) == pytest.approx(3)


def test_all_activation_inside_is_infinite() -> None:
    assert in_out_ratio(LEFT.astype(float), LEFT) == math.inf
    assert in_out_ratio((~LEFT).astype(float), LEFT) == 0


def test_what_has_no_ratio_is_an_error() -> None:
    with pytest.raises(EvaluationError, match="map is empty"):
        in_out_ratio(np.zeros((2, 3)), LEFT)
    with pytest.raises(EvaluationError, match="nothing is outside"):
        in_out_ratio(HEATMAP, np.ones((2, 3), bool))
    with pytest.raises(EvaluationError, match="region is empty"):
        in_out_ratio(HEATMAP, np.zeros((2, 3), bool))
    with pytest.raises(EvaluationError, match="does not match"):
        in_out_ratio(HEATMAP, LEFT.T)


def test_a_clip_takes_one_box_for_all_frames() -> None:
    clip = np.stack([HEATMAP, 0 * HEATMAP])
    assert in_out_means(clip, LEFT) == (1, 0.75)
