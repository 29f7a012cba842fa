"""What all evaluators share: reading a map with its unseen cells, regions over it, ranks.

A map is `[h w]`, or `[t h w]` for a clip, on the pixels of the original. NaN says that the model
did not see a pixel or frame. Everything is computed in double precision.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int

from mmcam.errors import EvaluationError

Map = Float[np.ndarray, "*_ _ _"]
Mask = Bool[np.ndarray, "*_ _ _"]
Box = tuple[float, float, float, float]
"""(left, top, right, bottom): edges, in pixels of the original."""


def read(heatmap: Map) -> tuple[Map, Mask]:
    """A map in double precision, and which of its cells the model saw.

    Raises:
        EvaluationError: no picture or clip, infinite values, or nothing seen.
    """
    if heatmap.ndim not in (2, 3) or not heatmap.size:
        raise EvaluationError(
            f"a map of shape {heatmap.shape} is none of a picture [h w] or a clip [t h w]; "
            "evaluate one map at a time"
        )
    values = heatmap.astype(np.float64)
    if np.isinf(values).any():
        raise EvaluationError("the map has infinite values; NaN alone says that nothing was seen")
    seen = ~np.isnan(values)
    if not seen.any():
        raise EvaluationError("the map is NaN everywhere; the model saw nothing of this sample")
    return values, seen


def read_region(region: Bool[np.ndarray, "..."], seen: Mask) -> Mask:
    """A region in the shape of a map; one of a picture is taken for every frame of a clip.

    Raises:
        EvaluationError: the shapes do not fit.
    """
    if region.shape not in (seen.shape, seen.shape[1:]) or region.ndim < 2:
        raise EvaluationError(
            f"a region of shape {region.shape} does not lie over a map of shape {seen.shape}; "
            "both must be on the pixels of the original"
        )
    whole: Mask = np.broadcast_to(region, seen.shape)
    return whole


def visible(region: Bool[np.ndarray, "..."], seen: Mask) -> Mask:
    """The part of a region that the model saw, in the shape of the map.

    Raises:
        EvaluationError: the shapes do not fit, or there is no such part.
    """
    part: Mask = read_region(region, seen) & seen
    if not part.any():
        raise EvaluationError(
            "the region is empty where the model saw the sample, so no map can point at it; "
            "leave this sample out"
        )
    return part


def positive(heatmap: Map) -> tuple[Map, Mask]:
    """The positive part of a map, 0 where it is unseen, and which cells were seen.

    Raises:
        EvaluationError: as `read`.
    """
    values, seen = read(heatmap)
    return np.where(seen, values, 0).clip(min=0), seen


def box_region(box: Box, size: tuple[int, int]) -> Bool[np.ndarray, "height width"]:
    """The pixels whose middles lie in a box, of a picture of `size` (height, width).

    Raises:
        EvaluationError: the box holds none.
    """
    left, top, right, bottom = box
    rows, columns = (np.arange(side) + 0.5 for side in size)
    inside = np.outer((rows >= top) & (rows < bottom), (columns >= left) & (columns < right))
    if not inside.any():
        raise EvaluationError(
            f"the box {box} (left, top, right, bottom) holds no pixel of a picture {size[1]} wide "
            f"and {size[0]} high; check the order of its numbers and the size it was made for"
        )
    return inside


def average_ranks(values: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Ranks from 1; equal values share the mean of theirs."""
    _, which, times = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(times).astype(np.float64)
    ranks: Float[np.ndarray, " n"] = (last - (times - 1) / 2)[which]
    return ranks


def pearson(first: Float[np.ndarray, " n"], second: Float[np.ndarray, " n"]) -> float:
    """Pearson correlation in [-1, 1]; 0 where either is constant, as it orders nothing."""
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return 0.0
    first, second = (v - v.mean() for v in (first, second))
    first, second = (v / np.linalg.norm(v) for v in (first, second))
    return float((first @ second).clip(-1, 1))


def spearman(first: Float[np.ndarray, "..."], second: Float[np.ndarray, "..."]) -> float:
    """Spearman's rank correlation over the cells where both maps were seen, in [-1, 1].

    Ties share their mean rank. It is 0 where either map is constant there.

    Raises:
        EvaluationError: fewer than two such cells, or shapes that differ.
    """
    if first.shape != second.shape:
        raise EvaluationError(
            f"maps of shapes {first.shape} and {second.shape} have no cells in common; bring both "
            "to one grid"
        )
    both = ~(np.isnan(first) | np.isnan(second))
    if both.sum() < 2:
        raise EvaluationError(
            f"{int(both.sum())} cells were seen in both maps; a rank correlation needs two"
        )
    return pearson(
        average_ranks(first[both].astype(np.float64)),
        average_ranks(second[both].astype(np.float64)),
    )


def to_cells(heatmap: Map, cells: tuple[int, ...]) -> Float[np.ndarray, "*cells"]:
    """A map as means over a grid of cells, each over its seen part; NaN where nothing was seen.

    A pixel that lies across an edge counts in each cell with the share that lies in it.

    Raises:
        EvaluationError: as `read`, or another number of axes.
    """
    values, seen = read(heatmap)
    if len(cells) != values.ndim:
        raise EvaluationError(
            f"a map of shape {heatmap.shape} cannot be brought to a grid of {cells}: their numbers "
            "of axes differ"
        )
    # Relative to the lowest value, so that a constant map stays constant to the last bit.
    lowest = values[seen].min()
    total, area = np.where(seen, values - lowest, 0), seen.astype(np.float64)
    for axis, count in enumerate(cells):
        shares = _overlaps(values.shape[axis], count)
        total, area = (
            np.moveaxis(np.tensordot(shares, part, (1, axis)), 0, axis) for part in (total, area)
        )
    means: Float[np.ndarray, "..."] = np.full(cells, np.nan)
    np.divide(total, area, out=means, where=area > 1e-9)
    means += lowest
    return means


def _overlaps(length: int, count: int) -> Float[np.ndarray, "{count} {length}"]:
    """How much of each of `length` pixels lies in each of `count` equal cells over them."""
    edges = np.linspace(0, length, count + 1)
    pixels = np.arange(length)
    last = np.minimum(edges[1:, None], pixels + 1)
    shares: Float[np.ndarray, "..."] = (last - np.maximum(edges[:-1, None], pixels)).clip(min=0)
    return shares


def nearest_to(cells: Int[np.ndarray, "n axes"], place: Float[np.ndarray, " axes"]) -> int:
    """Which of some cells is nearest to a place; the first of several."""
    return int(((cells - place) ** 2).sum(1).argmin())
