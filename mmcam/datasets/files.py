"""Helpers of the dataset readers: list folders, read text and JSON files."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mmcam.errors import InputError

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm"}
)
"""Suffixes of image files."""


def files_in(folder: Path) -> Iterable[Path]:
    """All files under a folder except hidden ones.

    Raises:
        InputError: there is no such folder.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; name a folder of pictures")
    return (path for path in folder.rglob("*") if not path.name.startswith(".") and path.is_file())


def read_lines(path: Path) -> list[str]:
    """The lines of a text file, with their line ends.

    Raises:
        InputError: the file cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8-sig").splitlines(keepends=True)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read ({error}); check the path") from error


def read_json(path: Path, content: str) -> Any:
    """The value in a JSON file; `content` describes the value in the error message.

    Raises:
        InputError: the file cannot be read.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path} cannot be read ({error}); name a JSON file of {content}"
        ) from error
