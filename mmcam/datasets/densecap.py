"""Read DenseCap's results: descriptions of regions of a picture, each with a box."""

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
from mmcam.media.images import open_image

IMAGE_SIZE = 720
"""The longer side, in pixels, to which DenseCap resizes pictures by default."""


@dataclass(frozen=True, kw_only=True)
class Description:
    """One described region of a picture, as in DenseCap's results.

    `box` is in pixels of the picture after resizing its longer side to `longer_side`.
    """

    picture: str
    caption: str
    box: Box
    score: float | None
    longer_side: float

    def box_on(self, size: tuple[int, int]) -> Box:
        """The box, clipped to the picture, in pixels of the original of `size` (height, width)."""
        height, width = size
        scale = max(size) / self.longer_side
        left, top, right, bottom = (edge * scale for edge in self.box)
        return (max(left, 0), max(top, 0), min(right, width), min(bottom, height))


def read_densecap(
    path: str | Path, count: int | None = 5, image_size: float | None = None
) -> dict[str, list[Description]]:
    """DenseCap's results: the descriptions of each picture, best first.

    Without scores, they stay in the order of the file.

    Args:
        path: the `results.json` that DenseCap writes for its viewer: `results`, each with
            `img_name`, `captions`, `boxes` as (left, top, width, height) and optional `scores`.
        count: the number of descriptions per picture, 5 in Grad-CAM (ICCV 2017, section 7.1);
            all if None.
        image_size: the longer side of the resized pictures; if None, the value in the file's `opt`,
            or `IMAGE_SIZE` if the file has none.

    Raises:
        InputError: the file cannot be read or has another format.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        side = image_size or (content.get("opt") or {}).get("image_size", IMAGE_SIZE)
        return {
            row["img_name"]: sorted(_descriptions(row, side), key=_negative_score)[:count]
            for row in content["results"]
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path} is not a DenseCap results file ({type(error).__name__}: {error}); name the "
            "results.json written by its run_model.lua"
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


def _negative_score(description: Description) -> float:
    return 0.0 if description.score is None else -description.score


def read_densecap_results(
    path: Path, *, images: str | None = None, count: str = "5", side: str | None = None
) -> Rows:
    """DenseCap's descriptions of regions, one item per description: its text and its box.

    Args:
        path: the `results.json` that DenseCap writes.
        images: the folder of pictures; the file's folder if None.
        count: the number of descriptions per picture, best first; `all` for all.
        side: the longer side of the resized pictures; if None, as in `read_densecap`.

    Raises:
        InputError: the file cannot be read, has another format or no descriptions.
        ValueError: `count` or `side` is not a number.
    """
    limit = None if count == "all" else int(count)
    results = read_densecap(path, limit, float(side) if side else None)
    rows = [
        (index, description)
        for descriptions in results.values()
        for index, description in enumerate(descriptions)
    ]
    return Rows(rows, partial(_region_item, Path(images) if images else path.parent), f"{path}")


def _region_item(image_folder: Path, row: tuple[int, Description]) -> Item:
    index, description = row
    source = image_folder / description.picture
    with open_image(source) as image:
        size = image.size[1], image.size[0]
    return Item(
        id=f"{description.picture}#{index}",
        source=str(source),
        text=description.caption,
        regions={WHOLE: Region(boxes=(description.box_on(size),))},
        group=description.picture,
    )
