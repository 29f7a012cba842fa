"""Pictures and clips of any number of channels: read as given, drawn as RGB."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Shaped, UInt8
from torch import Tensor

from mmcam.errors import InputError
from mmcam.media.images import check_single_frame, to_rgb, upright
from mmcam.types import Sample


def read_as_given(source: Any, show: Sequence[int] = ()) -> Sample:
    """A picture or clip whose `Sample.source` is what the user gave; its pixels only show it.

    Args:
        source: a tensor `[channel, *time, height, width]`, an array `[height, width]` or `[height,
            width, channel]` of integers or floats, or a PIL image, whose EXIF orientation is
            applied.
        show: as for `draw_channels`; for an RGBA image, by default its colours over white.

    Raises:
        InputError: another shape or dtype, an image that cannot be decoded, or a channel in `show`
            that `source` does not have.
    """
    if isinstance(source, Tensor):
        if source.ndim not in (3, 4) or not source.numel():
            raise InputError(
                f"tensor: shape {tuple(source.shape)} is not a model's input; give [channel, "
                "height, width], or [channel, time, height, width] for a model of clips"
            )
        source = source.detach()
        values = source.movedim(0, -1).cpu()
        values = values.float() if values.is_floating_point() else values
        pixels = draw_channels(values.numpy(), show, "tensor")
        return Sample(pixels=pixels, id="tensor", source=source)
    if isinstance(source, np.ndarray):
        _check_array(source)
        values = source if source.ndim == 3 else source[..., None]
        return Sample(pixels=draw_channels(values, show, "array"), id="array", source=source)
    check_single_frame(source, "image")
    image = upright(source, "image")
    if image.mode == "RGBA" and not show:
        pixels = to_rgb(image, "image")
    else:
        values = np.asarray(image)
        pixels = draw_channels(values if values.ndim == 3 else values[..., None], show, "image")
    return Sample(pixels=pixels, id="image", source=image)


def _check_array(array: np.ndarray) -> None:
    """Check that an array is a picture.

    Raises:
        InputError: another shape or dtype.
    """
    shape = list(array.shape)
    if array.ndim not in (2, 3) or not array.size:
        raise InputError(f"array: shape {shape} is not a picture; give [h w] or [h w channel]")
    if array.dtype.kind not in "uif":
        raise InputError(f"array: dtype {array.dtype} is not a picture; give integers or floats")
    if array.ndim == 3 and shape[0] < min(shape[1:]):
        raise InputError(
            f"array: shape {shape} looks channels-first; give array.transpose(1, 2, 0), which is "
            "[h w channel]"
        )


def draw_channels(
    values: Shaped[np.ndarray, "*time height width channel"],
    show: Sequence[int] = (),
    name: str = "array",
) -> UInt8[np.ndarray, "*time height width 3"]:
    """Draw a picture or clip of any number of channels as RGB.

    uint8 values are drawn as they are, others scaled from their own range, which all drawn channels
    share, to 0..255. NaN and infinity are drawn black.

    Args:
        values: the channels.
        show: the numbers of three channels, as red, green and blue, or of one, as grey. By default,
            three channels are colours, and any other number is drawn as the mean, in grey.
        name: the name of the input in error messages.

    Raises:
        InputError: there is no channel of a number in `show`.
    """
    count = values.shape[-1]
    if missing := [channel for channel in show if channel >= count]:
        raise InputError(
            f"{name}: there is no channel {missing[0]} to show (show={tuple(show)}); its channels "
            f"are 0 to {count - 1}"
        )
    if show:
        drawn = values[..., list(show)]
    else:
        drawn = values if count in (1, 3) else values.mean(-1, keepdims=True, dtype=np.float64)
    levels = drawn if values.dtype == np.uint8 else _to_levels(drawn)
    pixels = np.rint(levels).astype(np.uint8)
    return pixels if pixels.shape[-1] == 3 else np.repeat(pixels, 3, -1)


def _to_levels(values: np.ndarray) -> np.ndarray:
    """Values scaled from their own range to 0..255."""
    finite = np.isfinite(values)
    values = np.where(finite, values, 0).astype(np.float64)
    low, high = (values[finite].min(), values[finite].max()) if finite.any() else (0.0, 0.0)
    levels: np.ndarray = np.where(finite, (values - low) * (255 / ((high - low) or 1)), 0)
    return levels
