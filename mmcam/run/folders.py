"""Datasets that are folders and lists: class folders, Kinetics' lists, Flickr's captions, VOC."""

from __future__ import annotations

import csv
import json
import re
import xml.etree.ElementTree as Xml
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from mmcam.errors import InputError
from mmcam.run.items import Item, Region, Rows

PICTURES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm"})
VIDEOS = (".mp4", ".mkv", ".webm", ".avi", ".mov")
PHOTO_FOLDERS = ("images", "Images", "Flicker8k_Dataset", "Flickr8k_Dataset", "flickr30k-images")


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
        for path in sorted(_files(folder))
        if path.suffix.lower() in PICTURES
    ]
    make = partial(_pictured, folder, mapping, Path(boxes) if boxes else None)
    return Rows(rows, make, f"folder {folder}")


def _files(folder: Path) -> Iterable[Path]:
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder; name one of pictures")
    return (path for path in folder.rglob("*") if not path.name.startswith(".") and path.is_file())


def _class_names(path: Path) -> dict[str, str]:
    rows = (line.split(None, 1) for line in _lines(path))
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
        parts = [box for _, box in _objects(annotation)]
        regions = {label: Region(boxes=tuple(parts))}
    return Item(
        id=name,
        source=str(folder / name),
        labels=(label,) if label else (),
        regions=regions,
    )


def read_voc(folder: Path, *, split: str | None = None) -> Rows:
    """Pascal VOC's pictures, with the boxes of each class in them.

    Args:
        folder: the one with `Annotations` and `JPEGImages` (`VOCdevkit/VOC2012`).
        split: a list in `ImageSets/Main`, such as `val`; all annotations when None.

    Raises:
        InputError: it cannot be read.
    """
    if split:
        lines = _lines(folder / "ImageSets" / "Main" / f"{split}.txt")
        names = [line.split()[0] for line in lines if line.strip()]
    else:
        names = sorted(path.stem for path in (folder / "Annotations").glob("*.xml"))
    return Rows(names, partial(_voc, folder), f"VOC folder {folder}")


def _voc(folder: Path, name: str) -> Item:
    regions: dict[str, Region] = {}
    for label, box in _objects(folder / "Annotations" / f"{name}.xml"):
        regions[label] = regions.get(label, Region()).joined(Region(boxes=(box,)))
    source = str(folder / "JPEGImages" / f"{name}.jpg")
    return Item(id=name, source=source, labels=tuple(regions), regions=regions)


def _objects(path: Path) -> list[tuple[str, tuple[float, float, float, float]]]:
    """Names and boxes of an annotation's objects, as edges: VOC counts pixels from 1."""
    try:
        if b"<!ENTITY" in (content := path.read_bytes()):
            raise ValueError("it defines entities, which no annotation needs")
        found = []
        for one in Xml.fromstring(content).iter("object"):
            name = one.findtext("name")
            edges = [one.findtext(f"bndbox/{key}") for key in ("xmin", "ymin", "xmax", "ymax")]
            left, top, right, bottom = (float(str(edge)) for edge in edges)
            found.append((str(name), (max(left - 1, 0.0), max(top - 1, 0.0), right, bottom)))
        return found
    except (OSError, ValueError, Xml.ParseError) as error:
        raise InputError(
            f"{path} is no annotation of VOC ({error}); it needs objects with name and bndbox"
        ) from error


def read_kinetics(path: Path, *, clips: str | None = None, split: str | None = None) -> Rows:
    """Clips by a list: Kinetics' own CSV, or lines of `path label` (a space or a comma between).

    A clip of Kinetics is looked for as `ID_SSSSSS_EEEEEE.mp4` (also .mkv, .webm, .avi, .mov) beside
    the list or in a folder of its label; else as `ID.mp4`, of which the named seconds are taken.

    Args:
        path: the CSV.
        clips: the folder of clips; that of the CSV when None.
        split: only rows of this split, where the file has them.

    Raises:
        InputError: it cannot be read or lists no clip.
    """
    folder = Path(clips) if clips else path.parent
    lines = [line for line in _lines(path) if line.strip()]
    if lines and "youtube_id" in lines[0]:
        table = csv.DictReader(lines)
        rows = [
            (row["youtube_id"], row.get("label") or "", row["time_start"], row["time_end"])
            for row in table
            if split is None or row.get("split") == split
        ]
        return Rows(rows, partial(_kinetics, folder), f"{path}")
    separator = "," if "," in lines[0] else " "
    pairs = [line.rstrip("\r\n").rsplit(separator, 1) for line in lines] if lines else []
    for pair in pairs:
        if len(pair) != 2:
            raise InputError(
                f"{path}: '{pair[0]}' is no line of a list of clips; give path{separator}label, or "
                "Kinetics' own columns (label,youtube_id,time_start,time_end,split)"
            )
    return Rows([tuple(pair) for pair in pairs], partial(_listed, folder), f"{path}")


def _listed(folder: Path, row: tuple[str, str]) -> Item:
    name, label = row[0].strip().strip('"'), row[1].strip().strip('"')
    labels: tuple[str | int, ...] = (int(label) if label.isdecimal() else label,)
    return Item(id=name, source=str(folder / name), labels=labels)


def _kinetics(folder: Path, row: tuple[str, str, str, str]) -> Item:
    name, label, *seconds = row
    try:
        first, last = (float(edge) for edge in seconds)
    except ValueError as error:
        raise InputError(f"clip {name}: seconds {seconds} are no numbers; mend the list") from error
    stem = f"{name}_{int(first):06d}_{int(last):06d}"
    labels = (label,) if label else ()
    for part in (folder, folder / label, folder / label.replace(" ", "_")):
        for suffix in VIDEOS:
            if (part / f"{stem}{suffix}").is_file():
                return Item(id=stem, source=str(part / f"{stem}{suffix}"), labels=labels)
            if (part / f"{name}{suffix}").is_file():
                source = str(part / f"{name}{suffix}")
                return Item(id=stem, source=source, labels=labels, span=(first, last))
    raise InputError(
        f"there is no clip {stem}.mp4 or {name}.mp4 in {folder}; name its folder (?clips=DIR)"
    )


def read_flickr(path: Path, *, images: str | None = None) -> Rows:
    """Flickr8k's and Flickr30k's captions, an item a caption.

    Args:
        path: `Flickr8k.token.txt` (`name#0<tab>caption`), `captions.txt` or `results.csv`
            (columns of name, maybe number, and caption, by comma or bar), or a JSON file of names
            with lists of captions; or a folder with one of these.
        images: the folder of photos; when None one beside the file that is called as usual.

    Raises:
        InputError: it cannot be read or holds no caption.
    """
    if path.is_dir():
        usual = ("captions.json", "captions.txt", "results.csv", "Flickr8k.token.txt")
        found = [*(path / name for name in usual), *sorted(path.glob("*.token*"))]
        path = next((one for one in found if one.is_file()), path / "captions.txt")
    folders = [path.parent / name for name in PHOTO_FOLDERS]
    folder = Path(images) if images else next((f for f in folders if f.is_dir()), path.parent)
    rows = _captions(path)
    return Rows(rows, partial(_captioned, folder), f"{path}")


def _captions(path: Path) -> list[tuple[str, int, str]]:
    """Name of the photo, number of the caption, caption."""
    if path.suffix == ".json":
        try:
            table: dict[str, Any] = json.loads("".join(_lines(path)))
            pairs = [(name, str(one)) for name, captions in table.items() for one in captions]
        except (ValueError, AttributeError, TypeError) as error:
            raise InputError(
                f'{path} holds no captions ({error}); it needs {{"photo.jpg": ["a dog", ...]}}'
            ) from error
    else:
        lines = [line for line in _lines(path) if line.strip()]
        pairs = _table(lines) if lines else []
    numbers: dict[str, int] = {}
    rows = []
    for name, caption in pairs:
        number = numbers[name] = numbers.get(name, -1) + 1
        rows.append((name, number, " ".join(caption.split())))
    return rows


def _table(lines: Sequence[str]) -> list[tuple[str, str]]:
    if "\t" in lines[0]:
        return [
            (row[0].split("#")[0], row[1]) for line in lines if len(row := line.split("\t")) > 1
        ]
    bar = "|" in lines[0]
    table = csv.reader(
        lines, delimiter="|" if bar else ",", quoting=csv.QUOTE_NONE if bar else csv.QUOTE_MINIMAL
    )
    rows = [row for row in table if len(row) > 1]
    header = rows and Path(rows[0][0].strip()).suffix.lower() not in PICTURES
    # A caption may hold commas; with bars the number of the caption stands before it.
    return [
        (row[0].strip(), row[-1] if bar else ",".join(row[1:]))
        for row in rows[1 if header else 0 :]
    ]


def _captioned(folder: Path, row: tuple[str, int, str]) -> Item:
    name, number, caption = row
    return Item(id=f"{name}#{number}", source=str(folder / name), text=caption, group=name)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig").splitlines(keepends=True)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read ({error}); check the path") from error
