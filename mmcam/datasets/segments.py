"""Decode a segment in COCO's format into a mask (cocodataset.org, data format).

Polygons are drawn by pycocotools (`mmcam[evaluate]`), so that they cover the same pixels as with
COCO's tools.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool

from mmcam.errors import InputError, MissingExtra

Segment = Bool[np.ndarray, "height width"]


def decode_segment(segmentation: Any, height: int, width: int) -> Segment:
    """Decode polygons or run lengths (plain or compressed) into a mask.

    Args:
        segmentation: a list of polygons `[x, y, x, y, ...]`, or `{"counts", "size"}` with the
            lengths of runs of 0 and 1 down the columns.
        height: the height of the picture.
        width: the width of the picture.

    Raises:
        InputError: the segmentation is invalid or does not have the picture's size.
        MissingExtra: pycocotools is not installed.
    """
    try:
        if isinstance(segmentation, Mapping) and isinstance(segmentation["counts"], list):
            mask = _decode_runs(segmentation["counts"], *segmentation["size"])
        else:
            mask = _decode(segmentation, height, width)
    except (TypeError, ValueError, KeyError, IndexError) as error:
        raise InputError(
            f"a segment is not in COCO's format ({type(error).__name__}: {error}); it is a list "
            'of polygons or {"counts": ..., "size": [height, width]}'
        ) from error
    if mask.shape != (height, width):
        raise InputError(
            f"a segment of {mask.shape[1]}x{mask.shape[0]} pixels does not fit a picture of "
            f"{width}x{height}; use the annotations of this picture"
        )
    return mask


def _decode_runs(counts: Sequence[int], height: int, width: int) -> Segment:
    """Decode run lengths of zeros and ones, zeros first, in column-major order."""
    if sum(counts) != height * width or any(count < 0 for count in counts):
        raise ValueError(f"runs of {sum(counts)} pixels for {height * width}")
    values = np.arange(len(counts)) % 2 == 1
    return np.repeat(values, counts).reshape(width, height).T


def _decode(segmentation: Any, height: int, width: int) -> Segment:
    tools = _import_pycocotools()
    if isinstance(segmentation, Mapping):
        runs = dict(segmentation)
    else:
        # pycocotools would treat polygons of four numbers as boxes.
        polygons = [[float(n) for n in polygon] for polygon in segmentation]
        if not polygons or any(len(polygon) < 6 or len(polygon) % 2 for polygon in polygons):
            raise ValueError("a polygon needs three points or more")
        runs = tools.merge(tools.frPyObjects(polygons, height, width))
    return np.asarray(tools.decode(runs), dtype=bool)


def _import_pycocotools() -> Any:
    try:
        from pycocotools import mask
    except ImportError as error:
        raise MissingExtra(
            "COCO's polygons and compressed masks need pycocotools; pip install 'mmcam[evaluate]'"
        ) from error
    return mask
