"""Localization of objects: boxes from maps and their errors, and overlaps without boxes.

Grad-CAM (ICCV 2017, section 4.1): the box around the largest segment, after ILSVRC's rules.
Grad-CAM++ section 4.3: Loc, eq. 26. Also the overlap of a thresholded map with a segmentation.

All metrics are computed on the original: cells outside the model's input are never highlighted, but
ground truth there counts.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int

from mmcam.errors import EvaluationError
from mmcam.evaluators.maps import Box, Map, Mask, box_region, positive, read_map, read_region

THRESHOLD = 0.15
"""The fraction of the maximum above which ICCV section 4.1 keeps a pixel."""

LOC_THRESHOLDS = (0.0, 0.25, 0.5)
"""The thresholds of Grad-CAM++'s table 3."""


def highlighted(heatmap: Map, threshold: float = THRESHOLD) -> Mask:
    """The visible cells above a fraction of the map's maximum; none for an empty map.

    Raises:
        EvaluationError: as `maps.read_map`.
    """
    values, _ = positive(heatmap)
    above: Mask = values > threshold * values.max()
    return above


def segments(mask: Bool[np.ndarray, "*grid"]) -> Int[np.ndarray, "*grid"]:
    """The connected components of a mask, numbered from 1 in reading order; 0 outside.

    Cells that share a face, an edge or a corner are connected, as in OpenCV's contours, from which
    boxes of class activation maps are usually computed.
    """
    indices = np.arange(mask.size).reshape(mask.shape)
    pairs = []
    for offset in itertools.product((-1, 0, 1), repeat=mask.ndim):
        if offset <= (0,) * mask.ndim:  # each pair of neighbours only once
            continue
        source = tuple(
            slice(max(-o, 0), n - max(o, 0)) for o, n in zip(offset, mask.shape, strict=True)
        )
        neighbour = tuple(
            slice(max(o, 0), n - max(-o, 0)) for o, n in zip(offset, mask.shape, strict=True)
        )
        both = mask[source] & mask[neighbour]
        pairs.append(np.stack([indices[source][both], indices[neighbour][both]]))
    first, second = np.concatenate(pairs, axis=1)
    root = np.arange(mask.size)
    while True:
        left, right = root[first], root[second]
        differ = left != right
        if not differ.any():
            break
        first, second, left, right = (a[differ] for a in (first, second, left, right))
        np.minimum.at(root, np.maximum(left, right), np.minimum(left, right))
        while (root[root] != root).any():
            root = root[root]
    labels = np.zeros(mask.size, dtype=np.int64)
    inside = mask.ravel()
    labels[inside] = np.unique(root[inside], return_inverse=True)[1] + 1
    return labels.reshape(mask.shape)


def bounding_box(heatmap: Map, threshold: float = THRESHOLD) -> Box | None:
    """The box around the largest segment above a fraction of the maximum (ICCV section 4.1).

    If several segments are largest, the first one is taken. For a clip, the box encloses the
    segment in all its frames.

    Returns:
        (left, top, right, bottom), the edges of its pixels; None for an empty map.

    Raises:
        EvaluationError: as `highlighted`.
    """
    labels = segments(highlighted(heatmap, threshold))
    if not labels.any():
        return None
    largest = 1 + int(np.bincount(labels.ravel())[1:].argmax())
    rows, columns = np.nonzero(labels == largest)[-2:]
    left, top = float(columns.min()), float(rows.min())
    return (left, top, columns.max() + 1.0, rows.max() + 1.0)


def box_iou(first: Box, second: Box) -> float:
    """The intersection over union of two boxes; 0 if they have no area."""
    sides = [
        max(min(first[axis + 2], second[axis + 2]) - max(first[axis], second[axis]), 0)
        for axis in (0, 1)
    ]
    intersection = sides[0] * sides[1]
    union = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (first, second)) - intersection
    return intersection / union if union > 0 else 0.0


def localization_error(
    predictions: Sequence[tuple[object, Map]],
    label: object,
    boxes: Sequence[Box],
    *,
    threshold: float = THRESHOLD,
    overlap: float = 0.5,
) -> bool:
    """Whether none of a sample's predictions has the right label and a box on the object.

    ILSVRC's localization error, as in ICCV section 4.1: top-1 for one prediction, top-5 for five. A
    box is right if its overlap with any of the label's boxes is `overlap` or more; an empty map has
    no box and counts as an error.

    Args:
        predictions: the predicted labels, each with its map.
        label: the true label.
        boxes: the boxes of all objects with that label.
        threshold: as in `bounding_box`.
        overlap: the smallest intersection over union of a right box.

    Raises:
        EvaluationError: no predictions, no boxes, or as `highlighted`.
    """
    if not predictions:
        raise EvaluationError("there are no predictions to localize; give one (top-1) or five")
    _check_boxes(boxes)
    for predicted, heatmap in predictions:
        if predicted == label:
            predicted_box = bounding_box(heatmap, threshold)
            if predicted_box and any(box_iou(predicted_box, box) >= overlap for box in boxes):
                return False
    return True


def loc(heatmap: Map, boxes: Sequence[Box], threshold: float = 0.0) -> float:
    """Grad-CAM++'s Loc (eq. 26): pixels inside / (area of the boxes + pixels outside).

    The map is min-max scaled over its visible cells; pixels above `threshold` count. The paper
    counts the non-zero pixels of the map times the picture, so black pixels of a picture never
    count; here they do. Several boxes are merged into their union. A constant map has no pixel
    above the threshold and scores 0.

    Returns:
        In [0, 1].

    Raises:
        EvaluationError: no boxes, a box that contains no pixel centre of the picture, or as
            `highlighted`.
    """
    values, visible = read_map(heatmap)
    _check_boxes(boxes)
    low, high = values[visible].min(), values[visible].max()
    above = np.zeros(values.shape, dtype=bool)
    if high > low:
        above[visible] = (values[visible] - low) / (high - low) > threshold
    size = values.shape[-2], values.shape[-1]
    inside = np.any([box_region(box, size) for box in boxes], axis=0)
    area = np.broadcast_to(inside, values.shape).sum()
    return float((above & inside).sum() / (area + (above & ~inside).sum()))


def segmentation_iou(
    heatmap: Map, region: Bool[np.ndarray, "..."], threshold: float = THRESHOLD
) -> float:
    """The IoU of a segmentation and the cells above a fraction of the maximum, in [0, 1].

    Raises:
        EvaluationError: an empty region, shapes that do not fit, or as `highlighted`.
    """
    above = highlighted(heatmap, threshold)
    region = read_region(region, above)
    if not region.any():
        raise EvaluationError("the segmentation is empty; leave this sample out")
    return float((above & region).sum() / (above | region).sum())


def _check_boxes(boxes: Sequence[Box]) -> None:
    if not boxes:
        raise EvaluationError("the sample has no box for its label; leave the sample out")
