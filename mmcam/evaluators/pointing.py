"""The pointing game: whether the maximum of a map lies on the explained object.

Three variants: with a tolerance (Zhang et al. 2016, section 4.1); with the option to reject a label
(IJCV section 4.3 and appendix D); and the words of a caption against COCO's segmentations (IJCV
section 8.1.1). IJCV is the Grad-CAM paper, Selvaraju et al. 2020.

A map without a positive value has no maximum and is a miss. Of several equal maxima, the one
nearest to their mean position counts. Pixels outside the model's input are NaN in a map and not
part of a region.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isqrt
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool

from mmcam.errors import EvaluationError, nearest
from mmcam.evaluators.maps import Map, Mask, positive, read_map, visible_part
from mmcam.grids import maximum_cell

TOLERANCE = 15
"""The margin of Zhang et al. 2016, in pixels."""


class PointingResult(NamedTuple):
    """The maximum of a predicted label's map, and whether it lies on the label's region.

    `present` tells whether the label is in the sample's ground truth.
    """

    maximum: float
    hit: bool
    present: bool


def peak(heatmap: Map) -> tuple[int, ...] | None:
    """The cell (row, column) or (frame, row, column) of a map's maximum.

    None if no value is positive.

    Raises:
        EvaluationError: as `maps.read_map`.
    """
    values, _ = positive(heatmap)
    return maximum_cell(values) if values.any() else None


def pointing_game(
    heatmap: Map, region: Bool[np.ndarray, "..."], tolerance: float = TOLERANCE
) -> bool:
    """Whether the maximum of a map lies in a region, or at most `tolerance` pixels from it.

    Distances are between pixel centres, within one frame of a clip (Zhang et al. 2016, section
    4.1). Dataset accuracy is hits / (hits + misses).

    Args:
        heatmap: the map.
        region: the union of the label's instances, in the shape of the map or of one frame.
        tolerance: in pixels of the original picture or frame.

    Raises:
        EvaluationError: no part of the region is visible, the shapes do not fit, or as
            `maps.read_map`.
    """
    _, visible = read_map(heatmap)
    region_part = visible_part(region, visible)
    cell = peak(heatmap)
    return cell is not None and _is_within(region_part, cell, tolerance)


def pointing_or_rejecting(
    heatmap: Map,
    region: Bool[np.ndarray, "..."] | None,
    threshold: float,
    tolerance: float = TOLERANCE,
    maximum: float | None = None,
) -> bool:
    """The pointing game of a predicted label that may be wrong, with the option to reject it.

    A map whose maximum is below `threshold` rejects its label. Rejecting is a hit if the label is
    absent and a miss if it is present; a map that does not reject is a hit only if its peak lies on
    the label's region (IJCV section 4.3 and appendix D, over the top five predictions).

    Args:
        heatmap: the map of the predicted label.
        region: the label's instances; None if the label is absent.
        threshold: in units of the raw map, that is, before any normalisation.
        tolerance: in pixels of the original picture or frame.
        maximum: the raw map's maximum, if `heatmap` is normalised by it.

    Raises:
        EvaluationError: as `pointing_game`.
    """
    values, _ = positive(heatmap)
    rejects = (values.max() if maximum is None else maximum) < threshold
    if region is None:
        return bool(rejects)
    return pointing_game(heatmap, region, tolerance) and not rejects


def rejection_threshold(results: Sequence[PointingResult]) -> float:
    """The threshold with the most hits of `pointing_or_rejecting` over the given predictions.

    Appendix D of IJCV chooses a threshold per method and does not describe how. If several
    thresholds are best, the lowest is returned. Choose the threshold on samples other than the
    evaluated ones.

    Raises:
        EvaluationError: there are no predictions.
    """
    if not results:
        raise EvaluationError(
            "there are no predictions to choose a threshold from; give one or more"
        )
    rows = sorted(results)
    maxima = np.array([row.maximum for row in rows])
    # Threshold k rejects the k lowest maps; maps with equal maxima are rejected together.
    hits = np.array([row.hit and row.present for row in rows], dtype=np.int64)
    absent = np.array([not row.present for row in rows], dtype=np.int64)
    hits_if_rejected = np.concatenate([[0], np.cumsum(absent)])
    hits_if_kept = np.concatenate([np.cumsum(hits[::-1])[::-1], [0]])
    thresholds = np.concatenate([maxima, [np.nextafter(maxima[-1], np.inf)]])
    is_new_threshold = np.concatenate([[True], np.diff(thresholds) > 0])
    best = int(np.where(is_new_threshold, hits_if_rejected + hits_if_kept, -1).argmax())
    return float(thresholds[best])


def word_pointing(
    heatmap: Map,
    regions: Mapping[str, Bool[np.ndarray, "..."]],
    category: str,
    tolerance: float = 0,
) -> bool:
    """Whether a word's map has its maximum on its category's segments (IJCV section 8.1.1).

    The paper gives no tolerance for words and counts a point within the segmentation; so does the
    default.

    Args:
        heatmap: the map of one word.
        regions: for each category of the sample, the union of its instances.
        category: the word's category (`coco_words.WordTable`).
        tolerance: in pixels of the original picture or frame.

    Raises:
        EvaluationError: the sample has no such category, or as `pointing_game`.
    """
    if category not in regions:
        raise EvaluationError(
            f"the sample has no segment of '{category}'; it has: {nearest(category, regions, 5)}. "
            "Only words whose category is present can be evaluated"
        )
    return pointing_game(heatmap, regions[category], tolerance)


def chance(heatmap: Map, region: Bool[np.ndarray, "..."], tolerance: float = 0) -> float:
    """The probability that a random visible point is a hit: the region's share of the visible area.

    The region is dilated by the tolerance. Of the map, only the NaNs are used.

    Raises:
        EvaluationError: as `pointing_game`.
    """
    _, visible = read_map(heatmap)
    dilated = _dilate(visible_part(region, visible), tolerance) & visible
    return float(dilated.sum() / visible.sum())


def centre_pointing(
    heatmap: Map, region: Bool[np.ndarray, "..."], tolerance: float = TOLERANCE
) -> bool:
    """Whether the centre of the visible area is a hit. Of the map, only the NaNs are used.

    Raises:
        EvaluationError: as `pointing_game`.
    """
    # All visible cells are equal maxima, and the one nearest to their mean position counts.
    return pointing_game(np.where(np.isnan(heatmap), np.nan, 1.0), region, tolerance)


def energy_inside(heatmap: Map, region: Bool[np.ndarray, "..."]) -> float:
    """The share of the sum of a map's positive values that lies in a region; 0 if there are none.

    The energy-based pointing game (Wang et al. 2020, Score-CAM, section 4.3). A uniform map scores
    the value of `chance`.

    Raises:
        EvaluationError: as `pointing_game`.
    """
    values, visible = positive(heatmap)
    region_part = visible_part(region, visible)
    total = values.sum()
    return float(values[region_part].sum() / total) if total else 0.0


def _is_within(region: Mask, cell: tuple[int, ...], tolerance: float) -> bool:
    frame = region[cell[:-2]]
    row, column = cell[-2:]
    reach = int(tolerance)
    top, left = max(row - reach, 0), max(column - reach, 0)
    window = frame[top : row + reach + 1, left : column + reach + 1]
    rows, columns = np.nonzero(window)
    squared_distances = (rows + top - row) ** 2 + (columns + left - column) ** 2
    return bool((squared_distances <= tolerance**2).any())


def _dilate(region: Mask, tolerance: float) -> Mask:
    """All pixels at a distance of at most `tolerance` from a region, frame by frame."""
    height, width = region.shape[-2:]
    dilated = region.copy()
    columns = np.arange(width)
    # The difference of two counts is the number of region pixels between two columns.
    counts = np.zeros((*region.shape[:-1], width + 1), dtype=np.int64)
    counts[..., 1:] = np.cumsum(region, axis=-1)
    max_shift = min(int(tolerance), height - 1)
    for shift in range(-max_shift, max_shift + 1):
        reach = isqrt(int(tolerance**2) - shift**2)
        first, last = (columns - reach).clip(min=0), (columns + reach + 1).clip(max=width)
        within_reach = counts[..., last] > counts[..., first]
        # Each row takes the columns within reach of the row `shift` above it.
        above, below = max(shift, 0), max(-shift, 0)
        dilated[..., above : height - below, :] |= within_reach[..., below : height - above, :]
    return dilated
