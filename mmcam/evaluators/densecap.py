"""Does a captioner look where a region's description comes from? (ICCV section 7.1.)

DenseCap describes regions of a picture, each in a box; a captioner of whole pictures explains each
description. The measure is the mean activation inside the box over that outside: 1 for a uniform
map, more for a map that finds the box.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Bool

from mmcam.errors import EvaluationError
from mmcam.evaluators.maps import Map, positive, visible


def in_out_means(heatmap: Map, region: Bool[np.ndarray, "..."]) -> tuple[float, float]:
    """The mean of a map's positive part inside a region and outside it, over what was seen.

    Args:
        heatmap: the map.
        region: in its shape, or of one frame for all of a clip; `maps.box_region` makes one.

    Raises:
        EvaluationError: nothing was seen inside, or nothing outside, or the shapes do not fit.
    """
    values, seen = positive(heatmap)
    inside = visible(region, seen)
    outside = seen & ~inside
    if not outside.any():
        raise EvaluationError(
            "the region covers all that the model saw, so nothing is outside to compare with; "
            "leave this sample out"
        )
    return float(values[inside].mean()), float(values[outside].mean())


def in_out_ratio(heatmap: Map, region: Bool[np.ndarray, "..."]) -> float:
    """The mean activation inside a region over that outside it (ICCV section 7.1).

    Infinite where all activation is inside. Negative values count as no activation.

    Raises:
        EvaluationError: the map is empty, or as `in_out_means`.
    """
    inside, outside = in_out_means(heatmap, region)
    if inside == outside == 0:
        raise EvaluationError(
            "the map is empty: no positive value inside the region or outside it, so their ratio "
            "says nothing; leave this sample out"
        )
    return inside / outside if outside else math.inf
