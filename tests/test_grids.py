"""From a layer's own layout to a grid, and from a grid to the pixels of the original."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from mmcam.errors import LayerError
from mmcam.grids import frame_weights, interpolation_matrix, onto_original, resize, to_grid
from mmcam.types import Placement


def numbered(*shape: int) -> Tensor:
    return torch.arange(torch.Size(shape).numel(), dtype=torch.float32).view(shape)


@pytest.mark.parametrize(
    ("shape", "space"),
    [
        ((2, 5, 7, 7), (224, 224)),
        ((2, 5, 7, 10), (224, 320)),
        ((2, 64, 4, 7, 9), (16, 112, 144)),
        ((1, 5, 4, 3), (9, 8)),
        ((1, 8, 1, 1), (64, 8)),
    ],
)
def test_channels_first_maps_stay_as_they_are(
    shape: tuple[int, ...], space: tuple[int, ...]
) -> None:
    tensor = numbered(*shape)
    assert torch.equal(to_grid(tensor, space), tensor)


@pytest.mark.parametrize(
    ("shape", "space"),
    [((2, 7, 7, 96), (224, 224)), ((2, 7, 10, 96), (224, 320)), ((1, 4, 7, 9, 32), (8, 112, 144))],
)
def test_channels_last_maps_are_turned(shape: tuple[int, ...], space: tuple[int, ...]) -> None:
    tensor = numbered(*shape)
    grid_map = to_grid(tensor, space)
    assert grid_map.shape == (shape[0], shape[-1], *shape[1:-1])
    cell = (0,) * len(space)
    assert torch.equal(grid_map[(0, slice(None), *cell)], tensor[(0, *cell)])
    last = (-1,) * len(space)
    assert torch.equal(grid_map[(0, slice(None), *last)], tensor[(0, *last)])


def test_a_family_can_set_the_channel_axis() -> None:
    tensor = numbered(1, 6, 6, 6)
    assert torch.equal(to_grid(tensor, (60, 60)), tensor)
    assert torch.equal(to_grid(tensor, (60, 60), channels_last=True), tensor.movedim(-1, 1))


@pytest.mark.parametrize("prefix", [0, 1, 2, 5])
@pytest.mark.parametrize(
    ("grid", "space"),
    [((14, 14), (224, 224)), ((12, 20), (192, 320)), ((20, 12), (320, 192)), ((1, 3), (16, 48))],
)
def test_tokens_fold_in_raster_order_behind_their_prefix(
    prefix: int, grid: tuple[int, int], space: tuple[int, int]
) -> None:
    rows, columns = grid
    tokens = numbered(2, prefix + rows * columns, 3)
    grid_map = to_grid(tokens, space)
    assert grid_map.shape == (2, 3, *grid)
    for row, column in [(0, 0), (0, columns - 1), (rows - 1, 0), (rows - 1, columns - 1)]:
        token = tokens[:, prefix + row * columns + column]
        assert torch.equal(grid_map[:, :, row, column], token)


def test_a_family_can_set_the_number_of_leading_tokens() -> None:
    tokens = numbered(1, 6, 2)
    assert to_grid(tokens, (16, 32), prefix=4).shape == (1, 2, 1, 2)
    assert torch.equal(to_grid(tokens, (16, 32), prefix=4)[0, :, 0, 0], tokens[0, 4])


@pytest.mark.parametrize("prefix", [0, 1])
def test_a_clips_tokens_fold_by_time_then_rows_then_columns(prefix: int) -> None:
    tokens = numbered(1, prefix + 2 * 3 * 4, 5)
    grid_map = to_grid(tokens, (4, 48, 64), slices=2, prefix=prefix)
    assert grid_map.shape == (1, 5, 2, 3, 4)
    for t, row, column in [(0, 0, 3), (0, 2, 0), (1, 0, 0), (1, 2, 3)]:
        token = tokens[0, prefix + (t * 3 + row) * 4 + column]
        assert torch.equal(grid_map[0, :, t, row, column], token)


@pytest.mark.parametrize(
    ("shape", "space", "reason"),
    [
        ((1, 10), (32, 32), r"shape \(1, 10\) has no grid"),
        ((1, 24, 8), (4, 32, 32), r"shape \(1, 24, 8\) has no grid"),
        ((1, 2, 3, 4, 5, 6), (4, 32, 32), "has no grid"),
        ((1, 35, 8), (64, 64), "35 tokens do not form a grid"),
        ((1, 7, 8), (16, 320), "7 tokens do not form a grid"),
    ],
)
def test_shapes_without_a_grid_are_refused(
    shape: tuple[int, ...], space: tuple[int, ...], reason: str
) -> None:
    with pytest.raises(LayerError, match=reason):
        to_grid(torch.zeros(shape), space)


@pytest.mark.parametrize(("prefix", "slices"), [(0, 1), (2, 1), (1, 5), (25, 1), (26, 1)])
def test_prefix_and_slices_of_a_family_must_fit(prefix: int, slices: int) -> None:
    with pytest.raises(LayerError, match="25 tokens do not form a grid"):
        to_grid(torch.zeros(1, 25, 3), (4, 32, 64), prefix=prefix, slices=slices + 1)


@pytest.mark.parametrize("mode", ["linear", "bilinear", "trilinear"])
@given(data=st.data())
def test_resize_is_half_pixel_interpolation(mode: str, data: st.DataObject) -> None:
    axes = ("linear", "bilinear", "trilinear").index(mode) + 1
    sizes = st.lists(st.integers(1, 6), min_size=axes, max_size=axes)
    grid, size = data.draw(sizes), data.draw(sizes)
    maps = torch.randn(2, *grid)
    expected = F.interpolate(maps[:, None], tuple(size), mode=mode, align_corners=False)[:, 0]
    assert_close(resize(maps, size), expected)


@given(cells=st.integers(1, 7), length=st.integers(1, 20))
def test_interpolation_matrix_is_linear_interpolation(cells: int, length: int) -> None:
    centres = (torch.arange(length, dtype=torch.float64) + 0.5) / length
    values = torch.randn(1, 1, cells, dtype=torch.float64)
    expected = F.interpolate(values, length, mode="linear", align_corners=False)
    matrix = interpolation_matrix(centres, cells)
    assert_close(matrix @ values[0, 0], expected[0, 0])
    assert_close(matrix.sum(1), torch.ones(length, dtype=torch.float64))


def placed(size: tuple[int, int], box: tuple[float, float, float, float]) -> Placement:
    return Placement(size=size, box=box)


@given(
    grid=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    size=st.tuples(st.integers(1, 20), st.integers(1, 20)),
)
def test_whole_picture_is_plain_interpolation(grid: tuple[int, int], size: tuple[int, int]) -> None:
    cam = torch.randn(grid)
    expected = F.interpolate(cam[None, None], size, mode="bilinear", align_corners=False)[0, 0]
    whole = placed(size, (0.0, 0.0, float(size[1]), float(size[0])))
    assert_close(onto_original(cam, whole), expected, rtol=1e-4, atol=1e-5)


def test_crop_lands_in_its_place_and_the_rest_is_not_seen() -> None:
    cam = torch.randn(3, 4)
    heat = onto_original(cam, placed((20, 30), (7.0, 3.0, 23.0, 15.0)))
    expected = F.interpolate(cam[None, None], (12, 16), mode="bilinear", align_corners=False)
    assert_close(heat[3:15, 7:23], expected[0, 0], rtol=1e-4, atol=1e-5)
    outside = torch.ones(20, 30, dtype=torch.bool)
    outside[3:15, 7:23] = False
    assert heat[outside].isnan().all()
    assert heat[~outside].isfinite().all()


def test_padding_reaches_out_of_the_picture() -> None:
    """Of an input padded by 4 and 6 pixels on each side, the picture is the middle."""
    cam = torch.randn(5, 6)
    heat = onto_original(cam, placed((12, 10), (-6.0, -4.0, 16.0, 16.0)))
    padded = F.interpolate(cam[None, None], (20, 22), mode="bilinear", align_corners=False)
    assert_close(heat, padded[0, 0, 4:16, 6:16], rtol=1e-4, atol=1e-5)


def test_lit_cell_is_brightest_where_it_lies() -> None:
    cam = torch.zeros(4, 4)
    cam[1, 3] = 1
    heat = onto_original(cam, placed((40, 60), (10.0, 4.0, 42.0, 36.0))).nan_to_num(-1)
    y, x = divmod(int(heat.argmax()), 60)
    assert (y, x) in {(y, x) for y in range(12, 20) for x in range(34, 42)}


def test_colours_are_placed_one_by_one() -> None:
    cam = torch.randn(3, 4, 5)
    whole = placed((8, 9), (0.0, 0.0, 9.0, 8.0))
    assert_close(onto_original(cam, whole), torch.stack([onto_original(c, whole) for c in cam]))


def clip(*spans: tuple[float, float]) -> Placement:
    return Placement(size=(2, 2), box=(0.0, 0.0, 2.0, 2.0), spans=spans)


def steps(*values: float) -> Tensor:
    """A map that has one value in each time slice."""
    return torch.tensor(values, dtype=torch.float32).view(-1, 1, 1).expand(-1, 2, 2)


def over_time(cam: Tensor, placement: Placement, frames: int) -> Tensor:
    heat = onto_original(cam, placement, range(frames))
    assert heat.shape == (frames, 2, 2)
    assert torch.equal(heat.isnan(), heat[:, :1, :1].isnan().expand(-1, 2, 2))
    return heat[:, 0, 0]


def test_frames_of_one_window_are_interpolated_in_time() -> None:
    cam = torch.randn(3, 2, 2)
    heat = onto_original(cam, clip((0.0, 12.0)), range(12))
    expected = F.interpolate(cam[None, None], (12, 2, 2), mode="trilinear", align_corners=False)
    assert_close(heat, expected[0, 0], rtol=1e-4, atol=1e-5)


def test_windows_end_to_end_do_not_mix() -> None:
    heat = over_time(steps(1, 1, 5, 5), clip((0.0, 3.0), (3.0, 6.0)), 6)
    assert heat.tolist() == [1, 1, 1, 5, 5, 5]


def test_overlapping_windows_are_their_mean() -> None:
    heat = over_time(steps(1, 5), clip((0.0, 4.0), (2.0, 6.0)), 6)
    assert heat.tolist() == [1, 1, 3, 3, 5, 5]


def test_frames_that_no_window_covers_are_not_seen() -> None:
    heat = over_time(steps(1, 5), clip((1.0, 3.0), (5.0, 7.0)), 8)
    assert heat.isnan().tolist() == [True, False, False, True, True, False, False, True]
    assert heat[1:3].tolist() == [1, 1]
    assert heat[5:7].tolist() == [5, 5]


def test_single_frames_can_be_asked_for() -> None:
    cam = torch.randn(4, 2, 2)
    every = onto_original(cam, clip((0.0, 16.0)), range(16))
    assert_close(onto_original(cam, clip((0.0, 16.0)), [9, 2]), every[[9, 2]])


def test_colours_of_a_clip_keep_their_axes() -> None:
    cam = torch.randn(3, 2, 2, 2)
    heat = onto_original(cam, clip((0.0, 4.0)), range(4))
    assert heat.shape == (3, 4, 2, 2)
    assert_close(heat[1], onto_original(cam[1], clip((0.0, 4.0)), range(4)))


@given(
    starts=st.lists(st.floats(0, 20), min_size=1, max_size=4),
    length=st.floats(1, 9),
    each=st.integers(1, 3),
)
def test_weights_of_every_frame_that_is_seen_add_up_to_one(
    starts: list[float], length: float, each: int
) -> None:
    placement = clip(*((start, start + length) for start in starts))
    sums = frame_weights(range(30), placement, each * len(starts)).sum(1)
    covered = [any(s <= frame + 0.5 <= s + length for s in starts) for frame in range(30)]
    assert (~sums.isnan()).tolist() == covered
    assert_close(sums[covered], torch.ones_like(sums[covered]))


@given(
    cells=st.integers(1, 7),
    length=st.integers(1, 40),
    first=st.floats(-0.5, 0.4),
    last=st.floats(0.5, 1.6),
)
def test_cells_lie_where_their_extent_says(
    cells: int, length: int, first: float, last: float
) -> None:
    """Along each axis the values are those of numpy's interpolation between the cells' centres."""
    values = torch.rand(cells, dtype=torch.float64)
    centres = first + (np.arange(cells) + 0.5) / cells * (last - first)
    points = (np.arange(length) + 0.5) / length
    along = torch.from_numpy(np.interp(points, centres, values.numpy()))
    rows, columns = values[:, None].expand(cells, 2), values[None].expand(2, cells)
    up, across = ((first, last), (0.0, 1.0)), ((0.0, 1.0), (first, last))
    assert_close(resize(rows[None], (length, 3), up)[0], along[:, None].expand(length, 3))
    assert_close(resize(columns[None], (3, length), across)[0], along.expand(3, length))
    # A crop of the original whose left half is the input.
    placement = Placement(size=(4, 2 * length), box=(0, 0, length, 4), extent=across)
    heat = onto_original(columns, placement)
    assert_close(heat[0, :length], along.float())
    assert heat[:, length:].isnan().all()
    clip = Placement(
        size=(3, 3), box=(0, 0, 3, 3), spans=((5.0, 5.0 + length),), extent=((first, last), *up)
    )
    moving = values[:, None, None].expand(cells, 2, 2)
    frames = [5 + frame for frame in range(length)]
    assert_close(onto_original(moving, clip, frames)[:, 0, 0], along.float())
