"""Between a layer's own layout, its grid, and the pixels of the original.

Everything here follows the half-pixel convention (`align_corners=False`): cell `i` of `n` covers
the stretch `[i / n, (i + 1) / n]` of the input, and its value stands at the middle of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from mmcam.errors import LayerError
from mmcam.types import Placement

LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}


def resize(maps: Float[Tensor, "batch *grid"], size: Sequence[int]) -> Float[Tensor, "batch *size"]:
    """Linear, bilinear or trilinear interpolation to `size`, by the number of axes."""
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

    Understands convolutional maps, channels first `[b, c, *grid]` or last `[b, *grid, c]`, and
    token sequences `[b, n, c]` in raster order (time, then rows, then columns) behind `prefix`
    class or register tokens. What is not said (`prefix`, `channels_last`) is settled by the
    proportions of the input; a family that knows says so, as it must for a clip's tokens, which
    hold `slices` time slices.

    Raises:
        LayerError: no grid of the input's proportions fits the shape.
    """
    axes = len(space)
    if tensor.ndim == axes + 2:
        if channels_last is None:
            channels_last = _channels_last(tensor.shape, space)
        return tensor.movedim(-1, 1) if channels_last else tensor
    if tensor.ndim == 3 and not (axes == 3 and slices == 1):
        prefix, rows, columns = token_grid(tensor.shape[1], space[-2:], prefix, slices)
        grid = (rows, columns) if axes == 2 else (slices, rows, columns)
        folded: Tensor = tensor[:, prefix:].movedim(-1, 1).unflatten(2, grid)
        return folded
    raise LayerError(
        f"an output of shape {tuple(tensor.shape)} has no grid over an input of size "
        f"{tuple(space)}; explain a layer that still has one (mmcam list layers --model ...)"
    )


def _channels_last(shape: Sequence[int], space: Sequence[int]) -> bool:
    """Whether the proportions of the input are those of the middle axes, not of the last ones.

    Channels come first where the last axes have these proportions up to the rounding of a cell.
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
    """How many of `tokens` come before the grid, and its rows and columns.

    The grid has the proportions of the input `(height, width)`, in each of `slices` time slices.
    Where several numbers of leading tokens would fit, the smallest wins; up to eight are tried (a
    class token, a distillation token, registers).

    Raises:
        LayerError: nothing fits.
    """
    height, width = space
    for leading in range(9) if prefix is None else [prefix]:
        each, left_over = divmod(tokens - leading, slices)
        if each <= 0 or left_over:
            continue
        about = math.isqrt(each * height // width)
        for rows in (about, about + 1):
            columns = round(rows * width / height)
            if rows * columns == each:
                return leading, rows, columns
    raise LayerError(
        f"{tokens} tokens do not form a grid over an input of size {tuple(space)}; "
        "explain another layer, or give the adapter a grid of its own (mmcam.wrap(..., grid=...))"
    )


def weights(positions: Float[Tensor, " n"], cells: int) -> Float[Tensor, "n {cells}"]:
    """Linear interpolation as a matrix: row `i` mixes the cells at `positions[i]` in [0, 1].

    Positions between the edge and the middle of the outermost cell take that cell's value.
    """
    at = (positions * cells - 0.5).clamp(0, cells - 1)
    low = at.floor().clamp(max=max(cells - 2, 0)).long()
    high = (low + 1).clamp(max=cells - 1)
    share = (at - low).to(positions.dtype)
    matrix = positions.new_zeros(len(positions), cells)
    matrix.scatter_add_(1, low[:, None], (1 - share)[:, None])
    return matrix.scatter_add_(1, high[:, None], share[:, None])


def _edges(length: int, first: float, last: float, cells: int) -> Float[Tensor, "{length} {cells}"]:
    """Interpolation from cells over [first, last] to the pixels 0 .. length - 1; NaN outside."""
    centres = (torch.arange(length, dtype=torch.float64) + 0.5 - first) / (last - first)
    matrix = weights(centres, cells)
    matrix[(centres < 0) | (centres > 1)] = torch.nan
    return matrix


def frame_weights(frames: Sequence[int], placement: Placement, slices: int) -> Tensor:
    """How the time slices of a map, all windows joined, mix into each of `frames`.

    A frame that several windows cover is their mean; one that none covers is NaN.

    Returns:
        `[len(frames), slices]`, float64.
    """
    at = torch.as_tensor(list(frames), dtype=torch.float64) + 0.5
    each = slices // len(placement.spans)
    matrix = at.new_zeros(len(at), slices)
    covered = at.new_zeros(len(at))
    for number, (first, last) in enumerate(placement.spans):
        inside = ((at >= first) & (at <= last)).to(at.dtype)
        window = weights((at - first) / (last - first), each)
        matrix[:, number * each : (number + 1) * each] = window * inside[:, None]
        covered += inside
    return matrix / torch.where(covered > 0, covered, torch.nan)[:, None]


def onto_original(
    cam: Float[Tensor, "*grid"], placement: Placement, frames: Sequence[int] | None = None
) -> Float[Tensor, "*time height width"]:
    """A map on the pixels of the original: (h, w) of a picture, (frame, h, w) of a clip.

    Crop, padding and resizing are undone. Pixels the model did not see are NaN.

    Args:
        cam: the last two axes are rows and columns; for a clip the one before them is time.
        placement: where the map lies.
        frames: which frames of a clip.
    """
    height, width = placement.size
    left, top, right, bottom = placement.box
    rows = _edges(height, top, bottom, cam.shape[-2])
    columns = _edges(width, left, right, cam.shape[-1])
    cam = cam.detach().cpu().double()
    if frames is not None:
        mix = frame_weights(frames, placement, cam.shape[-3])
        cam = torch.einsum("ft,...thw->...fhw", mix, cam)
    return (rows @ cam @ columns.T).float()
