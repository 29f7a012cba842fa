"""Folders of pictures as in ImageNet: a folder for each class, or the class in the file names."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

from mmcam.datasets.files import IMAGE_SUFFIXES, files_in, read_lines
from mmcam.datasets.items import Item, Region, Rows
from mmcam.datasets.voc import read_objects
from mmcam.errors import InputError
from mmcam.types import WordNetLabel


def read_image_folder(folder: Path, *, names: str | None = None, boxes: str | None = None) -> Rows:
    """Pictures in one folder for each class, or all in one folder as `nXXXXXXXX_name.JPEG`.

    A WordNet id at the start of the folder's or the file's name is kept with the label
    (`WordNetLabel`): for a model of ImageNet's 1,000 classes, the id decides which class is meant.

    Args:
        folder: the folder; a picture directly in the folder, with a file name of another form, has
            no label.
        names: a file with a class's folder, a space and its name on each line; if None, ImageNet's
            `LOC_synset_mapping.txt` in the folder, if any. The label is the name up to its first
            comma.
        boxes: a folder of XML annotations (ILSVRC or VOC), each named like its picture. All boxes
            of a file are boxes of the picture's label.

    Raises:
        InputError: the folder or the file of names cannot be read, or the folder contains no
            picture.
    """
    default = folder / "LOC_synset_mapping.txt"
    if names is None and default.is_file():
        names = str(default)
    mapping = _class_names(Path(names)) if names else {}
    rows = [
        path.relative_to(folder).as_posix()
        for path in sorted(files_in(folder))
        if path.suffix.lower() in IMAGE_SUFFIXES
    ]
    make_item = partial(_image_item, folder, mapping, Path(boxes) if boxes else None)
    return Rows(rows, make_item, f"folder {folder}")


def _class_names(path: Path) -> dict[str, str]:
    rows = (line.split(None, 1) for line in read_lines(path))
    return {row[0]: row[1].split(",")[0].strip() for row in rows if len(row) == 2}


def _image_item(folder: Path, names: dict[str, str], box_folder: Path | None, name: str) -> Item:
    path = Path(name)
    in_class_folder = len(path.parts) > 1
    match = re.fullmatch(r"(n\d{8})(?:_(\D.*))?", path.parts[0] if in_class_folder else path.stem)
    if in_class_folder:
        label = names.get(path.parts[0], path.parts[0])
    else:
        label = match[2].replace("_", " ") if match and match[2] else ""
    if match and label:
        label = WordNetLabel(label, match[1])
    regions = {}
    if box_folder is not None:
        candidates = [box_folder / path.with_suffix(".xml"), box_folder / f"{path.stem}.xml"]
        annotation = next((file for file in candidates if file.is_file()), None)
        if annotation is None:
            raise InputError(f"{candidates[0]}: there is no such file; check the option 'boxes'")
        boxes = tuple(box for _, box in read_objects(annotation))
        regions = {label: Region(boxes=boxes)}
    return Item(
        id=name,
        source=str(folder / name),
        labels=(label,) if label else (),
        regions=regions,
    )
