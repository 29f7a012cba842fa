"""What the drawing functions accept; the rest is an error that says value, reason and remedy."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Float, Shaped, UInt8

from mmcam.errors import InputError, nearest


def describe(array: object) -> str:
    """An array as error messages show it: `float32 [480 640]`; anything else by its type."""
    if not isinstance(array, np.ndarray):
        return type(array).__name__
    return f"{array.dtype} [{' '.join(str(side) for side in array.shape)}]"


def check_picture(pixels: UInt8[np.ndarray, "h w 3"], name: str = "pixels") -> None:
    """One picture, uint8 [h w 3], with at least one pixel.

    Raises:
        InputError: it is anything else.
    """
    fits = isinstance(pixels, np.ndarray) and pixels.ndim == 3 and pixels.shape[2] == 3
    if not fits or pixels.size == 0:
        raise InputError(
            f"{name} is {describe(pixels)}, not one picture of shape [height width 3]; "
            "give one upright RGB picture, or the frames of a clip one at a time"
        )
    if pixels.dtype != np.uint8:
        raise InputError(
            f"{name} is {describe(pixels)}, but pictures are uint8 in 0..255; "
            "scale to 0..255, round, and convert with .astype(numpy.uint8)"
        )


def check_floating(values: Shaped[np.ndarray, "*shape"], name: str) -> None:
    """An array of any shape that holds floating-point numbers.

    Raises:
        InputError: it is anything else.
    """
    if not isinstance(values, np.ndarray) or not np.issubdtype(values.dtype, np.floating):
        raise InputError(
            f"{name} is {describe(values)}, but drawing needs floating-point numbers in a numpy "
            "array; convert with .astype(numpy.float32), or .numpy(force=True) for a tensor"
        )


def check_range(
    values: Float[np.ndarray, "*shape"], name: str, low: float = 0.0, high: float = 1.0
) -> None:
    """Floating-point numbers in [low, high], none of them NaN.

    Raises:
        InputError: they are anything else.
    """
    check_floating(values, name)
    if values.size == 0:
        return
    smallest, largest = float(values.min()), float(values.max())
    if not (low <= smallest and largest <= high):
        raise InputError(
            f"{name} reaches from {smallest:.4g} to {largest:.4g}, but is drawn in "
            f"[{low:g}, {high:g}]; normalise it first, and replace NaN and infinity"
        )


def check_heatmap(
    heatmap: Float[np.ndarray, "h w"], pixels: UInt8[np.ndarray, "h w 3"]
) -> tuple[Float[np.ndarray, "h w"], Bool[np.ndarray, "h w"]]:
    """The heatmap with NaN ("not seen by the model") replaced by 0, and where it was seen.

    Raises:
        InputError: the pixels are no picture, or the heatmap is not one number in [0, 1] or NaN
            for each of its pixels.
    """
    check_picture(pixels)
    check_floating(heatmap, "heatmap")
    if heatmap.shape != pixels.shape[:2]:
        raise InputError(
            f"heatmap is {describe(heatmap)}, the picture {describe(pixels)}: they must have the "
            "same height and width; resize the map to the picture first"
        )
    seen = ~np.isnan(heatmap)
    known = np.where(seen, heatmap, heatmap.dtype.type(0))
    check_range(known, "heatmap")
    return known, seen


def check_fraction(value: float, name: str) -> None:
    """A number in [0, 1].

    Raises:
        InputError: it is not (NaN included).
    """
    if not 0 <= value <= 1:
        raise InputError(f"{name} is {value!r}, but it is a share; give a number from 0 to 1")


def check_size(value: int, name: str) -> None:
    """A whole number of pixels or columns, at least 1.

    Raises:
        InputError: it is anything else.
    """
    if not isinstance(value, int | np.integer) or value < 1:
        raise InputError(f"{name} is {value!r}, but it is a count; give a whole number from 1 up")


def check_name(name: str, known: Mapping[str, object], kind: str) -> None:
    """A name that the table `known` has a row for.

    Raises:
        InputError: it has none; the known names and the nearest of them are named.
    """
    if name not in known:
        raise InputError(
            f"there is no {kind} {name!r}; nearest: {nearest(str(name), known)}. "
            f"Known: {', '.join(known)}"
        )
