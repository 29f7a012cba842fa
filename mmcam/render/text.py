"""Strips with one line of text, in any script and of any length."""

from __future__ import annotations

import math
import unicodedata
from functools import lru_cache

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

BACKGROUND = (252, 252, 252)
FOREGROUND = (26, 26, 30)
MUTED = (104, 104, 112)

ELLIPSIS = "…"
MIN_SCALE = 0.75  # text is shrunk to this fraction (8 pixels at least) before truncation

# Pillow's default font covers little more than ASCII. Other text is drawn in the font that covers
# the most of its letters: Pillow's, or an installed font of this list.
DEFAULT_FONT = ""
FALLBACK_FONTS = (
    "DejaVuSans.ttf",
    "NotoSans-Regular.ttf",
    "NotoSansCJK-Regular.ttc",
    "Arial Unicode.ttf",
    "arial.ttf",
    "msyh.ttc",
)


def text_size(width: int) -> int:
    """The font size in pixels for a picture of this width; it grows with its square root."""
    return max(11, round(0.9 * math.sqrt(width)))


def text_strip(
    width: int, text: str, detail: str = "", *, size: int, inset: int = 0, muted: bool = False
) -> UInt8[np.ndarray, "bar_h width 3"]:
    """A strip with `text` on the left and `detail`, smaller and lighter, on the right.

    The height is even and depends on `size` alone, so that strips of one font size align.
    `inset` is the margin on the left and on the right in pixels. If `muted`, `text` is as light as
    `detail`.
    """
    # Strips are cached, because all frames of a clip share them; a copy keeps the cache intact.
    # Letters beyond the first `width` do not fit, because a letter is at least a pixel wide (except
    # combining marks); without them, a long text is measured faster.
    lines = one_line(text)[: width + 1], one_line(detail)[: width + 1]
    return _draw_strip(width, *lines, size, inset, muted).copy()


@lru_cache(maxsize=64)
def _draw_strip(
    width: int, text: str, detail: str, size: int, inset: int, muted: bool
) -> UInt8[np.ndarray, "bar_h width 3"]:
    height = 2 * math.ceil(0.85 * size)
    # Capitals, about 0.7 of the font size high, are centred in the strip.
    baseline = round((height + 0.7 * size) / 2)
    image = Image.new("RGB", (width, height), BACKGROUND)
    draw = ImageDraw.Draw(image)
    text_width, detail_width = _split_width(width - 2 * inset, text, detail, size)
    fitted, font = fit_text(text, size, text_width)
    fill = MUTED if muted else FOREGROUND
    draw.text((inset, baseline), fitted, fill=fill, font=font, anchor="ls")
    fitted, font = fit_text(detail, detail_size(size), detail_width)
    draw.text((width - inset, baseline), fitted, fill=MUTED, font=font, anchor="rs")
    return np.asarray(image)


def detail_size(size: int) -> int:
    """The font size of a detail or subtitle next to a text of this size."""
    return max(10, round(0.85 * size))


def _split_width(available: int, text: str, detail: str, size: int) -> tuple[int, int]:
    """The widths of text and detail in pixels; if both are long, the detail gets 40 percent."""
    if not detail:
        return available, 0
    available -= size  # the gap between text and detail
    needed = math.ceil(_text_width(detail, _font_for(detail, detail_size(size))))
    remaining = available - math.ceil(_text_width(text, _font_for(text, size)))
    detail_width = min(needed, max(remaining, round(0.4 * available)))
    return available - detail_width, detail_width


def fit_text(text: str, size: int, width: int) -> tuple[str, Font]:
    """Fit a text into `width` pixels by reducing the font size and then, if needed, truncating.

    The text is empty if not even an ellipsis fits.
    """
    smallest = max(8, round(MIN_SCALE * size))
    for candidate in range(size, smallest - 1, -1):
        font = _font_for(text, candidate)
        if _text_width(text, font) <= width:
            return text, font
    font = _font_for(text + ELLIPSIS, min(size, smallest))
    fits, too_long = -1, len(text)
    while too_long - fits > 1:
        middle = (fits + too_long) // 2
        if _text_width(_truncate(text, middle), font) <= width:
            fits = middle
        else:
            too_long = middle
    return (_truncate(text, fits) if fits >= 0 else ""), font


def _truncate(text: str, length: int) -> str:
    return text[:length].rstrip() + ELLIPSIS


def one_line(text: str) -> str:
    """The text with each line break, control character and surrogate made a space; stripped."""
    blank = ("Cc", "Cs", "Zl", "Zp")  # control characters, surrogates, line separators
    return "".join(" " if unicodedata.category(char) in blank else char for char in text).strip()


def _text_width(text: str, font: Font) -> float:
    return font.getlength(text) if text else 0.0


def _font_for(text: str, size: int) -> Font:
    """The font that covers the most non-ASCII letters of the text; Pillow's default wins ties."""
    special = frozenset(letter for letter in text if not letter.isascii() and letter != ELLIPSIS)
    name = _best_font(special) if special else DEFAULT_FONT
    return _load_font(name, size) or ImageFont.load_default(size)


@lru_cache(maxsize=512)
def _best_font(letters: frozenset[str]) -> str:
    best_name, best_count = DEFAULT_FONT, _covered(DEFAULT_FONT, letters)
    for name in FALLBACK_FONTS:
        # Stop as soon as all letters are covered, because loading a font searches system folders.
        if best_count == len(letters):
            break
        count = _covered(name, letters)
        if count > best_count:
            best_name, best_count = name, count
    return best_name


def _covered(name: str, letters: frozenset[str]) -> int:
    """The number of letters for which the font has a glyph."""
    font = _load_font(name, 16)
    if font is None:
        return 0
    # U+FFFF is no character, so every font draws it as its missing glyph.
    missing = bytes(font.getmask("\uffff"))
    return sum(bytes(font.getmask(letter)) != missing for letter in letters)


@lru_cache(maxsize=256)
def _load_font(name: str, size: int) -> Font | None:
    """Load a font by its file name, or Pillow's (`DEFAULT_FONT`); None if it is not installed."""
    try:
        is_default = name == DEFAULT_FONT
        return ImageFont.load_default(size) if is_default else ImageFont.truetype(name, size)
    except OSError:
        return None
