"""Checks of the arguments of the drawing functions."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Float, Shaped, UInt8

from mmcam.errors import InputError, nearest


def describe(array: object) -> str:
    """For error messages: an array as `float32 [480 640]`, anything else as its type."""
    if not isinstance(array, np.ndarray):
        return type(array).__name__
    return f"{array.dtype} [{' '.join(str(side) for side in array.shape)}]"


def check_picture(pixels: UInt8[np.ndarray, "h w 3"], name: str = "pixels") -> None:
    """Check that `pixels` is one picture, uint8 [h w 3], with at least one pixel.

    Raises:
        InputError: shape or dtype differ, or there is no pixel.
    """
    fits = isinstance(pixels, np.ndarray) and pixels.ndim == 3 and pixels.shape[2] == 3
    if not fits or pixels.size == 0:
        raise InputError(
            f"{name} is {describe(pixels)}, not one picture of shape [height width 3]; "
            "give one RGB picture, or the frames of a clip one at a time"
        )
    if pixels.dtype != np.uint8:
        raise InputError(
            f"{name} is {describe(pixels)}, but pictures are uint8 in 0..255; "
            "scale to 0..255, round, and convert with .astype(numpy.uint8)"
        )


def check_floating(values: Shaped[np.ndarray, "*shape"], name: str) -> None:
    """Check that `values` is an array of floating-point numbers, of any shape.

    Raises:
        InputError: it is not an array, or has another dtype.
    """
    if not isinstance(values, np.ndarray) or not np.issubdtype(values.dtype, np.floating):
        raise InputError(
            f"{name} is {describe(values)}, but drawing needs floating-point numbers in a numpy "
            "array; convert with .astype(numpy.float32), or .numpy(force=True) for a tensor"
        )


def check_range(
    values: Float[np.ndarray, "*shape"], name: str, low: float = 0.0, high: float = 1.0
) -> None:
    """Check that `values` are floating-point numbers in [low, high], without NaN.

    Raises:
        InputError: a value is NaN or outside the range, or the dtype is not floating-point.
    """
    check_floating(values, name)
    if values.size == 0:
        return
    smallest, largest = float(values.min()), float(values.max())
    if not (low <= smallest and largest <= high):
        raise InputError(
            f"{name} ranges from {smallest:.4g} to {largest:.4g}, but must be in "
            f"[{low:g}, {high:g}]; normalise it first, and replace NaN and infinity"
        )


def check_heatmap(
    heatmap: Float[np.ndarray, "h w"], pixels: UInt8[np.ndarray, "h w 3"]
) -> tuple[Float[np.ndarray, "h w"], Bool[np.ndarray, "h w"]]:
    """Check a heatmap against its picture, and replace NaN, which marks what the model did not see.

    Returns:
        The heatmap with NaN replaced by 0, and a mask that is False where it was NaN.

    Raises:
        InputError: `pixels` is not a picture, or `heatmap` does not have one value, in [0, 1] or
            NaN, for each pixel.
    """
    check_picture(pixels)
    check_floating(heatmap, "heatmap")
    if heatmap.shape != pixels.shape[:2]:
        raise InputError(
            f"heatmap is {describe(heatmap)}, the picture {describe(pixels)}: they must have the "
            "same height and width; resize the map to the picture first"
        )
    valid = ~np.isnan(heatmap)
    filled = np.where(valid, heatmap, heatmap.dtype.type(0))
    check_range(filled, "heatmap")
    return filled, valid


def check_fraction(value: float, name: str) -> None:
    """Check that `value` is a number in [0, 1].

    Raises:
        InputError: the value is outside the range or NaN.
    """
    if not 0 <= value <= 1:
        raise InputError(f"{name} is {value!r}, but must be a fraction; give a number from 0 to 1")


def check_size(value: int, name: str) -> None:
    """Check that `value` is a whole number of pixels or columns, at least 1.

    Raises:
        InputError: the value is not a whole number, or is below 1.
    """
    if not isinstance(value, int | np.integer) or value < 1:
        raise InputError(
            f"{name} is {value!r}, but must be a count; give a whole number, 1 or more"
        )


def check_name(name: str, known: Mapping[str, object], kind: str) -> None:
    """Check that `name` is a key of `known`; `kind` says in the message what is named.

    Raises:
        InputError: the name is unknown; the message lists the known names and the nearest of them.
    """
    if name not in known:
        raise InputError(
            f"there is no {kind} {name!r}; nearest: {nearest(str(name), known)}. "
            f"Known: {', '.join(known)}"
        )
