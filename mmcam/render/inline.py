"""Pictures inside a text: as data URIs for a page, and as a small card for a notebook."""

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
    """A picture as a data URI, scaled down to `side`; its quality falls until `limit` is met."""
    image = _shrunk(pixels, side)
    for quality in (88, 80, 70, 55, 40):
        file = io.BytesIO()
        image.save(file, "JPEG", quality=quality, optimize=True)
        if file.tell() <= limit:
            break
    return _data_uri(file.getvalue(), "jpeg")


def as_png(pixels: Picture, side: int) -> str:
    """A picture as a data URI without loss, scaled down to `side`."""
    file = io.BytesIO()
    _shrunk(pixels, side).save(file, "PNG", optimize=True)
    return _data_uri(file.getvalue(), "png")


def _shrunk(pixels: Picture, side: int) -> Image.Image:
    image = Image.fromarray(np.ascontiguousarray(pixels))
    scale = side / max(image.size)
    if scale >= 1:
        return image
    width, height = (max(1, round(length * scale)) for length in image.size)
    return image.resize((width, height), Image.Resampling.LANCZOS)


def _data_uri(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def card(pixels: Picture, title: str, facts: Sequence[str]) -> str:
    """A picture with its title and facts as HTML that stands alone; texts are escaped."""
    said = html.escape(f"{title}: {'; '.join(facts)}")
    below = html.escape(" · ".join(facts))
    return (
        '<figure style="margin: 0; font-family: system-ui, sans-serif">'
        f'<img src="{as_png(pixels, max(pixels.shape))}" alt="{said}" '
        'style="max-width: 100%; border-radius: 8px">'
        f'<figcaption><strong dir="auto">{html.escape(title)}</strong><br>{below}</figcaption>'
        "</figure>"
    )
