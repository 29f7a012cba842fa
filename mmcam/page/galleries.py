"""Result folders as records of a gallery: made from the files in them, no model and no input."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmcam.errors import InputError
from mmcam.media import read_image
from mmcam.page.html import gallery_page, read_json
from mmcam.page.record import record
from mmcam.page.seen import shrunk_uri
from mmcam.render.inline import as_jpeg
from mmcam.results.files import FACTS, read_result, unreadable

PAGE = "index.html"
SIDE = 560
"""The longer side of a picture in a gallery."""

FRAME_SIDE = 320
BYTES = 60_000
NOTHING_SEEN: dict[str, Any] = {"picture": None, "frames": [], "player": None}


def gallery(folders: Sequence[Path], beside: Path, colormap: str = "inferno") -> str:
    """One page of all results in these folders and the folders in them.

    Args:
        folders: where to look.
        beside: the file that the page will be; clips are named as seen from it.
        colormap: the colours of the heat.

    Raises:
        InputError: a folder holds no result, or one that cannot be read.
    """
    found = [one for folder in folders for one in _results(folder)]
    records = [read_folder(one, beside) for one in dict.fromkeys(found)]
    count = sum(len(one["targets"]) for one in records)
    return gallery_page(records, f"{count} explanations", colormap)


def _results(folder: Path) -> list[Path]:
    found = sorted(path.parent for path in folder.rglob(FACTS))
    if not found:
        reason = "holds no result" if folder.is_dir() else "is no folder"
        raise InputError(
            f"'{folder}' {reason} ({FACTS}); name folders that a command wrote with --out"
        )
    return found


def read_folder(folder: Path, beside: Path) -> dict[str, Any]:
    """The record of one result folder.

    The picture is that of the folder's own page; without a page the saved overlays are shown.

    Raises:
        InputError: it cannot be read.
    """
    facts, items = read_result(folder)
    try:
        where = os.path.relpath(folder, beside.parent)
        prefix = "" if where == "." else f"{Path(where).as_posix()}/"
        page = folder / PAGE
        seen = _seen(page.read_text(encoding="utf-8")) if page.is_file() else NOTHING_SEEN
        found = record(facts, items, seen, prefix)
        if not page.is_file():
            for target, one in zip(found["targets"], facts["targets"], strict=True):
                overlay = read_image(folder / Path(str(one["overlay"])).name)
                target["drawn"] = as_jpeg(overlay.pixels, SIDE, BYTES)
        return found
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise unreadable(folder, error) from error


def _seen(page: str) -> dict[str, Any]:
    """The picture or frames that a page holds, at the size of a gallery."""
    seen = read_json(page, "record-0")["seen"]
    frames = [
        {"frame": int(one["frame"]), "picture": shrunk_uri(one["picture"], FRAME_SIDE, BYTES)}
        for one in seen["frames"]
    ]
    return {
        "picture": seen["picture"] and shrunk_uri(seen["picture"], SIDE, BYTES),
        "frames": frames,
        "player": seen["player"] and {"box": seen["player"]["box"]},
    }
