"""Read clips from Kinetics' CSV, or from lists of paths and labels."""

from __future__ import annotations

import csv
from functools import partial
from pathlib import Path

from mmcam.datasets.files import read_lines
from mmcam.datasets.items import Item, Rows
from mmcam.errors import InputError

VIDEO_SUFFIXES = (".mp4", ".mkv", ".webm", ".avi", ".mov")


def read_kinetics(path: Path, *, clips: str | None = None, split: str | None = None) -> Rows:
    """Clips from a list: Kinetics' CSV, or lines of a path and a label (`path label`).

    A Kinetics clip is the file `ID_SSSSSS_EEEEEE.mp4` (S: start, E: end, in seconds) or `ID.mp4`
    (also .mkv, .webm, .avi, .mov) in the folder of clips or in its subfolder named by the label
    (spaces may be underscores). Of `ID.mp4`, only the seconds in the list are used.

    A path and its label are separated by the line's last comma if the first line has a comma, else
    by its last space; a label of digits is a class index.

    Args:
        path: the list.
        clips: the folder of clips; the list's folder if None.
        split: use only the rows with this value in the column `split`; ignored for lines of
            `path label`.

    Raises:
        InputError: the list cannot be read, contains no clip, lacks a column, or has a line that
            is not `path label`.
    """
    folder = Path(clips) if clips else path.parent
    lines = [line for line in read_lines(path) if line.strip()]
    if lines and "youtube_id" in lines[0]:
        table = csv.DictReader(lines)
        needed = {"time_start", "time_end"} | ({"split"} if split else set())
        missing = needed - set(table.fieldnames or ())
        if missing:
            raise InputError(
                f"{path} has no column {' or '.join(sorted(missing))}; give Kinetics' columns "
                "(label,youtube_id,time_start,time_end,split)"
            )
        columns = ("youtube_id", "label", "time_start", "time_end")  # "" in a short line
        rows = [
            tuple(row.get(column) or "" for column in columns)
            for row in table
            if split is None or row.get("split") == split
        ]
        return Rows(rows, partial(_kinetics_item, folder), f"{path}")
    separator = "," if lines and "," in lines[0] else " "
    pairs = [line.rstrip("\r\n").rsplit(separator, 1) for line in lines] if lines else []
    for pair in pairs:
        if len(pair) != 2:
            raise InputError(
                f"{path}: '{pair[0]}' is not a line of a clip list; give path{separator}label, or "
                "Kinetics' columns (label,youtube_id,time_start,time_end,split)"
            )
    return Rows([tuple(pair) for pair in pairs], partial(_list_item, folder), f"{path}")


def _list_item(folder: Path, row: tuple[str, str]) -> Item:
    name, label = row[0].strip().strip('"'), row[1].strip().strip('"')
    labels: tuple[str | int, ...] = (int(label) if label.isdecimal() else label,)
    return Item(id=name, source=str(folder / name), labels=labels)


def _kinetics_item(folder: Path, row: tuple[str, str, str, str]) -> Item:
    name, label, *seconds = row
    try:
        first, last = (float(edge) for edge in seconds)
    except ValueError as error:
        raise InputError(
            f"clip {name}: the seconds {seconds} are not numbers; correct the list"
        ) from error
    stem = f"{name}_{int(first):06d}_{int(last):06d}"
    labels = (label,) if label else ()
    for subfolder in (folder, folder / label, folder / label.replace(" ", "_")):
        for suffix in VIDEO_SUFFIXES:
            if (subfolder / f"{stem}{suffix}").is_file():
                return Item(id=stem, source=str(subfolder / f"{stem}{suffix}"), labels=labels)
            if (subfolder / f"{name}{suffix}").is_file():
                source = str(subfolder / f"{name}{suffix}")
                return Item(id=stem, source=source, labels=labels, span=(first, last))
    raise InputError(
        f"there is no clip {stem}.mp4 or {name}.mp4 in {folder}; name the folder "
        "of clips (?clips=DIR)"
    )
