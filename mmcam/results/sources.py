"""The picture or clip that was explained: its description in results, and its pixels."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mmcam.adapters.base.weights import file_hash
from mmcam.errors import InputError
from mmcam.media import Clip, open_clip, read_image
from mmcam.types import Pixels


@dataclass(frozen=True, kw_only=True)
class ImageSource:
    """The picture that was explained.

    `path` is the sample's id: the path of the file, if the picture was read from a file. If the
    result was read from a folder, `pixels` is None, and `sha256` is the hash of that file.
    """

    path: str
    height: int
    width: int
    pixels: Pixels | None = field(default=None, repr=False)
    sha256: str | None = None

    def facts(self) -> dict[str, Any]:
        """The `input` entry of `explanation.json`."""
        return {
            "path": self.path,
            "sha256": self.sha256 or _hash(self.path),
            "width": self.width,
            "height": self.height,
        }

    def read(self) -> Pixels:
        """The pixels, from the file if the result was read from a folder.

        Raises:
            InputError: the file is missing, cannot be read, or has changed.
        """
        if self.pixels is not None:
            return self.pixels
        _check_file(self.path, self.sha256)
        return read_image(self.path).pixels


@dataclass(frozen=True, kw_only=True)
class ClipSource:
    """The clip that was explained, to reopen it for drawing.

    `source` is the argument of `open_clip`. If the result was read from a folder, `source` is None,
    and the clip is opened from `path`.
    """

    path: str
    frames: int
    fps: float
    height: int
    width: int
    source: Any = field(default=None, repr=False)
    sha256: str | None = None

    def facts(self) -> dict[str, Any]:
        """The `input` entry of `explanation.json`."""
        return {
            "path": self.path,
            "sha256": self.sha256 or _hash(self.path),
            "width": self.width,
            "height": self.height,
            "frames": self.frames,
            "fps": self.fps,
        }

    def open(self) -> Clip:
        """The clip, opened again.

        Raises:
            InputError: the clip is missing or broken, or its file has changed.
        """
        if self.source is not None:
            return open_clip(self.source, fps=self.fps)
        _check_file(self.path, self.sha256)
        return open_clip(self.path, fps=self.fps)


def source_of(entry: Mapping[str, Any]) -> ImageSource | ClipSource:
    """The picture or clip of the `input` entry of `explanation.json`.

    Raises:
        KeyError, TypeError, ValueError: the entry is broken.
    """
    fields: dict[str, Any] = {
        "path": str(entry["path"]),
        "sha256": entry.get("sha256"),
        "height": int(entry["height"]),
        "width": int(entry["width"]),
    }
    if entry.get("frames"):
        return ClipSource(**fields, frames=int(entry["frames"]), fps=float(entry["fps"]))
    return ImageSource(**fields)


def _hash(path: str) -> str | None:
    """The SHA-256 of the input's file; None if the input is not a file."""
    return file_hash(path) if os.path.isfile(path) else None


def _check_file(path: str, sha256: str | None) -> None:
    """Check that the input file of a result is the one that was explained.

    Raises:
        InputError: the file is missing, or has changed.
    """
    if not os.path.exists(path):
        raise InputError(
            f"the input '{path}' is missing, so the maps cannot be drawn on it; put "
            "the file back (the raw maps and heatmaps need no file)"
        )
    if sha256 is not None and _hash(path) != sha256:
        raise InputError(
            f"'{path}' has changed since it was explained (its SHA-256 differs); put the old file "
            "back, or explain the new one"
        )
