"""Read COCO's captions, and its instances as one mask per category (cocodataset.org, data format).

A category's mask is the union of its instances, with or without crowds.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mmcam.datasets.items import Item, Region, Rows
from mmcam.datasets.segments import Segment, decode_segment
from mmcam.errors import InputError, nearest
from mmcam.evaluators.maps import Box


@dataclass(frozen=True, kw_only=True)
class Instance:
    """One annotated object, or a crowd of objects; `segmentation` is as in the file."""

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
        """The categories in the picture without duplicates, in the file's order."""
        return tuple(dict.fromkeys(instance.category for instance in self.instances))

    def boxes(self, category: str) -> list[Box]:
        """The boxes of a category's objects; a crowd's box covers other things and is left out."""
        return [i.box for i in self.instances if i.category == category and not i.crowd]

    def mask(self, category: str, crowds: bool = True) -> Segment:
        """The union of a category's segments; empty if all are crowds and `crowds` is false.

        Raises:
            InputError: the picture has no such category, or a segment is not in COCO's format.
            MissingExtra: pycocotools is not installed.
        """
        instances = [i for i in self.instances if i.category == category]
        if not instances:
            raise InputError(
                f"picture {self.id} has no instance of '{category}'; nearest: "
                f"{nearest(category, self.categories)}"
            )
        union = np.zeros((self.height, self.width), dtype=bool)
        for instance in instances:
            if crowds or not instance.crowd:
                union |= decode_segment(instance.segmentation, self.height, self.width)
        return union

    def masks(self, crowds: bool = True) -> dict[str, Segment]:
        """Every category's mask.

        Raises:
            InputError: a segment is not in COCO's format.
            MissingExtra: pycocotools is not installed.
        """
        return {category: self.mask(category, crowds) for category in self.categories}


def read_instances(path: str | Path) -> dict[int, Photo]:
    """The pictures of an instances file by id, including those without objects.

    Raises:
        InputError: the file cannot be read or is not in COCO's format.
    """
    content = _load_json(path)
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
        raise _format_error(path, "instances", error) from error


def read_captions(path: str | Path) -> dict[int, list[str]]:
    """The captions of a captions file by picture id, in the file's order.

    Raises:
        InputError: the file cannot be read or is not in COCO's format.
    """
    content = _load_json(path)
    try:
        captions: dict[int, list[str]] = {row["id"]: [] for row in content["images"]}
        for row in content["annotations"]:
            captions[row["image_id"]].append(str(row["caption"]).strip())
    except (KeyError, TypeError) as error:
        raise _format_error(path, "captions", error) from error
    return captions


def _load_json(path: str | Path) -> Any:
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path} cannot be read ({error}); name a COCO annotations file (JSON)"
        ) from error


def _format_error(path: str | Path, kind: str, error: Exception) -> InputError:
    return InputError(
        f"{path} is not a COCO {kind} file ({type(error).__name__}: {error}); it needs images, "
        "annotations and, for instances, categories"
    )


def read_coco(
    folder: Path, *, task: str = "", split: str | None = None, images: str | None = None
) -> Rows:
    """COCO's photos with the segments and boxes of their categories.

    Args:
        folder: its subfolder `annotations` contains `instances_SPLIT.json`, `captions_SPLIT.json`
            or both.
        task: "caption" gives one item per caption; otherwise an item is a photo, and its labels are
            its categories.
        split: such as `val2017`; if None, the only split in `folder`.
        images: the folder of photos; if None, the subfolder of `folder` named by the split.

    Raises:
        InputError: a file is missing, cannot be read, is not in COCO's format or has no items, or
            `split` is None and `folder` has none or several.
    """
    if split is None:
        stems = {
            path.stem.partition("_")[2]
            for kind in ("instances", "captions")
            for path in (folder / "annotations").glob(f"{kind}_*.json")
        }
        if len(stems) != 1:
            splits = ", ".join(sorted(stems)) or "none"
            raise InputError(
                f"{folder} has these splits: {splits}; name one (coco:{folder}?split=val2017)"
            )
        (split,) = stems
    files = [folder / "annotations" / f"{kind}_{split}.json" for kind in ("instances", "captions")]
    photos = read_instances(files[0]) if files[0].is_file() else {}
    image_folder = Path(images) if images else folder / split
    if task == "caption":
        names = {} if photos else _file_names(files[1])
        rows = [
            (photo_id, index, caption)
            for photo_id, captions in sorted(read_captions(files[1]).items())
            for index, caption in enumerate(captions)
        ]
        return Rows(rows, partial(_coco_caption, image_folder, photos, names), f"{files[1]}")
    if not photos:
        raise InputError(f"{files[0]}: there is no such file; check the folder and the split")
    return Rows(sorted(photos), partial(_coco_photo, image_folder, photos), f"{files[0]}")


def _file_names(path: Path) -> dict[int, str]:
    try:
        return {row["id"]: str(row["file_name"]) for row in _load_json(path)["images"]}
    except (KeyError, TypeError) as error:
        raise _format_error(path, "captions", error) from error


def _coco_photo(image_folder: Path, photos: dict[int, Photo], photo_id: int) -> Item:
    photo = photos[photo_id]
    return Item(
        id=str(photo_id),
        source=str(image_folder / photo.file_name),
        labels=photo.categories,
        regions=_coco_regions(photo),
    )


def _coco_caption(
    image_folder: Path, photos: dict[int, Photo], names: dict[int, str], row: tuple[int, int, str]
) -> Item:
    photo_id, caption_index, caption = row
    photo = photos.get(photo_id)
    if photo is None and photo_id not in names:
        raise InputError(
            f"the instances file has no photo {photo_id}, which has a caption; use the files of "
            "one split"
        )
    return Item(
        id=f"{photo_id}#{caption_index}",
        source=str(image_folder / (photo.file_name if photo else names[photo_id])),
        text=caption,
        regions=_coco_regions(photo) if photo else {},
        group=str(photo_id),
    )


def _coco_regions(photo: Photo) -> dict[str, Region]:
    return {
        category: Region(
            boxes=tuple(photo.boxes(category)),
            segments=tuple(i.segmentation for i in photo.instances if i.category == category),
        )
        for category in photo.categories
    }
