from __future__ import annotations

import jaxtyping
import numpy as np
import pytest

from mmcam.errors import InputError
from mmcam.render.colormaps import COLORMAPS
from mmcam.render.overlay import explanation_map, gradient_picture, overlay

RNG = np.random.default_rng(7)
SIZES = [(1, 1), (1, 9), (2, 3), (37, 53)]


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Switch off the run-time checks of shapes and types, as for a user."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


def photo(height: int, width: int) -> np.ndarray:
    return RNG.integers(0, 256, (height, width, 3), dtype=np.uint8)


def heat(height: int, width: int) -> np.ndarray:
    return RNG.random((height, width), dtype=np.float32)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("colormap", COLORMAPS)
def test_no_heat_leaves_the_picture(size: tuple[int, int], colormap: str) -> None:
    pixels = photo(*size)
    assert np.array_equal(overlay(pixels, np.zeros(size, np.float32), colormap=colormap), pixels)


def test_only_hot_pixels_change() -> None:
    pixels, heatmap = photo(20, 30), np.zeros((20, 30), np.float32)
    heatmap[5:9, 10:20] = 1
    changed = (overlay(pixels, heatmap) != pixels).any(axis=2)
    assert not changed[heatmap == 0].any()
    assert changed[heatmap == 1].all()


def test_no_opacity_leaves_the_picture_and_full_opacity_covers_it() -> None:
    pixels, heatmap = photo(8, 9), np.ones((8, 9), np.float32)
    assert np.array_equal(overlay(pixels, heatmap, opacity=0.0), pixels)
    assert np.all(overlay(pixels, heatmap, opacity=1.0) == COLORMAPS["inferno"][-1])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_blend_is_the_documented_formula(dtype: type) -> None:
    pixels, heatmap = photo(40, 40), heat(40, 40).astype(dtype)
    step = np.floor(heatmap.astype(np.float64) * 256 + 0.5).astype(int)
    cover = (0.7 * (1 - (1 - step / 256) ** 2))[..., None]
    expected = (1 - cover) * pixels + cover * COLORMAPS["viridis"][step]
    drawn = overlay(pixels, heatmap, opacity=0.7, colormap="viridis")
    assert np.abs(drawn - expected).max() < 1.1


def test_golden_pixels() -> None:
    pixels = np.array([[[0, 0, 0], [255, 255, 255], [40, 80, 160]]], dtype=np.uint8)
    heatmap = np.array([[0.5, 1.0, 0.25]], dtype=np.float32)
    drawn = overlay(pixels, heatmap, opacity=0.5, colormap="gray")
    # The cover is 96, 128 and 56 of 256; the colour 128, 255 and 64.
    assert drawn.tolist() == [[[48, 48, 48], [255, 255, 255], [45, 77, 139]]]


@pytest.mark.parametrize("shade", [0, 60, 128, 255])
def test_unseen_is_unlike_zero_whatever_the_picture(shade: int) -> None:
    pixels = np.full((64, 64, 3), shade, dtype=np.uint8)
    heatmap = np.zeros((64, 64), np.float32)
    heatmap[:, 32:] = np.nan
    drawn = overlay(pixels, heatmap)
    assert np.array_equal(drawn[:, :32], pixels[:, :32])
    unseen = drawn[:, 32:].astype(int)
    assert np.abs(unseen - shade).max() >= 30
    assert len(np.unique(unseen)) == 2  # the ground and its hatching
    assert np.ptp(unseen) >= 10


def test_unseen_is_grey_and_does_not_touch_what_was_seen() -> None:
    pixels, heatmap = photo(30, 40), heat(30, 40)
    partly = heatmap.copy()
    partly[:, :10] = np.nan
    drawn = overlay(pixels, partly)
    assert np.array_equal(drawn[:, 10:], overlay(pixels, heatmap)[:, 10:])
    assert np.all(drawn[:, :10] == drawn[:, :10, :1])
    assert overlay(pixels, np.full((30, 40), np.nan, np.float32)).std() > 0


def test_arguments_are_not_changed() -> None:
    pixels, heatmap = photo(6, 6), heat(6, 6)
    heatmap[0, 0] = np.nan
    pixels.flags.writeable = heatmap.flags.writeable = False
    overlay(pixels, heatmap)
    explanation_map(pixels, heatmap)


@pytest.mark.parametrize("size", SIZES)
def test_explanation_map_is_the_product(size: tuple[int, int]) -> None:
    pixels, heatmap = photo(*size), heat(*size).astype(np.float64)
    expected = np.rint(np.einsum("hw,hwc->hwc", heatmap, pixels))
    assert np.array_equal(explanation_map(pixels, heatmap), expected)
    assert np.array_equal(explanation_map(pixels, np.ones(size)), pixels)


def test_explanation_map_is_black_where_not_seen() -> None:
    pixels = np.array([[[10, 20, 30], [200, 100, 50]]], dtype=np.uint8)
    lit = explanation_map(pixels, np.array([[np.nan, 0.5]], dtype=np.float32))
    assert lit.tolist() == [[[0, 0, 0], [100, 50, 25]]]


def test_gradient_picture_is_symmetric_about_grey() -> None:
    gradient = RNG.standard_normal((3, 21, 32)).astype(np.float32)
    drawn = gradient_picture(gradient).astype(int)
    assert drawn.shape == (21, 32, 3)
    assert np.array_equal(drawn - 128, 128 - gradient_picture(-gradient).astype(int))
    assert np.array_equal(
        np.sign(drawn - 128)[np.abs(drawn - 128) > 0],
        np.sign(gradient).transpose(1, 2, 0)[np.abs(drawn - 128) > 0],
    )
    assert np.abs(drawn - gradient_picture(1e-30 * gradient)).max() <= 1


def test_gradient_picture_golden_pixels() -> None:
    gradient = np.zeros((3, 1, 3), np.float32)
    gradient[:, 0, 0], gradient[:, 0, 1] = (2, -2, 1), (0, -1, 0.5)
    drawn = gradient_picture(gradient, percentile=100.0)
    assert drawn.tolist() == [[[255, 1, 192], [128, 64, 160], [128, 128, 128]]]


def test_gradient_picture_without_gradient_is_grey() -> None:
    assert np.all(gradient_picture(np.zeros((3, 5, 4), np.float32)) == 128)


def test_gradient_picture_shows_few_and_extreme_values() -> None:
    lone = np.zeros((3, 50, 50), np.float32)
    lone[1, 4, 7] = -1e-40  # fewer pixels than the percentile leaves out, and hardly a number
    assert gradient_picture(lone)[4, 7].tolist() == [128, 1, 128]
    noisy = RNG.uniform(-1, 1, (3, 50, 50)).astype(np.float32)
    noisy[0, 0, 0] = 1e6  # must not leave the rest grey
    assert gradient_picture(noisy).std() > 50


HALF = np.full((4, 5), 0.5, np.float32)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("draw", [overlay, explanation_map])
@pytest.mark.parametrize(
    ("pixels", "heatmap", "message"),
    [
        (photo(4, 6), HALF, r"float32 \[4 5\], the picture uint8 \[4 6 3\].*resize"),
        (photo(4, 5), HALF[None], r"float32 \[1 4 5\], the picture uint8 \[4 5 3\].*resize"),
        (photo(4, 5), HALF + 0.6, r"ranges from 1.1 to 1.1.*\[0, 1\]; normalise"),
        (photo(4, 5), HALF - 0.6, r"ranges from -0.1 to -0.1"),
        (photo(4, 5), HALF + np.inf, r"ranges from inf to inf"),
        (photo(4, 5), (HALF * 2).astype(np.uint8), r"heatmap is uint8 \[4 5\].*float32"),
        (photo(4, 5) / 255, HALF, r"pixels is float64 \[4 5 3\].*uint8 in 0..255"),
        (photo(4, 5)[..., 0], HALF, r"pixels is uint8 \[4 5\].*one RGB picture"),
        (photo(4, 5)[None], HALF, r"pixels is uint8 \[1 4 5 3\].*one at a time"),
        (photo(0, 5), HALF[:0], r"pixels is uint8 \[0 5 3\]"),
    ],
)
def test_bad_input(draw: object, pixels: np.ndarray, heatmap: np.ndarray, message: str) -> None:
    assert callable(draw)
    with pytest.raises(InputError, match=message):
        draw(pixels, heatmap)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("opacity", [-0.1, 1.5, float("nan")])
def test_bad_opacity(opacity: float) -> None:
    with pytest.raises(InputError, match=r"opacity is .*0 to 1"):
        overlay(photo(4, 5), HALF, opacity=opacity)


@pytest.mark.usefixtures("unchecked")
def test_bad_colormap() -> None:
    with pytest.raises(InputError, match=r"no colour map 'hot'.*Known: inferno"):
        overlay(photo(4, 5), HALF, colormap="hot")


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("gradient", "message"),
    [
        (np.zeros((4, 5, 3)), r"float64 \[4 5 3\], not \[3 height width\].*channels first"),
        (np.zeros((3, 0, 3)), r"not \[3 height width\]"),
        (np.zeros((3, 4, 5), int), r"gradient is int64 \[3 4 5\]"),
        (np.full((3, 4, 5), np.nan), r"NaN or infinity"),
    ],
)
def test_bad_gradient(gradient: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        gradient_picture(gradient)


@pytest.mark.usefixtures("unchecked")
def test_bad_percentile() -> None:
    with pytest.raises(InputError, match=r"percentile is 101"):
        gradient_picture(np.zeros((3, 2, 2)), percentile=101.0)
