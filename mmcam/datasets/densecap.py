"""DenseCap's results: descriptions of regions of a picture, each in a box."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from mmcam.datasets.items import WHOLE, Item, Region, Rows
from mmcam.errors import InputError
from mmcam.evaluators.maps import Box
from mmcam.media.images import opened

IMAGE_SIZE = 720
"""The longer side of the pictures that DenseCap resizes to, unless told otherwise."""


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


def read_densecap_results(
    path: Path, *, images: str | None = None, count: str = "5", side: str | None = None
) -> Rows:
    """DenseCap's descriptions of regions, an item each: the text to explain and its box.

    Args:
        path: the `results.json` that DenseCap writes.
        images: the folder of pictures; that of the file when None.
        count: how many descriptions of each picture, the best first; `all` for all.
        side: the longer side of the resized pictures, where the file does not say it.

    Raises:
        InputError: it cannot be read.
    """
    most = None if count == "all" else int(count)
    found = read_densecap(path, most, float(side) if side else None)
    rows = [(number, one) for ones in found.values() for number, one in enumerate(ones)]
    return Rows(rows, partial(_described, Path(images) if images else path.parent), f"{path}")


def _described(where: Path, row: tuple[int, Description]) -> Item:
    number, one = row
    source = where / one.picture
    with opened(source) as image:
        size = image.size[1], image.size[0]
    return Item(
        id=f"{one.picture}#{number}",
        source=str(source),
        text=one.caption,
        regions={WHOLE: Region(boxes=(one.box_on(size),))},
        group=one.picture,
    )
