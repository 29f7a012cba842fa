"""Galleries of result folders, built from their files without the model or the input."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmcam.errors import InputError
from mmcam.media import read_image
from mmcam.page.html import gallery_page, read_json
from mmcam.page.previews import shrink_uri
from mmcam.page.record import record
from mmcam.render.inline import as_jpeg
from mmcam.results.files import FACTS, read_error, read_result

PAGE = "index.html"
SIDE = 560
"""The longer side of a picture in a gallery in pixels, at most."""

FRAME_SIDE = 320
BYTES = 60_000
NO_PREVIEW: dict[str, Any] = {"picture": None, "frames": [], "player": None}


def gallery(folders: Sequence[Path], beside: Path, colormap: str = "inferno") -> str:
    """One page with all results in these folders and their subfolders.

    Args:
        folders: the folders to search.
        beside: the file that the page is written to; paths of clips are relative to its folder.
        colormap: the colour map of the heatmaps, a key of `render.COLORMAPS`.

    Raises:
        InputError: a folder holds no result, or a result cannot be read.
    """
    paths = [path for folder in folders for path in _find_results(folder)]
    records = [read_folder(path, beside) for path in dict.fromkeys(paths)]
    count = sum(len(entry["targets"]) for entry in records)
    return gallery_page(records, f"{count} explanations", colormap)


def _find_results(folder: Path) -> list[Path]:
    paths = sorted(path.parent for path in folder.rglob(FACTS))
    if not paths:
        reason = "holds no result" if folder.is_dir() else "is not a folder"
        raise InputError(
            f"'{folder}' {reason} ({FACTS}); give folders that a command wrote with --out"
        )
    return paths


def read_folder(folder: Path, beside: Path) -> dict[str, Any]:
    """The record of one result folder.

    The preview is taken from the folder's own page; if there is none, the saved overlays are shown.
    `beside` is the file that the gallery is written to.

    Raises:
        InputError: the folder cannot be read.
    """
    facts, explanations = read_result(folder)
    try:
        relative = os.path.relpath(folder, beside.parent)
        prefix = "" if relative == "." else f"{Path(relative).as_posix()}/"
        page = folder / PAGE
        preview = _read_preview(page.read_text(encoding="utf-8")) if page.is_file() else NO_PREVIEW
        entry = record(facts, explanations, preview, prefix)
        if not page.is_file():
            for target, saved in zip(entry["targets"], facts["targets"], strict=True):
                overlay = read_image(folder / Path(str(saved["overlay"])).name)
                target["drawn"] = as_jpeg(overlay.pixels, SIDE, BYTES)
        return entry
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise read_error(folder, error) from error


def _read_preview(page: str) -> dict[str, Any]:
    """The preview that a page embeds, shrunk to the picture sizes of a gallery."""
    preview = read_json(page, "record-0")["seen"]
    frames = [
        {"frame": int(frame["frame"]), "picture": shrink_uri(frame["picture"], FRAME_SIDE, BYTES)}
        for frame in preview["frames"]
    ]
    return {
        "picture": preview["picture"] and shrink_uri(preview["picture"], SIDE, BYTES),
        "frames": frames,
        "player": preview["player"] and {"box": preview["player"]["box"]},
    }
