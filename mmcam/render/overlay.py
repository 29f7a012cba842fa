"""Draw a heatmap or a gradient as a picture; the frames of a clip are drawn one at a time."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from jaxtyping import Bool, Float, UInt8, UInt16

from mmcam.errors import InputError
from mmcam.render.checks import check_floating, check_fraction, check_heatmap, check_name, describe
from mmcam.render.colormaps import COLORMAPS, STEPS

Picture = UInt8[np.ndarray, "h w 3"]

OPACITY = 0.55
"""The opacity of the largest value of a heatmap, unless another is given."""

LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R BT.601


def overlay(
    pixels: UInt8[np.ndarray, "h w 3"],
    heatmap: Float[np.ndarray, "h w"],
    *,
    opacity: float = OPACITY,
    colormap: str = "inferno",
) -> Picture:
    """Alpha-blend the heatmap over the picture.

    The alpha of a value h is opacity * (1 - (1 - h)^2): 0 at h = 0, where the picture is left
    unchanged, and `opacity` at h = 1. An alpha proportional to h would leave the middle of the
    scale too faint to see; a constant alpha would veil the whole picture.
    NaN marks pixels outside the model's input: they are drawn grey, dimmed and hatched.

    Raises:
        InputError: an array has another shape or dtype, heatmap and picture differ in size, a value
            or the opacity is outside [0, 1], or the colour map is unknown.
    """
    check_fraction(opacity, "opacity")
    check_name(colormap, COLORMAPS, "colour map")
    filled, valid = check_heatmap(heatmap, pixels)
    weights, colors = _blend_tables(colormap, float(opacity))
    step = (filled * STEPS + 0.5).astype(np.intp)  # 0.5 is added so that truncation rounds
    weight = weights[step]
    grey = None if valid.all() else _dim(pixels)
    blended = np.empty_like(pixels)
    for channel in range(3):  # one at a time, because broadcasting over a last axis of 3 is slow
        color = (pixels[..., channel] * weight + colors[channel][step]) >> 8
        blended[..., channel] = color if grey is None else np.where(valid, color, grey)
    return blended


@lru_cache(maxsize=16)
def _blend_tables(
    colormap: str, opacity: float
) -> tuple[UInt16[np.ndarray, " 257"], UInt16[np.ndarray, "3 257"]]:
    """For each step of the heatmap, the weight of the picture and the colour that is added.

    Both are in units of 1/256; the colour includes the 128 that rounds the sum. All sums fit in 16
    bits (255 * 256 + 128), and this takes about a third of the time of floating-point arithmetic.
    """
    values = np.linspace(0, 1, STEPS + 1)
    alpha = np.rint(256 * opacity * (1 - (1 - values) ** 2)).astype(np.uint16)
    return 256 - alpha, alpha * COLORMAPS[colormap].T + np.uint16(128)


def _dim(pixels: Picture) -> UInt8[np.ndarray, "h w"]:
    """The picture as drawn outside the model's input: grey, dimmed and hatched."""
    grey = pixels @ LUMA * np.float32(0.4) + np.float32(38)
    # The lines are blended towards one light grey, so that they show on both black and white.
    lines = _hatch(*grey.shape)
    return np.where(lines, grey * np.float32(0.5) + np.float32(85), grey).astype(np.uint8)


@lru_cache(maxsize=2)
def _hatch(height: int, width: int) -> Bool[np.ndarray, "h w"]:
    """A mask of diagonal lines; their width and spacing grow with the size of the picture."""
    thickness = max(1, min(height, width) // 320)
    down, right = np.ogrid[:height, :width]
    lines: Bool[np.ndarray, "h w"] = (down + right) % (7 * thickness) < thickness
    return lines


def explanation_map(
    pixels: UInt8[np.ndarray, "h w 3"], heatmap: Float[np.ndarray, "h w"]
) -> Picture:
    """E = L * I, element by element: the picture times its heatmap (Grad-CAM++, eq. 25).

    NaN, outside the model's input, counts as 0. The product is rounded to the nearest uint8.

    Raises:
        InputError: an array has another shape or dtype, heatmap and picture differ in size, or a
            value is outside [0, 1].
    """
    filled, _ = check_heatmap(heatmap, pixels)
    product: Picture = np.rint(pixels * filled[..., None]).astype(np.uint8)
    return product


def as_colours(gradient: Float[np.ndarray, "channel h w"]) -> Float[np.ndarray, "3 h w"]:
    """A gradient of any number of channels as three: unless there are three, the mean, in grey."""
    if len(gradient) == 3:
        return gradient
    return np.repeat(gradient.mean(0, keepdims=True), 3, 0)


def gradient_picture(gradient: Float[np.ndarray, "3 h w"], *, percentile: float = 99.5) -> Picture:
    """A signed gradient at the input pixels, such as guided backpropagation's, as a picture.

    Zero is mid-grey (128); each channel deviates from it in proportion to the gradient, by at most
    127. The scale is symmetric and shared by the channels. Its end is the given percentile of the
    absolute value, since a few extreme pixels would otherwise leave the rest grey (as in the
    figures of Springenberg et al. 2015 and Selvaraju et al. 2017). A gradient of zeros is all grey.

    Raises:
        InputError: the gradient is not a floating-point array [3 h w], a value is NaN or infinite,
            or the percentile is not in 0..100.
    """
    check_floating(gradient, "gradient")
    if gradient.ndim != 3 or gradient.shape[0] != 3 or gradient.size == 0:
        raise InputError(
            f"gradient is {describe(gradient)}, not [3 height width]; give one picture's or one "
            "frame's gradient, channels first"
        )
    if not np.isfinite(gradient).all():
        raise InputError(
            "gradient contains NaN or infinity, which cannot be drawn; compute it in float32 and "
            "check the model's activations"
        )
    if not 0 <= percentile <= 100:
        raise InputError(
            f"percentile is {percentile!r}, outside its range; give a number in 0..100"
        )
    signed = gradient.astype(np.float32 if gradient.dtype.itemsize < 4 else gradient.dtype)
    magnitude = np.abs(signed)
    # The percentile is 0 if almost all values are 0; the largest value is the scale then.
    scale = np.percentile(magnitude, percentile) or magnitude.max() or 1.0
    # Clip before the division, because dividing by a tiny scale overflows.
    level = np.rint(128 + 127 * (np.clip(signed, -scale, scale) / scale))
    return np.ascontiguousarray(level.astype(np.uint8).transpose(1, 2, 0))
