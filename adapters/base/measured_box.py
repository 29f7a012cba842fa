"""Where a user's transform puts a picture in its output, measured with pictures of known levels.

A picture is described by its levels from 0 to 255, given for one row, one column or one pixel, with
an axis of channels; `Transformed` makes it and returns the transform's output.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mmcam.errors import ModelError

Box = tuple[float, float, float, float]

Transformed = Callable[[NDArray[Any]], Tensor]
"""Levels -> the transform's output `[channel, height, width]` for a picture of these levels."""


def box_by_levels(transformed: Transformed, size: tuple[int, int], channels: int) -> Box | None:
    """The edges from black, white, grey and two ramps.

    None if the transform does not keep levels, such as one that normalises each picture by its own
    mean and deviation.
    """
    height, width = size
    black = transformed(np.zeros((1, 1, channels)))
    scale = transformed(np.full((1, 1, channels), 255)) - black
    largest = scale.abs().amax((1, 2))
    if not largest.isfinite().all() or not largest.any():
        return None
    black, scale, varies = black[largest > 0], scale[largest > 0], largest > 0
    inside = (scale.abs() > 0.5 * largest[varies, None, None]).all(0)
    scale = torch.where(inside, scale, 1)

    def levels(picture: NDArray[Any]) -> Tensor:
        return ((transformed(picture)[varies] - black) / scale).mean(0)

    grey = levels(np.full((1, 1, channels), 128))[inside]
    if not grey.numel() or (grey - 128 / 255).abs().mean() > 0.02:
        return None
    x, y = levels(_ramp(width, channels)[None]), levels(_ramp(height, channels)[:, None])
    left, right = _fit_edges(_positions(x, width), inside, 1, width)
    top, bottom = _fit_edges(_positions(y, height), inside, 0, height)
    return left, top, right, bottom


def _positions(levels: Tensor, length: int) -> Tensor:
    """The positions in pixels that these levels of a `_ramp` have, as shares of 255."""
    return (255 * levels.double() - 1) / 253 * (length - 1) + 0.5


def box_by_phases(transformed: Transformed, size: tuple[int, int], channels: int) -> Box:
    """The edges from one period of a cosine along each axis, in four phases.

    The four pictures have the same mean, deviation and range, so that a transform that normalises
    each picture by its own levels treats them alike; their differences hold the phase, which is the
    position, whatever the offset and the scale.

    Raises:
        ModelError: the transform does more than resizing, cropping and padding.
    """
    edges = []
    for axis, length in enumerate(size):
        angles = 2 * math.pi * (np.arange(length) + 0.5) / length

        def picture(turn: int, axis: int = axis, angles: NDArray[Any] = angles) -> Tensor:
            levels = 127.5 + 127 * np.cos(angles + turn * math.pi / 2)
            shape = (1, -1, 1) if axis else (-1, 1, 1)
            return transformed(levels.reshape(shape).repeat(channels, 2)).double()

        cosine, sine = picture(0) - picture(2), picture(3) - picture(1)
        strength = (cosine**2 + sine**2).sum(0)
        inside = strength > 0.25 * strength.amax()
        if length == 1 or not inside.any():
            edges.append((0.0, float(length)))
            continue
        profile = torch.complex(cosine.sum(0) * inside, sine.sum(0) * inside).sum(1 - axis)
        phases = torch.from_numpy(np.unwrap(profile.angle().numpy())) / (2 * math.pi)
        known = inside.any(1 - axis)
        phases = phases - phases[known].mean().floor()
        if phases[known].min() < -0.02 or phases[known].max() > 1.02:  # the contrast is inverted
            phases = phases + (0.5 if phases[known].min() < -0.02 else -0.5)
        positions = (phases * length).unsqueeze(1 - axis).expand_as(inside)
        edges.append(_fit_edges(positions, inside, axis, length))
    (top, bottom), (left, right) = edges
    return left, top, right, bottom


def _fit_edges(positions: Tensor, inside: Tensor, axis: int, length: int) -> tuple[float, float]:
    """The first and last edge of the output along `axis`, on an original of `length` pixels.

    A line is fitted to the positions on the original of the output pixels that show it (`inside`).
    """
    if length == 1:
        return 0.0, 1.0
    count = inside.sum(1 - axis).clamp(min=1)
    known = inside.any(1 - axis)
    source = ((positions * inside).sum(1 - axis, dtype=torch.float64) / count)[known]
    output = torch.arange(len(known), dtype=torch.float64)[known] + 0.5
    if len(output) < 2:
        return 0.0, float(length)
    centred = output - output.mean()
    slope = (centred * (source - source.mean())).sum() / (centred**2).sum()
    first = source.mean() - slope * output.mean()
    if slope <= 0 or (source - first - slope * output).abs().max() > max(2.0, 0.02 * length):
        raise ModelError(
            "the transform does more than resizing, cropping or padding (a flip, a random or a "
            "warping step?); use the transform for evaluation"
        )
    return float(first), float(first + slope * len(known))


def rgb_picture(levels: NDArray[Any], size: tuple[int, int]) -> Any:
    """An RGB image of (height, width), of grey levels given for one row, one column or one pixel.

    Pillow repeats them without an array of the full size.
    """
    from PIL import Image

    small = Image.fromarray(np.round(levels).clip(0, 255).astype(np.uint8))
    return small.resize(size[::-1], Image.Resampling.NEAREST)


def picture_like(source: Any, levels: NDArray[Any]) -> Any:
    """A picture of the same kind and size as `source`, of levels from 0 to 255.

    The levels are spread over the range of values of `source`, or over that of uint8. Alpha is
    opaque.
    """
    from PIL import Image

    values = np.asarray(source)
    low, high = _range_of(values)
    scaled = low + levels / 255 * (high - low)
    if values.dtype.kind != "f":
        scaled = np.rint(scaled)
    array = np.empty(values.shape, values.dtype)
    array[...] = scaled if values.ndim == 3 else scaled[..., 0]
    if not isinstance(source, Image.Image):
        return array
    if source.mode == "RGBA":
        array[..., 3] = 255
    return Image.fromarray(array)


def _range_of(values: NDArray[Any]) -> tuple[float, float]:
    """The lowest and highest value, apart from each other; 0 and 255 for uint8.

    A transform may check the range of its input, as those of X-rays do.
    """
    if values.dtype == np.uint8:
        return 0.0, 255.0
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    if values.dtype.kind == "f":
        return low, high if high > low else low + 1.0
    high = max(high, low + 255)  # enough levels for a ramp
    excess = max(0.0, high - np.iinfo(values.dtype).max)
    return low - excess, high - excess


def _ramp(length: int, channels: int) -> NDArray[np.float64]:
    """Levels from 1 to 254 along an axis.

    Channels differ by less than one level, so that rounding averages out.
    """
    offsets = (np.arange(channels) - (channels - 1) / 2) / channels
    return np.linspace(1, 254, length)[:, None] + offsets
