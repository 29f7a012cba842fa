"""Helpers shared by the evaluators: maps with invisible cells, regions, rank correlation, grids.

A map is `[h w]`, or `[t h w]` for a clip, on the pixels of the original. NaN marks a pixel or frame
outside the model's input; all others are visible. All values are computed in double precision.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float

from mmcam.errors import EvaluationError

Map = Float[np.ndarray, "*_ _ _"]
Mask = Bool[np.ndarray, "*_ _ _"]
Box = tuple[float, float, float, float]
"""(left, top, right, bottom): edges, in pixels of the original."""


def read_map(heatmap: Map) -> tuple[Map, Mask]:
    """A map in double precision, and the mask of its visible cells.

    Raises:
        EvaluationError: the map is not `[h w]` or `[t h w]`, is empty, has infinite values, or has
            no visible cell.
    """
    if heatmap.ndim not in (2, 3) or not heatmap.size:
        raise EvaluationError(
            f"a map of shape {heatmap.shape} is empty, or neither [h w] (a picture) nor [t h w] "
            "(a clip); evaluate one map at a time"
        )
    values = heatmap.astype(np.float64)
    if np.isinf(values).any():
        raise EvaluationError(
            "the map has infinite values; use NaN for cells outside the model's input"
        )
    visible = ~np.isnan(values)
    if not visible.any():
        raise EvaluationError("the map is NaN everywhere; no cell is visible to the model")
    return values, visible


def read_region(region: Bool[np.ndarray, "..."], visible: Mask) -> Mask:
    """A region broadcast to the shape of a map; `[h w]` is repeated for every frame of a clip.

    Raises:
        EvaluationError: the shapes do not fit.
    """
    if region.shape not in (visible.shape, visible.shape[1:]) or region.ndim < 2:
        raise EvaluationError(
            f"a region of shape {region.shape} does not match a map of shape {visible.shape}; "
            "both must be on the pixels of the original"
        )
    mask: Mask = np.broadcast_to(region, visible.shape)
    return mask


def visible_part(region: Bool[np.ndarray, "..."], visible: Mask) -> Mask:
    """The visible part of a region, in the shape of the map.

    Raises:
        EvaluationError: the shapes do not fit, or the visible part is empty.
    """
    part: Mask = read_region(region, visible) & visible
    if not part.any():
        raise EvaluationError(
            "the region is empty inside the model's input, so no map can point at it; leave this "
            "sample out"
        )
    return part


def positive(heatmap: Map) -> tuple[Map, Mask]:
    """The positive part of a map, 0 where it is invisible, and the mask of its visible cells.

    Raises:
        EvaluationError: as `read_map`.
    """
    values, visible = read_map(heatmap)
    return np.where(visible, values, 0).clip(min=0), visible


def box_region(box: Box, size: tuple[int, int]) -> Bool[np.ndarray, "height width"]:
    """The pixels whose centres lie in a box, on a picture of `size` (height, width).

    Raises:
        EvaluationError: the box contains no pixel centre.
    """
    left, top, right, bottom = box
    rows, columns = (np.arange(side) + 0.5 for side in size)
    inside = np.outer((rows >= top) & (rows < bottom), (columns >= left) & (columns < right))
    if not inside.any():
        raise EvaluationError(
            f"the box {box} (left, top, right, bottom) holds no pixel centre of a picture of "
            f"{size[1]} x {size[0]} pixels; check the order of its numbers and the picture's size"
        )
    return inside


def average_ranks(values: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Ranks from 1; tied values get their mean rank."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts).astype(np.float64)
    ranks: Float[np.ndarray, " n"] = (last - (counts - 1) / 2)[inverse]
    return ranks


def pearson(first: Float[np.ndarray, " n"], second: Float[np.ndarray, " n"]) -> float:
    """Pearson correlation in [-1, 1]; 0 if either input is constant."""
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return 0.0
    first, second = (v - v.mean() for v in (first, second))
    first, second = (v / np.linalg.norm(v) for v in (first, second))
    return float((first @ second).clip(-1, 1))


def spearman(first: Float[np.ndarray, "..."], second: Float[np.ndarray, "..."]) -> float:
    """Spearman's rank correlation over the cells visible in both maps, in [-1, 1].

    Ties get their mean rank. The correlation is 0 if either map is constant over these cells.

    Raises:
        EvaluationError: fewer than two such cells, or shapes that differ.
    """
    if first.shape != second.shape:
        raise EvaluationError(
            f"maps of shapes {first.shape} and {second.shape} have different cells; resample "
            "both to one grid"
        )
    both = ~(np.isnan(first) | np.isnan(second))
    if both.sum() < 2:
        raise EvaluationError(
            f"{int(both.sum())} cells are visible in both maps; a rank correlation needs two"
        )
    return pearson(
        average_ranks(first[both].astype(np.float64)),
        average_ranks(second[both].astype(np.float64)),
    )


def to_cells(heatmap: Map, cells: tuple[int, ...]) -> Float[np.ndarray, "*cells"]:
    """The mean of a map over the visible part of each cell of a grid; NaN if a cell has none.

    `cells` is the number of cells along each axis. A pixel that lies in several cells counts in
    each by its overlap.

    Raises:
        EvaluationError: as `read_map`, or a different number of axes.
    """
    values, visible = read_map(heatmap)
    if len(cells) != values.ndim:
        raise EvaluationError(
            f"a map of shape {heatmap.shape} cannot be averaged over a grid of {cells}: their "
            "numbers of axes differ"
        )
    # Subtracting the lowest value keeps a constant map constant to the last bit.
    lowest = values[visible].min()
    total, area = np.where(visible, values - lowest, 0), visible.astype(np.float64)
    for axis, count in enumerate(cells):
        overlaps = _overlaps(values.shape[axis], count)
        total, area = (
            np.moveaxis(np.tensordot(overlaps, part, (1, axis)), 0, axis) for part in (total, area)
        )
    means: Float[np.ndarray, "..."] = np.full(cells, np.nan)
    np.divide(total, area, out=means, where=area > 1e-9)
    means += lowest
    return means


def _overlaps(length: int, count: int) -> Float[np.ndarray, "{count} {length}"]:
    """The overlap of each of `length` pixels with each of `count` equal cells."""
    edges = np.linspace(0, length, count + 1)
    pixels = np.arange(length)
    ends = np.minimum(edges[1:, None], pixels + 1)
    overlaps: Float[np.ndarray, "..."] = (ends - np.maximum(edges[:-1, None], pixels)).clip(min=0)
    return overlaps
