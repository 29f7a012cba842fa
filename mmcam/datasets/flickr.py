"""Read the captions of Flickr8k and Flickr30k."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from mmcam.datasets.files import IMAGE_SUFFIXES, read_lines
from mmcam.datasets.items import Item, Rows
from mmcam.errors import InputError

PHOTO_FOLDERS = ("images", "Images", "Flicker8k_Dataset", "Flickr8k_Dataset", "flickr30k-images")


def read_flickr(path: Path, *, images: str | None = None) -> Rows:
    """Flickr8k's and Flickr30k's captions, one item per caption.

    Args:
        path: `Flickr8k.token.txt` (`name#0<tab>caption`); `captions.txt` or `results.csv` (a name,
            optionally a number, and a caption, separated by commas or bars); a JSON object of photo
            names and their lists of captions; or a folder with such a file.
        images: the folder of photos; if None, one of `PHOTO_FOLDERS` beside the file, if any,
            or the folder of the file.

    Raises:
        InputError: the file cannot be read, has another format or has no caption.
    """
    if path.is_dir():
        names = ("captions.json", "captions.txt", "results.csv", "Flickr8k.token.txt")
        candidates = [*(path / name for name in names), *sorted(path.glob("*.token*"))]
        path = next((file for file in candidates if file.is_file()), path / "captions.txt")
    folders = [path.parent / name for name in PHOTO_FOLDERS]
    folder = Path(images) if images else next((f for f in folders if f.is_dir()), path.parent)
    rows = _read_captions(path)
    return Rows(rows, partial(_caption_item, folder), f"{path}")


def _read_captions(path: Path) -> list[tuple[str, int, str]]:
    """Rows of photo name, caption number and caption."""
    if path.suffix == ".json":
        try:
            table: dict[str, Any] = json.loads("".join(read_lines(path)))
            pairs = [
                (name, str(caption)) for name, captions in table.items() for caption in captions
            ]
        except (ValueError, AttributeError, TypeError) as error:
            raise InputError(
                f'{path} holds no captions ({error}); it needs {{"photo.jpg": ["a dog", ...]}}'
            ) from error
    else:
        lines = [line for line in read_lines(path) if line.strip()]
        pairs = _parse_table(lines) if lines else []
    numbers: dict[str, int] = {}
    rows = []
    for name, caption in pairs:
        number = numbers[name] = numbers.get(name, -1) + 1
        rows.append((name, number, " ".join(caption.split())))
    return rows


def _parse_table(lines: Sequence[str]) -> list[tuple[str, str]]:
    if "\t" in lines[0]:
        return [
            (row[0].split("#")[0], row[1]) for line in lines if len(row := line.split("\t")) > 1
        ]
    delimiter = "|" if "|" in lines[0] else ","
    if delimiter == "|":
        rows = [line.split("|") for line in lines]
    else:
        rows = [_split_at_commas(record) for record in _join_open_quotes(lines)]
    rows = [row for row in rows if len(row) > 1]
    has_header = bool(rows) and not _begins_with_image(rows[0][0])
    captions = rows[1:] if has_header else rows
    # A caption may itself contain delimiters, so only the first caption's row tells of a number.
    has_number = bool(captions) and len(rows[0]) > 2 and captions[0][1].strip().isdecimal()
    first = 2 if has_number else 1
    return [(row[0].strip(), delimiter.join(row[first:] or row[1:])) for row in captions]


def _join_open_quotes(lines: Sequence[str]) -> list[str]:
    """One text for each row: a quoted caption may contain line breaks.

    A line that begins with a photo's name is a row of its own, even if a quote before it is open.
    """
    records: list[str] = []
    for line in lines:
        if records and records[-1].count('"') % 2 and not _begins_with_image(line):
            records[-1] += line
        else:
            records.append(line)
    return records


def _begins_with_image(line: str) -> bool:
    return Path(line.split(",")[0].strip(' "')).suffix.lower() in IMAGE_SUFFIXES


def _split_at_commas(record: str) -> list[str]:
    try:
        return next(csv.reader([record], strict=True))
    except csv.Error:  # a quote that is part of the caption
        return record.split(",")


def _caption_item(folder: Path, row: tuple[str, int, str]) -> Item:
    name, number, caption = row
    return Item(id=f"{name}#{number}", source=str(folder / name), text=caption, group=name)
