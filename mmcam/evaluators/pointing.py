"""The pointing game: does the highest point of a map lie on what it should explain?

Zhang et al. 2016, section 4.1, with a tolerance; IJCV section 4.3 and appendix D, with the choice
to reject; IJCV section 8.1.1, the words of a caption against COCO's segmentations.

A map without a positive value points nowhere, which is a miss. Of several equal maxima, the one
nearest to their middle counts. Unseen pixels are no part of a region.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isqrt
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool

from mmcam.errors import EvaluationError, nearest
from mmcam.evaluators.maps import Map, Mask, nearest_to, positive, read, visible

TOLERANCE = 15
"""The margin of Zhang et al. 2016, in pixels."""


class Pointed(NamedTuple):
    """One prediction's map: its highest value, whether that lies on the label, whether it is true.

    `present` says whether the label is among the sample's ground truth.
    """

    maximum: float
    hit: bool
    present: bool


def peak(heatmap: Map) -> tuple[int, ...] | None:
    """The cell (row, column) or (frame, row, column) where a map is highest; None if it is empty.

    Raises:
        EvaluationError: a map with infinite values, or with nothing seen.
    """
    values, _ = positive(heatmap)
    highest = values.max()
    if highest == 0:
        return None
    tied = np.argwhere(values == highest)
    return tuple(map(int, tied[nearest_to(tied, tied.mean(0))]))


def pointing_game(
    heatmap: Map, region: Bool[np.ndarray, "..."], tolerance: float = TOLERANCE
) -> bool:
    """Whether the highest point of a map lies in a region, or at most `tolerance` pixels from it.

    Distances are between middles of pixels, within one frame of a clip (Zhang et al. 2016, section
    4.1). Dataset accuracy is hits / (hits + misses).

    Args:
        heatmap: the map.
        region: the union of the label's instances, in the shape of the map or of one frame.
        tolerance: in pixels of the original.

    Raises:
        EvaluationError: nothing of the region was seen, or the shapes do not fit.
    """
    _, seen = read(heatmap)
    part = visible(region, seen)
    at = peak(heatmap)
    return at is not None and _near(part, at, tolerance)


def pointing_or_rejecting(
    heatmap: Map,
    region: Bool[np.ndarray, "..."] | None,
    threshold: float,
    tolerance: float = TOLERANCE,
    maximum: float | None = None,
) -> bool:
    """The pointing game of a predicted label that may be wrong, with the choice to reject it.

    A map whose maximum is below `threshold` rejects its label. That is a hit where the label is
    absent and a miss where it is present; a map that does not reject is a hit only where its peak
    lies on the label (IJCV section 4.3 and appendix D, over the top five predictions).

    Args:
        heatmap: the map of the predicted label.
        region: the label's instances; None where it is absent.
        threshold: in units of the raw map.
        tolerance: in pixels of the original.
        maximum: the raw map's maximum, where `heatmap` holds shares of it.

    Raises:
        EvaluationError: as `pointing_game`.
    """
    values, _ = positive(heatmap)
    rejects = (values.max() if maximum is None else maximum) < threshold
    if region is None:
        return bool(rejects)
    return pointing_game(heatmap, region, tolerance) and not rejects


def rejection_threshold(pointed: Sequence[Pointed]) -> float:
    """The threshold with the most hits of `pointing_or_rejecting` over some predictions.

    Appendix D chooses one for each method and does not say how. The lowest of the best is taken;
    choose it on other samples than those it is used on.

    Raises:
        EvaluationError: there are no predictions.
    """
    if not pointed:
        raise EvaluationError("there are no predictions to choose a threshold from; give some")
    rows = sorted(pointed)
    maxima = np.array([row.maximum for row in rows])
    # Threshold k rejects the k lowest maps; equal maxima go together.
    wins = np.array([row.hit and row.present for row in rows], dtype=np.int64)
    right = np.array([not row.present for row in rows], dtype=np.int64)
    rejected = np.concatenate([[0], np.cumsum(right)])
    kept = np.concatenate([np.cumsum(wins[::-1])[::-1], [0]])
    thresholds = np.concatenate([maxima, [np.nextafter(maxima[-1], np.inf)]])
    possible = np.concatenate([[True], np.diff(thresholds) > 0])
    best = int(np.where(possible, rejected + kept, -1).argmax())
    return float(thresholds[best])


def word_pointing(
    heatmap: Map,
    regions: Mapping[str, Bool[np.ndarray, "..."]],
    category: str,
    tolerance: float = 0,
) -> bool:
    """Whether a word's map is highest on the union of its category's segments (IJCV section 8.1.1).

    The paper names no tolerance there and counts a point within the segmentation; so does this.

    Args:
        heatmap: the map of one word.
        regions: for each category of the sample, the union of its instances.
        category: the word's category (`coco_words.WordTable`).
        tolerance: in pixels of the original.

    Raises:
        EvaluationError: the sample has no such category, or as `pointing_game`.
    """
    if category not in regions:
        raise EvaluationError(
            f"the sample has no segment of '{category}'; it has: {nearest(category, regions, 5)}. "
            "Only words whose category is there can be judged"
        )
    return pointing_game(heatmap, regions[category], tolerance)


def chance(heatmap: Map, region: Bool[np.ndarray, "..."], tolerance: float = 0) -> float:
    """How often a random point of what the model saw is a hit: the region's share of the area.

    With a tolerance the share of the region grown by it. The map says only what was seen.

    Raises:
        EvaluationError: as `pointing_game`.
    """
    _, seen = read(heatmap)
    grown = _grow(visible(region, seen), tolerance) & seen
    return float(grown.sum() / seen.sum())


def centre_pointing(
    heatmap: Map, region: Bool[np.ndarray, "..."], tolerance: float = TOLERANCE
) -> bool:
    """Whether the middle of what the model saw is a hit. The map says only what was seen.

    Raises:
        EvaluationError: as `pointing_game`.
    """
    return pointing_game(np.where(np.isnan(heatmap), np.nan, 1.0), region, tolerance)


def energy_inside(heatmap: Map, region: Bool[np.ndarray, "..."]) -> float:
    """The share of a map's positive values that lies in a region, in [0, 1]; 0 for an empty map.

    The energy-based pointing game (Wang et al. 2020, Score-CAM, section 4.3). A uniform map scores
    what `chance` says.

    Raises:
        EvaluationError: as `pointing_game`.
    """
    values, seen = positive(heatmap)
    part = visible(region, seen)
    total = values.sum()
    return float(values[part].sum() / total) if total else 0.0


def _near(region: Mask, at: tuple[int, ...], tolerance: float) -> bool:
    frame = region[at[:-2]]
    row, column = at[-2:]
    reach = int(tolerance)
    top, left = max(row - reach, 0), max(column - reach, 0)
    around = frame[top : row + reach + 1, left : column + reach + 1]
    rows, columns = np.nonzero(around)
    far = (rows + top - row) ** 2 + (columns + left - column) ** 2
    return bool((far <= tolerance**2).any())


def _grow(region: Mask, tolerance: float) -> Mask:
    """All pixels at most `tolerance` from a region, frame by frame."""
    height, width = region.shape[-2:]
    grown = region.copy()
    columns = np.arange(width)
    # How many pixels of the region lie left of each column says whether any lies within reach.
    counts = np.zeros((*region.shape[:-1], width + 1), dtype=np.int64)
    counts[..., 1:] = np.cumsum(region, axis=-1)
    most = min(int(tolerance), height - 1)
    for down in range(-most, most + 1):
        reach = isqrt(int(tolerance**2) - down**2)
        first, last = (columns - reach).clip(min=0), (columns + reach + 1).clip(max=width)
        near = counts[..., last] > counts[..., first]
        above, below = max(down, 0), max(-down, 0)
        grown[..., above : height - below, :] |= near[..., below : height - above, :]
    return grown
