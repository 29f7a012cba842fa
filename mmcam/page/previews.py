"""Previews of the input, small enough to embed in a page: the picture, or frames of a clip."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from mmcam.media import Clip
from mmcam.render.inline import as_jpeg
from mmcam.results.drawing import compose_frame
from mmcam.types import Pixels

SIDE = 1600
"""The longer side of an embedded picture in pixels, at most."""

BYTES = 600_000
"""The size in bytes above which a picture is encoded at a lower quality."""

FRAMES = 12
"""The number of frames in the preview of a clip, at most."""

FRAME_SIDE = 480


def image_preview(pixels: Pixels) -> dict[str, Any]:
    """The preview of a picture, as embedded in a page."""
    return {"picture": as_jpeg(pixels, SIDE, BYTES), "frames": [], "player": None}


def clip_preview(clip: Clip, names: Sequence[str]) -> dict[str, Any]:
    """The preview of a clip: evenly spaced frames, and the box of the original in a written clip.

    `names` are the panes of the written clip, as passed to `drawing.write_clip`.

    Raises:
        InputError: a frame cannot be decoded.
    """
    count = min(FRAMES, clip.frames)
    indices = [(2 * i + 1) * clip.frames // (2 * count) for i in range(count)]
    frames = [  # read one by one, because all of them may not fit in memory
        {"frame": i, "picture": as_jpeg(clip.read([i])[0], FRAME_SIDE, BYTES)} for i in indices
    ]
    box = original_box(names, clip.height, clip.width)
    return {"picture": None, "frames": frames, "player": {"box": box}}


def original_box(names: Sequence[str], height: int, width: int) -> list[int] | None:
    """The box of the pane "original" in a written clip: left, top, width and height in pixels.

    Returns None if the clip has no such pane. The pane is located by drawing two frames that differ
    only in that pane.
    """
    if "original" not in names:
        return None
    black = np.zeros((height, width, 3), np.uint8)
    frames = []
    for level in (0, 255):  # the layout does not depend on the texts
        pictures = [np.full_like(black, level if name == "original" else 0) for name in names]
        frames.append(compose_frame(pictures, names, " ", " "))
    rows, columns = np.nonzero((frames[0] != frames[1]).any(-1))
    return [int(columns[0]), int(rows[0]), width, height]


def shrink_uri(uri: str, side: int, limit: int) -> str:
    """Shrink an embedded picture (`as_jpeg`) to at most `side` pixels and about `limit` bytes.

    Raises:
        ValueError: the URI holds no picture.
    """
    try:
        content = base64.b64decode(uri.removeprefix("data:image/jpeg;base64,"), validate=True)
        pixels = np.asarray(Image.open(io.BytesIO(content), formats=["JPEG"]).convert("RGB"))
    except (OSError, Image.DecompressionBombError) as error:
        raise ValueError(f"the page holds a broken picture ({error})") from error
    return as_jpeg(pixels, side, limit)
