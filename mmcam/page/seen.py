"""What the model was shown, small enough to travel in a page: the picture, or frames of a clip."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from mmcam.media import Clip
from mmcam.render.inline import as_jpeg
from mmcam.results.drawing import framed
from mmcam.types import Pixels

SIDE = 1600
"""The longer side of the picture in a page, at most."""

BYTES = 600_000
"""What the picture may take before it is written at a lower quality."""

FRAMES = 12
"""How many frames stand for a clip."""

FRAME_SIDE = 480


def image_preview(pixels: Pixels) -> dict[str, Any]:
    """A picture as a page holds it."""
    return {"picture": as_jpeg(pixels, SIDE, BYTES), "frames": [], "player": None}


def clip_preview(clip: Clip, names: Sequence[str]) -> dict[str, Any]:
    """A clip as a page holds it: frames spread evenly, and where a written clip shows it.

    `names` are the panes of the written clip, as `draw.write_clip` takes them.
    """
    count = min(FRAMES, clip.frames)
    numbers = [(2 * i + 1) * clip.frames // (2 * count) for i in range(count)]
    frames = [  # one at a time: those of a large clip do not fit in memory together
        {"frame": n, "picture": as_jpeg(clip.read([n])[0], FRAME_SIDE, BYTES)} for n in numbers
    ]
    box = original_box(names, clip.height, clip.width)
    return {"picture": None, "frames": frames, "player": {"box": box}}


def original_box(names: Sequence[str], height: int, width: int) -> list[int] | None:
    """Where the pane "original" lies in a written clip: left, top, width and height in pixels.

    None where it has none. Found by drawing: what changes with that pane alone is that pane.
    """
    if "original" not in names:
        return None
    dark = np.zeros((height, width, 3), np.uint8)
    drawn = []
    for level in (0, 255):  # the layout does not depend on what the texts say
        made = [np.full_like(dark, level if name == "original" else 0) for name in names]
        drawn.append(framed(made, names, " ", " "))
    rows, columns = np.nonzero((drawn[0] != drawn[1]).any(-1))
    return [int(columns[0]), int(rows[0]), width, height]


def shrunk_uri(uri: str, side: int, limit: int) -> str:
    """A picture of a page (`as_jpeg`) again, at most `side` and about `limit` bytes large.

    Raises:
        ValueError: it is no picture.
    """
    try:
        content = base64.b64decode(uri.removeprefix("data:image/jpeg;base64,"), validate=True)
        pixels = np.asarray(Image.open(io.BytesIO(content), formats=["JPEG"]).convert("RGB"))
    except (OSError, Image.DecompressionBombError) as error:
        raise ValueError(f"its page holds a broken picture ({error})") from error
    return as_jpeg(pixels, side, limit)
