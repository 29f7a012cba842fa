"""Rearrange a layer's output into a grid, and map a grid onto the pixels of the original.

All functions use half-pixel centres (`align_corners=False`): cell `i` of `n` covers the interval
`[i / n, (i + 1) / n]` of the input, and its value lies at the centre of that interval. Where a
layer's cells are known to lie elsewhere, they divide their `extent` in this way.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from mmcam.errors import LayerError
from mmcam.types import Extent, Placement

LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}


def resize(
    maps: Float[Tensor, "batch *grid"], size: Sequence[int], extent: Extent = ()
) -> Float[Tensor, "batch *size"]:
    """Linear, bilinear or trilinear interpolation to an input of `size`, by the number of axes.

    `extent` is where the cells lie on the input; if empty, they cover it exactly.
    """
    if extent:
        for axis, (length, interval) in enumerate(zip(size, extent, strict=True), 1):
            centres = (torch.arange(length, dtype=torch.float64) + 0.5) / length
            matrix = interpolation_matrix(_within(centres, interval), maps.shape[axis])
            along = maps.movedim(axis, -1) @ matrix.to(maps).T
            maps = along.movedim(-1, axis)
        return maps
    mode = LINEAR[len(size)]
    resized = F.interpolate(maps[:, None], size=tuple(size), mode=mode, align_corners=False)
    return resized[:, 0]


def to_grid(
    tensor: Tensor,
    space: Sequence[int],
    *,
    prefix: int | None = None,
    slices: int = 1,
    channels_last: bool | None = None,
) -> Float[Tensor, "batch channel *grid"]:
    """A layer's output as a channels-first grid that lies over an input of size `space`.

    Accepts convolutional maps, channels first `[b, c, *grid]` or last `[b, *grid, c]`, and token
    sequences `[b, n, c]` in raster order (time, then rows, then columns) after `prefix` class or
    register tokens. If `prefix` or `channels_last` is None, the aspect ratio of the input
    decides; adapters that know the layout pass both. `slices` is the number of time slices in the
    tokens of a clip, at least 2.

    Raises:
        LayerError: no grid with the input's aspect ratio fits the shape.
    """
    axes = len(space)
    if tensor.ndim == axes + 2:
        if channels_last is None:
            channels_last = _channels_last(tensor.shape, space)
        return tensor.movedim(-1, 1) if channels_last else tensor
    if tensor.ndim == 3 and not (axes == 3 and slices == 1):
        prefix, rows, columns = token_grid(tensor.shape[1], space[-2:], prefix, slices)
        grid = (rows, columns) if axes == 2 else (slices, rows, columns)
        cells: Tensor = tensor[:, prefix:].movedim(-1, 1).unflatten(2, grid)
        return cells
    raise LayerError(
        f"an output of shape {tuple(tensor.shape)} has no grid over an input of size "
        f"{tuple(space)}; explain a layer that has one (mmcam list layers --model ...)"
    )


def _channels_last(shape: Sequence[int], space: Sequence[int]) -> bool:
    """Whether the middle axes match the input's aspect ratio better than the last axes do.

    If the last axes match up to the rounding of one cell, channels come first.
    """
    height, width = space[-2:]

    def misfit(rows: int, columns: int) -> float:
        return abs(math.log(rows / columns) - math.log(height / width))

    if abs(shape[-2] * width - shape[-1] * height) <= max(height, width):
        return False
    return misfit(shape[-3], shape[-2]) < misfit(shape[-2], shape[-1])


def token_grid(
    tokens: int, space: Sequence[int], prefix: int | None = None, slices: int = 1
) -> tuple[int, int, int]:
    """The number of leading tokens before the grid, and the grid's rows and columns.

    The grid has the aspect ratio of the input `(height, width)`, in each of `slices` time slices.
    If `prefix` is None, the number of leading tokens (a class token, a distillation token,
    registers) is the smallest from 0 to 8 that fits.

    Raises:
        LayerError: no number of leading tokens fits.
    """
    height, width = space
    for leading in range(9) if prefix is None else [prefix]:
        cells, remainder = divmod(tokens - leading, slices)
        if cells <= 0 or remainder:
            continue
        estimate = math.isqrt(cells * height // width)
        for rows in (estimate, estimate + 1):
            columns = round(rows * width / height)
            if rows * columns == cells:
                return leading, rows, columns
    raise LayerError(
        f"{tokens} tokens do not form a grid over an input of size {tuple(space)}; "
        "explain another layer, or give the adapter a grid function (mmcam.wrap(..., grid=...))"
    )


def interpolation_matrix(positions: Float[Tensor, " n"], cells: int) -> Float[Tensor, "n {cells}"]:
    """Linear interpolation as a matrix: row `i` holds the cells' weights at `positions[i]`.

    The cells divide [0, 1] into equal parts. Beyond the centre of the outermost cell, the value is
    constant.
    """
    indices = (positions * cells - 0.5).clamp(0, cells - 1)
    low = indices.floor().clamp(max=max(cells - 2, 0)).long()
    high = (low + 1).clamp(max=cells - 1)
    fraction = (indices - low).to(positions.dtype)
    matrix = positions.new_zeros(len(positions), cells)
    matrix.scatter_add_(1, low[:, None], (1 - fraction)[:, None])
    return matrix.scatter_add_(1, high[:, None], fraction[:, None])


def _pixel_weights(
    length: int, first: float, last: float, cells: int, extent: tuple[float, float]
) -> Float[Tensor, "{length} {cells}"]:
    """Interpolation from cells to the pixels 0 .. length - 1; NaN outside of the input.

    The input covers [first, last], and the cells the part `extent` of it.
    """
    centres = (torch.arange(length, dtype=torch.float64) + 0.5 - first) / (last - first)
    matrix = interpolation_matrix(_within(centres, extent), cells)
    matrix[(centres < 0) | (centres > 1)] = torch.nan
    return matrix


def _within(positions: Tensor, interval: tuple[float, float]) -> Tensor:
    """Positions as shares of an interval: its ends become 0 and 1."""
    return (positions - interval[0]) / (interval[1] - interval[0])


def frame_weights(frames: Sequence[int], placement: Placement, slices: int) -> Tensor:
    """The weights of a map's time slices, all windows joined, for each of `frames`.

    If several windows cover a frame, its weights are the mean over these windows; if none does,
    they are NaN.

    Returns:
        `[len(frames), slices]`, float64.
    """
    centres = torch.as_tensor(list(frames), dtype=torch.float64) + 0.5
    per_window = slices // len(placement.spans)
    matrix = centres.new_zeros(len(centres), slices)
    covered = centres.new_zeros(len(centres))
    for window, (first, last) in enumerate(placement.spans):
        inside = ((centres >= first) & (centres <= last)).to(centres.dtype)
        shares = (centres - first) / (last - first)
        weights = interpolation_matrix(_within(shares, placement.along(-3)), per_window)
        matrix[:, window * per_window : (window + 1) * per_window] = weights * inside[:, None]
        covered += inside
    return matrix / torch.where(covered > 0, covered, torch.nan)[:, None]


def covering_windows(
    cam: Float[Tensor, "*grid"], placement: Placement, frames: Sequence[int]
) -> tuple[Float[Tensor, "*part"], Placement]:
    """The part of a clip's map whose windows cover any of `frames`, and its placement.

    It gives the same values on these frames as the whole map (`onto_original`), in time and memory
    that do not depend on the length of the clip. If no window covers a frame, the part is the first
    window, on which all of these frames are NaN.
    """
    centres = torch.as_tensor(sorted(frames), dtype=torch.float64) + 0.5
    first, last = torch.tensor(placement.spans, dtype=torch.float64).T.contiguous()
    ended = torch.searchsorted(centres, last, right=True)
    covers = ended > torch.searchsorted(centres, first)
    windows = covers.nonzero().flatten().tolist() or [0]
    per_window = cam.shape[-3] // len(placement.spans)
    slices = cam.unflatten(-3, (len(placement.spans), per_window))
    part = slices[..., windows, :, :, :].flatten(-4, -3)
    return part, replace(placement, spans=tuple(placement.spans[index] for index in windows))


def onto_original(
    cam: Float[Tensor, "*grid"], placement: Placement, frames: Sequence[int] | None = None
) -> Float[Tensor, "*time height width"]:
    """Resample a map to the pixels of the original: (h, w) of a picture, (frame, h, w) of a clip.

    Crop, padding and resizing are undone. Pixels outside the model's input are NaN.

    Args:
        cam: the last two axes are rows and columns; for a clip the axis before them is time.
        placement: where the map lies on the original.
        frames: the numbers of the frames of a clip to resample to; when None, the axes before rows
            and columns are kept.
    """
    height, width = placement.size
    left, top, right, bottom = placement.box
    rows = _pixel_weights(height, top, bottom, cam.shape[-2], placement.along(-2))
    columns = _pixel_weights(width, left, right, cam.shape[-1], placement.along(-1))
    cam = cam.detach().cpu().double()
    if frames is not None:
        weights = frame_weights(frames, placement, cam.shape[-3])
        cam = torch.einsum("ft,...thw->...fhw", weights, cam)
    return (rows @ cam @ columns.T).float()


def maximum_cell(
    values: Float[np.ndarray, "*grid"], near: Sequence[float] | None = None
) -> tuple[int, ...]:
    """The indices of the largest value; of several equal ones, of the nearest to a position.

    Towards the edges, an enlarged map is constant: its maximum may be a whole rectangle of pixels.
    NaN values do not count.

    Args:
        values: the map, with a value that is not NaN.
        near: the position, as indices; the mean of the equal ones if None.
    """
    equal = np.argwhere(values == np.nanmax(values))
    position = equal.mean(0) if near is None else np.asarray(near)
    return tuple(map(int, equal[((equal - position) ** 2).sum(1).argmin()]))
