"""Does a captioner look where a region's description comes from? (ICCV section 7.1.)

DenseCap describes regions of a picture, each in a box; a captioner of whole pictures explains each
description. The measure is the mean activation inside the box over that outside: 1 for a uniform
map, more for a map that finds the box.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool

from mmcam.errors import EvaluationError, InputError
from mmcam.evaluators.maps import Box, Map, positive, visible

IMAGE_SIZE = 720
"""The longer side of the pictures that DenseCap resizes to, unless told otherwise."""


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


@dataclass(frozen=True, kw_only=True)
class Description:
    """One region of a picture as DenseCap gives it.

    `box` is in pixels of the picture after it was resized to `longer_side`.
    """

    picture: str
    caption: str
    box: Box
    score: float | None
    longer_side: float

    def box_on(self, size: tuple[int, int]) -> Box:
        """The box on the original picture of `size` (height, width), cut at its edges."""
        height, width = size
        scale = max(size) / self.longer_side
        left, top, right, bottom = (edge * scale for edge in self.box)
        return (max(left, 0), max(top, 0), min(right, width), min(bottom, height))


def read_densecap(
    path: str | Path, count: int | None = 5, image_size: float | None = None
) -> dict[str, list[Description]]:
    """DenseCap's results: for each picture its descriptions, the best first.

    Args:
        path: the `results.json` that DenseCap writes for its viewer: `results`, each with
            `img_name`, `captions`, `boxes` as (left, top, width, height) and maybe `scores`.
        count: how many of each picture, 5 in the papers; all when None.
        image_size: the longer side of the resized pictures; as the file's `opt` says when None.

    Raises:
        InputError: the file cannot be read or holds something else.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        side = image_size or (content.get("opt") or {}).get("image_size", IMAGE_SIZE)
        return {
            row["img_name"]: sorted(_descriptions(row, side), key=_worst_last)[:count]
            for row in content["results"]
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path} holds no results of DenseCap ({type(error).__name__}: {error}); name the "
            "results.json that its run_model.lua writes"
        ) from error


def _descriptions(row: Any, side: float) -> Iterator[Description]:
    scores = row.get("scores") or [None] * len(row["captions"])
    for caption, box, score in zip(row["captions"], row["boxes"], scores, strict=True):
        left, top, width, height = map(float, box)
        yield Description(
            picture=str(row["img_name"]),
            caption=str(caption),
            box=(left, top, left + width, top + height),
            score=None if score is None else float(score),
            longer_side=float(side),
        )


def _worst_last(description: Description) -> float:
    return 0.0 if description.score is None else -description.score
