"""COCO's own files: captions, and instances as one mask a category (cocodataset.org, data format).

A category's mask is the union of its instances, crowds included unless left out. Polygons are drawn
by pycocotools (`mmcam[evaluate]`), so that they cover the pixels that COCO's own tools cover.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool

from mmcam.errors import InputError, MissingExtra, nearest
from mmcam.evaluators.maps import Box

Segment = Bool[np.ndarray, "height width"]


@dataclass(frozen=True, kw_only=True)
class Instance:
    """One annotated object, or a crowd of them, as the file has it."""

    category: str
    box: Box
    segmentation: Any
    crowd: bool


@dataclass(frozen=True, kw_only=True)
class Photo:
    """One picture of an instances file, with its objects."""

    id: int
    file_name: str
    width: int
    height: int
    instances: tuple[Instance, ...]

    @property
    def categories(self) -> tuple[str, ...]:
        """What is in the picture, each once, in the file's order."""
        return tuple(dict.fromkeys(instance.category for instance in self.instances))

    def boxes(self, category: str) -> list[Box]:
        """The boxes of a category's objects, without crowds, whose boxes hold much else."""
        return [i.box for i in self.instances if i.category == category and not i.crowd]

    def mask(self, category: str, crowds: bool = True) -> Segment:
        """The union of a category's segments; empty where only crowds were left out.

        Raises:
            InputError: the picture has no such category, or a segment is not in COCO's format.
            MissingExtra: pycocotools is not installed.
        """
        found = [i for i in self.instances if i.category == category]
        if not found:
            raise InputError(
                f"picture {self.id} has no instance of '{category}'; nearest: "
                f"{nearest(category, self.categories)}"
            )
        union = np.zeros((self.height, self.width), dtype=bool)
        for instance in found:
            if crowds or not instance.crowd:
                union |= segment(instance.segmentation, self.height, self.width)
        return union

    def masks(self, crowds: bool = True) -> dict[str, Segment]:
        """Every category's mask.

        Raises:
            InputError: a segment is not in COCO's format.
            MissingExtra: pycocotools is not installed.
        """
        return {category: self.mask(category, crowds) for category in self.categories}


def segment(segmentation: Any, height: int, width: int) -> Segment:
    """One segment as a mask: polygons, or run lengths, plain or compressed.

    Args:
        segmentation: a list of polygons `[x, y, x, y, ...]`, or `{"counts", "size"}` with the
            lengths of runs of 0 and 1 down the columns.
        height: of the picture.
        width: of the picture.

    Raises:
        InputError: it is neither, or was made for another size.
        MissingExtra: pycocotools is not installed.
    """
    try:
        if isinstance(segmentation, Mapping) and isinstance(segmentation["counts"], list):
            mask = _runs(segmentation["counts"], *segmentation["size"])
        else:
            mask = _decode(segmentation, height, width)
    except (TypeError, ValueError, KeyError, IndexError) as error:
        raise InputError(
            f"a segment is not in COCO's format ({type(error).__name__}: {error}); it is a list "
            'of polygons or {"counts": ..., "size": [height, width]}'
        ) from error
    if mask.shape != (height, width):
        raise InputError(
            f"a segment of {mask.shape[1]}x{mask.shape[0]} pixels lies on a picture of "
            f"{width}x{height}; the annotations belong to another size of it"
        )
    return mask


def _runs(counts: Sequence[int], height: int, width: int) -> Segment:
    """Run lengths, of zeros first, down one column after the other."""
    if sum(counts) != height * width or any(count < 0 for count in counts):
        raise ValueError(f"runs of {sum(counts)} pixels for {height * width}")
    values = np.arange(len(counts)) % 2 == 1
    return np.repeat(values, counts).reshape(width, height).T


def _decode(segmentation: Any, height: int, width: int) -> Segment:
    tools = _tools()
    if isinstance(segmentation, Mapping):
        runs = dict(segmentation)
    else:
        # A list of two polygons of four numbers would pass for boxes.
        polygons = [[float(n) for n in polygon] for polygon in segmentation]
        if not polygons or any(len(polygon) < 6 or len(polygon) % 2 for polygon in polygons):
            raise ValueError("a polygon needs three points or more")
        runs = tools.merge(tools.frPyObjects(polygons, height, width))
    return np.asarray(tools.decode(runs), dtype=bool)


def _tools() -> Any:
    try:
        from pycocotools import mask
    except ImportError as error:
        raise MissingExtra(
            "COCO's polygons and compressed masks need pycocotools; pip install 'mmcam[evaluate]'"
        ) from error
    return mask


def read_instances(path: str | Path) -> dict[int, Photo]:
    """The pictures of an instances file by their numbers, those without objects too.

    Raises:
        InputError: the file cannot be read or is not in COCO's format.
    """
    content = _json(path)
    try:
        names = {row["id"]: row["name"] for row in content["categories"]}
        objects: dict[int, list[Instance]] = {row["id"]: [] for row in content["images"]}
        for row in content["annotations"]:
            left, top, width, height = map(float, row["bbox"])
            objects[row["image_id"]].append(
                Instance(
                    category=names[row["category_id"]],
                    box=(left, top, left + width, top + height),
                    segmentation=row["segmentation"],
                    crowd=bool(row.get("iscrowd", 0)),
                )
            )
        return {
            row["id"]: Photo(
                id=row["id"],
                file_name=row["file_name"],
                width=row["width"],
                height=row["height"],
                instances=tuple(objects[row["id"]]),
            )
            for row in content["images"]
        }
    except (KeyError, TypeError, ValueError) as error:
        raise _misfit(path, "instances", error) from error


def read_captions(path: str | Path) -> dict[int, list[str]]:
    """The captions of a captions file by the numbers of their pictures, in the file's order.

    Raises:
        InputError: the file cannot be read or is not in COCO's format.
    """
    content = _json(path)
    try:
        captions: dict[int, list[str]] = {row["id"]: [] for row in content["images"]}
        for row in content["annotations"]:
            captions[row["image_id"]].append(str(row["caption"]).strip())
    except (KeyError, TypeError) as error:
        raise _misfit(path, "captions", error) from error
    return captions


def _json(path: str | Path) -> Any:
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path} cannot be read ({error}); name a JSON file of COCO's annotations"
        ) from error


def _misfit(path: str | Path, kind: str, error: Exception) -> InputError:
    return InputError(
        f"{path} is no {kind} file of COCO ({type(error).__name__}: {error}); it needs images, "
        "annotations and, for instances, categories"
    )
