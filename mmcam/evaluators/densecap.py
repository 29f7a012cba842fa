"""Localization of region descriptions by a whole-image captioner.

The protocol of Grad-CAM (ICCV 2017, section 7.1). DenseCap describes regions of a picture, each in
a box; the captioner's maps explain each description. The measure is the mean activation inside the
box divided by the mean outside: 1 for a uniform map, higher for a map that localizes the box.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Bool

from mmcam.errors import EvaluationError
from mmcam.evaluators.maps import Map, positive, visible_part


def in_out_means(heatmap: Map, region: Bool[np.ndarray, "..."]) -> tuple[float, float]:
    """The means of a map's positive part over the visible cells inside and outside a region.

    Args:
        heatmap: the map.
        region: in the map's shape, or in that of one frame, for all frames of a clip; see
            `maps.box_region`.

    Raises:
        EvaluationError: no visible cell inside, or none outside, the shapes do not fit, or as
            `maps.read_map`.
    """
    values, visible = positive(heatmap)
    inside = visible_part(region, visible)
    outside = visible & ~inside
    if not outside.any():
        raise EvaluationError(
            "the region covers the whole input of the model, so nothing is outside to compare "
            "with; leave this sample out"
        )
    return float(values[inside].mean()), float(values[outside].mean())


def in_out_ratio(heatmap: Map, region: Bool[np.ndarray, "..."]) -> float:
    """The mean activation inside a region divided by the mean outside it (Grad-CAM, section 7.1).

    Infinite if all activation is inside. Negative values count as no activation.

    Raises:
        EvaluationError: the map is empty, or as `in_out_means`.
    """
    inside, outside = in_out_means(heatmap, region)
    if inside == outside == 0:
        raise EvaluationError(
            "the map is empty: no positive value inside the region or outside it, so their ratio "
            "is undefined; leave this sample out"
        )
    return inside / outside if outside else math.inf
