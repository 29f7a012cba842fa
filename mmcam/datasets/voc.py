"""Pascal VOC's pictures and boxes."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from xml.etree import ElementTree

from mmcam.datasets.files import read_lines
from mmcam.datasets.items import Item, Region, Rows
from mmcam.errors import InputError


def read_voc(folder: Path, *, split: str | None = None) -> Rows:
    """Pascal VOC's pictures, with the boxes of each class in them.

    Args:
        folder: a folder with `Annotations` and `JPEGImages`, such as `VOCdevkit/VOC2012`.
        split: the name of a list in `ImageSets/Main`, such as `val`; all annotations if None.

    Raises:
        InputError: the list cannot be read, or there is no annotation.
    """
    if split:
        lines = read_lines(folder / "ImageSets" / "Main" / f"{split}.txt")
        names = [line.split()[0] for line in lines if line.strip()]
    else:
        names = sorted(path.stem for path in (folder / "Annotations").glob("*.xml"))
    return Rows(names, partial(_voc_item, folder), f"VOC folder {folder}")


def _voc_item(folder: Path, name: str) -> Item:
    regions: dict[str, Region] = {}
    for label, box in read_objects(folder / "Annotations" / f"{name}.xml"):
        regions[label] = regions.get(label, Region()).joined(Region(boxes=(box,)))
    source = str(folder / "JPEGImages" / f"{name}.jpg")
    return Item(id=name, source=source, labels=tuple(regions), regions=regions)


def read_objects(path: Path) -> list[tuple[str, tuple[float, float, float, float]]]:
    """The name and the box (left, top, right, bottom) of each object in an annotation.

    VOC counts pixels from 1 and gives the last row and column inside a box. The boxes returned are
    edges between pixels, counted from 0.

    Raises:
        InputError: the file cannot be read or is not an annotation.
    """
    try:
        if b"<!ENTITY" in (content := path.read_bytes()):
            raise ValueError("it defines entities, which no annotation needs")
        objects = []
        for element in ElementTree.fromstring(content).iter("object"):
            name = element.findtext("name")
            edges = [element.findtext(f"bndbox/{key}") for key in ("xmin", "ymin", "xmax", "ymax")]
            left, top, right, bottom = (float(str(edge)) for edge in edges)
            if name is None:
                raise ValueError("an object has no name")
            objects.append((name, (max(left - 1, 0.0), max(top - 1, 0.0), right, bottom)))
        return objects
    except (OSError, ValueError, ElementTree.ParseError) as error:
        raise InputError(
            f"{path} is not a VOC annotation ({error}); it needs objects with name and bndbox"
        ) from error
