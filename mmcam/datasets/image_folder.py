"""Folders of pictures in ImageNet's way: a folder for each class, or names that begin with it."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

from mmcam.datasets.files import PICTURES, files_in, read_lines
from mmcam.datasets.items import Item, Region, Rows
from mmcam.datasets.voc import read_objects
from mmcam.errors import InputError


def read_image_folder(folder: Path, *, names: str | None = None, boxes: str | None = None) -> Rows:
    """Pictures in one folder for each class, or all in one as `nXXXXXXXX_name.JPEG`.

    Args:
        folder: the folder; a picture in it by another name has no label.
        names: a file with `folder name` on each line, such as ImageNet's `LOC_synset_mapping.txt`,
            which is found by itself in the folder; the first name before a comma is the label.
        boxes: a folder of ILSVRC's or VOC's XML files, by the pictures' names.

    Raises:
        InputError: it cannot be read or holds no picture.
    """
    known = folder / "LOC_synset_mapping.txt"
    if names is None and known.is_file():
        names = str(known)
    mapping = _class_names(Path(names)) if names else {}
    rows = [
        path.relative_to(folder).as_posix()
        for path in sorted(files_in(folder))
        if path.suffix.lower() in PICTURES
    ]
    make = partial(_pictured, folder, mapping, Path(boxes) if boxes else None)
    return Rows(rows, make, f"folder {folder}")


def _class_names(path: Path) -> dict[str, str]:
    rows = (line.split(None, 1) for line in read_lines(path))
    return {row[0]: row[1].split(",")[0].strip() for row in rows if len(row) == 2}


def _pictured(folder: Path, names: dict[str, str], boxes: Path | None, name: str) -> Item:
    path = Path(name)
    said = re.fullmatch(r"n\d{8}_(\D.*)", path.stem)
    if len(path.parts) > 1:
        label = names.get(path.parts[0], path.parts[0])
    elif said:
        label = said[1].replace("_", " ")
    else:
        label = ""
    regions = {}
    if boxes is not None:
        found = [boxes / path.with_suffix(".xml"), boxes / f"{path.stem}.xml"]
        annotation = next((one for one in found if one.is_file()), None)
        if annotation is None:
            raise InputError(f"{found[0]}: there is no such file; check the option boxes")
        parts = [box for _, box in read_objects(annotation)]
        regions = {label: Region(boxes=tuple(parts))}
    return Item(
        id=name,
        source=str(folder / name),
        labels=(label,) if label else (),
        regions=regions,
    )
