from __future__ import annotations

import itertools
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from mmcam.errors import InputError
from mmcam.grids import onto_original
from mmcam.results.explanation import CHUNK_PIXELS, Explanation
from mmcam.types import Placement, Target

SIZE = (30, 40)
WHOLE = (0.0, 0.0, 40.0, 30.0)


def make_explanation(
    cam: Tensor,
    size: tuple[int, int] = SIZE,
    box: tuple[float, float, float, float] = WHOLE,
    spans: tuple[tuple[float, float], ...] = (),
) -> Explanation:
    return Explanation(
        target=Target.logit(0, "dog"),
        cam=cam,
        score=1.5,
        probability=0.5,
        method="gradcam",
        layer="trunk",
        placement=Placement(size=size, box=box, spans=spans),
    )


def planted(grid: tuple[int, ...], cell: tuple[int, ...]) -> Tensor:
    cam = torch.full(grid, 0.1)
    cam[cell] = 2.0
    return cam


def test_heatmap_is_the_positive_part_upsampled_and_scaled_by_the_maximum() -> None:
    cam = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    heatmap = make_explanation(cam).heatmap()
    positive = (cam.clamp(min=0) / cam.max())[None, None]
    expected = F.interpolate(positive, SIZE, mode="bilinear", align_corners=False)[0, 0]
    assert heatmap.dtype == np.float32
    np.testing.assert_allclose(heatmap, expected.numpy(), atol=1e-6)


def test_outside_the_crop_is_nan_and_inside_it_is_the_map() -> None:
    cam = torch.rand(2, 3, generator=torch.Generator().manual_seed(0))
    heatmap = make_explanation(cam, box=(5, 10, 35, 28)).heatmap()
    inside = np.zeros(SIZE, bool)
    inside[10:28, 5:35] = True
    assert (np.isnan(heatmap) == ~inside).all()
    alone = make_explanation(cam, size=(18, 30), box=(0, 0, 30, 18)).heatmap()
    np.testing.assert_allclose(heatmap[10:28, 5:35], alone, atol=1e-6)


def test_padding_around_the_picture_is_cut_off() -> None:
    cam = torch.rand(4, 4, generator=torch.Generator().manual_seed(0))
    padded = make_explanation(cam, size=(40, 40), box=(0, 0, 40, 40)).heatmap()
    heatmap = make_explanation(cam, box=(0, -5, 40, 35)).heatmap()
    np.testing.assert_allclose(heatmap, padded[5:35], atol=1e-6)


@pytest.mark.parametrize("value", [0.0, -0.0, -3.0, -1e-40])
def test_a_map_without_positive_values_is_empty_and_zero_inside_the_box(value: float) -> None:
    explanation = make_explanation(torch.full((2, 2), value), box=(5, 0, 35, 30))
    heatmap = explanation.heatmap()
    assert explanation.empty
    assert explanation.maximum == 0
    assert (heatmap[:, 5:35] == 0).all()
    assert np.isnan(heatmap[:, :5]).all()
    assert explanation.peak() == (20, 15, None)


@settings(deadline=None)
@given(
    values=st.lists(st.floats(-(2.0**99), 2.0**99, width=32), min_size=6, max_size=6),
    scale=st.sampled_from([2.0**-20, 1.0, 2.0**20]),
)
def test_heatmaps_are_in_range_and_blind_to_the_maps_scale(
    values: list[float], scale: float
) -> None:
    cam = torch.tensor(values).reshape(2, 3)
    heatmap = make_explanation(cam).heatmap()
    assert heatmap.shape == SIZE
    assert ((heatmap >= 0) & (heatmap <= 1)).all()
    assert make_explanation(cam).empty == (max(values) <= 0)
    tiny = 0 < max(values) < 1e-30  # scaled down, these would lose digits
    if not tiny:
        np.testing.assert_allclose(make_explanation(cam * scale).heatmap(), heatmap, atol=1e-5)


def test_the_smallest_positive_value_is_evidence() -> None:
    cam = torch.zeros(3, 4)
    cam[1, 2] = 1e-45
    explanation = make_explanation(cam)
    assert not explanation.empty
    assert np.nanmax(explanation.heatmap()) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("shape", [(3, 4), (3, 3, 4)])
def test_a_map_with_nan_or_infinite_values_is_refused(value: float, shape: tuple[int, ...]) -> None:
    cam = torch.rand(shape)
    cam.view(-1)[5] = value
    explanation = make_explanation(cam)
    uses: list[Callable[[], object]] = [
        lambda: explanation.saliency,
        lambda: explanation.maximum,
        lambda: explanation.empty,
        explanation.heatmap,
        explanation.gradient,
        explanation.peak,
        explanation._repr_html_,
    ]
    for use in uses:
        with pytest.raises(InputError, match=r"map of 'dog' \(gradcam at trunk\) has NaN"):
            use()


@pytest.mark.parametrize("row", range(3))
@pytest.mark.parametrize("column", range(4))
def test_the_peak_lies_in_the_planted_cell(row: int, column: int) -> None:
    peak = make_explanation(planted((3, 4), (row, column))).peak()
    assert abs(peak.x - (10 * column + 5)) <= 0.5
    assert abs(peak.y - (10 * row + 5)) <= 0.5
    assert peak.frame is None


def test_the_peak_of_a_crop_is_on_the_original() -> None:
    peak = make_explanation(planted((3, 3), (2, 0)), box=(20, 3, 38, 21)).peak()
    assert 20 <= peak.x <= 26
    assert 15 <= peak.y <= 21


def test_a_peak_in_the_padding_is_moved_onto_the_picture() -> None:
    peak = make_explanation(planted((3, 3), (0, 1)), box=(0, -30, 40, 60)).peak()
    assert 13 <= peak.x <= 27
    assert peak.y == 0.5


@pytest.mark.parametrize("slice_", range(4))
def test_the_peak_of_a_clip_is_in_the_middle_of_its_time_slice(slice_: int) -> None:
    cam = planted((4, 3, 4), (slice_, 2, 1))
    peak = make_explanation(cam, spans=((0, 8), (8, 16))).peak()
    assert peak.frame == 4 * slice_ + 2
    assert 10 <= peak.x <= 20
    assert 20 <= peak.y <= 30


def test_the_peak_of_an_empty_clip_is_a_frame_of_it() -> None:
    peak = make_explanation(torch.zeros(2, 2, 2), spans=((0, 1.0),)).peak()
    assert peak == (20, 15, 0)


def test_chosen_frames_are_slices_of_the_whole_heatmap() -> None:
    cam = torch.randn(6, 2, 3, generator=torch.Generator().manual_seed(0))
    explanation = make_explanation(cam, spans=((0, 7.5), (4.5, 12)))
    whole = explanation.heatmap()
    assert whole.shape == (12, *SIZE)
    for frames in ([0], [11, 3, 3], range(5, 9)):
        np.testing.assert_array_equal(explanation.heatmap(frames), whole[list(frames)])


@given(
    starts=st.lists(st.integers(0, 40), min_size=1, max_size=5),
    per_window=st.integers(1, 3),
    frames=st.lists(st.integers(0, 60), max_size=8),
    chunk=st.integers(1, 4),
    extent=st.sampled_from([(), ((-0.2, 0.9), (0.1, 1.1), (0.0, 1.0))]),
    channels=st.booleans(),
)
def test_a_few_frames_have_the_heat_and_gradient_of_the_whole_clip(
    starts: list[int],
    per_window: int,
    frames: list[int],
    chunk: int,
    extent: tuple[tuple[float, float], ...],
    channels: bool,
) -> None:
    shape = (per_window * len(starts), 2, 3)
    cam = torch.randn(3, *shape) if channels else torch.randn(shape)
    explanation = make_explanation(cam, spans=tuple((s, s + 12.5) for s in sorted(starts)))
    placement = replace(explanation.placement, extent=extent)
    explanation = replace(explanation, placement=placement)
    positive = explanation.saliency.clamp(min=0) / (explanation.maximum or 1)
    expected = onto_original(positive, placement, frames).clamp(0, 1).numpy()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mmcam.results.explanation.CHUNK_PIXELS", chunk * SIZE[0] * SIZE[1])
        assert explanation.heatmap(frames).shape == (len(frames), *SIZE)
        np.testing.assert_allclose(explanation.heatmap(frames), expected, atol=1e-6)
        one_by_one = list(explanation.heatmaps(frames))
    assert len(one_by_one) == len(frames)
    for heatmap, frame in zip(one_by_one, expected, strict=True):
        np.testing.assert_allclose(heatmap, frame, atol=1e-6)
    if channels:
        whole = onto_original(cam, placement, frames).numpy()
        np.testing.assert_allclose(explanation.gradient(frames), whole, atol=1e-5)


def test_heatmaps_are_yielded_for_all_frames_for_endless_frames_and_for_a_picture() -> None:
    clip = make_explanation(torch.rand(6, 2, 3), spans=((0, 7.5), (4.5, 12)))
    np.testing.assert_array_equal(np.stack(list(clip.heatmaps())), clip.heatmap())
    endless = itertools.islice(clip.heatmaps(itertools.count(3)), 20)
    np.testing.assert_array_equal(np.stack(list(endless)), clip.heatmap(range(3, 23)))
    picture = make_explanation(torch.rand(2, 3))
    (heatmap,) = picture.heatmaps()
    np.testing.assert_array_equal(heatmap, picture.heatmap())


class LargestTensor(TorchDispatchMode):
    """Records the size in bytes of the largest tensor that an operation makes."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, (list, tuple)) else [made]:
            if isinstance(tensor, Tensor):
                self.bytes = max(self.bytes, tensor.numel() * tensor.element_size())
        return made


def memory_of(use: Callable[[], object]) -> int:
    """The bytes of the largest tensor plus the peak of what Python and numpy allocate.

    The second of two runs is measured, since the first may import modules.
    """
    with LargestTensor():
        use()
    tracemalloc.start()
    try:
        with LargestTensor() as largest:
            use()
        return largest.bytes + tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def long_clip(windows: int, channels: int | None = None) -> Explanation:
    shape = (4 * windows, 6, 8)
    explanation = make_explanation(
        torch.rand(shape if channels is None else (channels, *shape)),
        size=(120, 160),
        box=(0, 0, 160, 120),
        spans=tuple((16.0 * i, 16.0 * i + 16) for i in range(windows)),
    )
    return explanation


@pytest.mark.parametrize("channels", [None, 3])
def test_the_memory_of_a_few_frames_does_not_grow_with_the_clip(channels: int | None) -> None:
    frame = 120 * 160 * 8
    for windows in (10, 1000):
        clip = long_clip(windows, channels)
        spans = 500 * windows  # a few numbers for each window
        assert 2 * frame <= memory_of(partial(clip.heatmap, [100, 101])) < 6 * frame + spans
        if channels:
            assert memory_of(partial(clip.gradient, [100, 101])) < 15 * frame + spans


def test_heatmaps_of_a_long_clip_are_computed_a_chunk_at_a_time() -> None:
    clip = long_clip(1000)
    chunk = CHUNK_PIXELS * 8
    whole = clip.frame_count * 120 * 160 * 4
    assert whole > 30 * chunk

    def three_chunks() -> None:
        for heatmap in itertools.islice(clip.heatmaps(), 3 * CHUNK_PIXELS // (120 * 160)):
            assert heatmap.shape == (120, 160)

    assert memory_of(three_chunks) < 3 * chunk


def test_a_clips_heatmaps_have_one_scale() -> None:
    cam = torch.stack([torch.full((2, 2), 1.0), torch.full((2, 2), 4.0)])
    first, last = make_explanation(cam, spans=((0, 2),)).heatmap()
    np.testing.assert_allclose(first, 0.25)
    np.testing.assert_allclose(last, 1.0)


def test_frames_that_no_window_covers_are_nan() -> None:
    heatmap = make_explanation(torch.ones(2, 2, 2), spans=((4, 8),)).heatmap([0, 3, 4, 7, 8])
    assert [bool(np.isnan(frame).all()) for frame in heatmap] == [True, True, False, False, True]


@pytest.mark.parametrize("end", [40.0, 39.99999999, 39.2])
def test_frames_are_counted_to_the_end_of_the_last_window(end: float) -> None:
    assert (
        make_explanation(torch.ones(4, 2, 2), spans=((0, 26.67), (end - 26.67, end))).frame_count
        == 40
    )


def test_slices_know_their_time_and_their_evidence() -> None:
    cam = torch.tensor([[[1.0, -1]], [[3, 1]], [[-1, -2]], [[0, 5]]])
    explanation = make_explanation(cam, spans=((0, 10), (6, 16)))
    np.testing.assert_allclose(explanation.slice_times(), [2.5, 7.5, 8.5, 13.5])
    np.testing.assert_allclose(explanation.evidence(), [0.5, 2, 0, 2.5])


def test_a_pixel_map_is_given_back_with_colours_and_signs() -> None:
    cam = torch.randn(3, 6, 8, generator=torch.Generator().manual_seed(0))
    explanation = make_explanation(cam, size=(10, 12), box=(2, 1, 10, 7))
    gradient = explanation.gradient()
    assert gradient.shape == (3, 10, 12)
    np.testing.assert_allclose(gradient[:, 1:7, 2:10], cam.numpy(), rtol=1e-6)
    assert np.isnan(gradient[:, 7:]).all()
    torch.testing.assert_close(explanation.saliency, cam.abs().amax(0))


def test_a_pixel_map_of_a_clip_keeps_its_time() -> None:
    cam = torch.randn(3, 4, 6, 8, generator=torch.Generator().manual_seed(0))
    explanation = make_explanation(cam, size=(6, 8), box=(0, 0, 8, 6), spans=((0, 4),))
    np.testing.assert_allclose(explanation.gradient(), cam.numpy(), rtol=1e-6)
    np.testing.assert_allclose(explanation.gradient([2]), cam[:, 2:3].numpy(), rtol=1e-6)
    assert explanation.heatmap().shape == (4, 6, 8)
    assert explanation.is_pixel_space


def test_a_negative_gradient_is_no_empty_map() -> None:
    cam = torch.zeros(3, 6, 8)
    cam[1, 2, 3] = -1
    explanation = make_explanation(cam, size=(6, 8), box=(0, 0, 8, 6))
    assert not explanation.empty
    assert explanation.peak() == (3.5, 2.5, None)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_maps_of_any_number_type_are_drawn_in_single_precision(dtype: torch.dtype) -> None:
    cam = planted((3, 4), (1, 1))
    heatmap = make_explanation(cam.to(dtype).requires_grad_()).heatmap()
    assert heatmap.dtype == np.float32
    np.testing.assert_allclose(heatmap, make_explanation(cam).heatmap(), atol=1e-2)


def test_explanations_are_compared_by_identity() -> None:
    first = make_explanation(torch.ones(2, 2))
    second = replace(first, cam=torch.ones(2, 2))
    assert [first, second].index(second) == 1
    assert len({first, second}) == 2
