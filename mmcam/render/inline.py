"""Pictures embedded in HTML: data URIs for a page, and a card for a notebook."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8
from PIL import Image

Picture = UInt8[np.ndarray, "_ _ 3"]


def as_jpeg(pixels: Picture, side: int, limit: int) -> str:
    """A picture as a JPEG data URI, its longer side at most `side` pixels.

    The quality is lowered, to no less than 40, until the file has at most `limit` bytes.
    """
    image = _shrink(pixels, side)
    for quality in (88, 80, 70, 55, 40):
        file = io.BytesIO()
        image.save(file, "JPEG", quality=quality, optimize=True)
        if file.tell() <= limit:
            break
    return _data_uri(file.getvalue(), "jpeg")


def as_png(pixels: Picture, side: int) -> str:
    """A picture as a lossless PNG data URI, its longer side at most `side` pixels."""
    file = io.BytesIO()
    _shrink(pixels, side).save(file, "PNG", optimize=True)
    return _data_uri(file.getvalue(), "png")


def _shrink(pixels: Picture, side: int) -> Image.Image:
    image = Image.fromarray(np.ascontiguousarray(pixels))
    scale = side / max(image.size)
    if scale >= 1:
        return image
    width, height = (max(1, round(length * scale)) for length in image.size)
    return image.resize((width, height), Image.Resampling.LANCZOS)


def _data_uri(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def card(pixels: Picture, title: str, facts: Sequence[str]) -> str:
    """A picture with its title and facts as self-contained HTML; texts are escaped."""
    alt = html.escape(f"{title}: {'; '.join(facts)}")
    details = html.escape(" · ".join(facts))
    return (
        '<figure style="margin: 0; font-family: system-ui, sans-serif">'
        f'<img src="{as_png(pixels, max(pixels.shape))}" alt="{alt}" '
        'style="max-width: 100%; border-radius: 8px">'
        f'<figcaption><strong dir="auto">{html.escape(title)}</strong><br>{details}</figcaption>'
        "</figure>"
    )
