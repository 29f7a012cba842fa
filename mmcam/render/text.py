"""One line of text on a strip of paper, whatever it says and however long it is."""

from __future__ import annotations

import math
import unicodedata
from functools import lru_cache

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

PAPER = (252, 252, 252)
INK = (26, 26, 30)
MUTED = (104, 104, 112)

ELLIPSIS = "…"
SMALLEST = 0.75  # text is shrunk down to this share of its size before it is cut off

# Pillow's own font draws little more than ASCII. Text that needs more is drawn in whichever of
# these is installed and has the most of it.
OWN = ""
FALLBACKS = (
    "DejaVuSans.ttf",
    "NotoSans-Regular.ttf",
    "NotoSansCJK-Regular.ttc",
    "Arial Unicode.ttf",
    "arial.ttf",
    "msyh.ttc",
)


def text_size(width: int) -> int:
    """The font size that suits a picture, both in pixels; it grows more slowly than the picture."""
    return max(11, round(0.9 * math.sqrt(width)))


def strip(
    width: int, text: str, detail: str = "", *, size: int, inset: int = 0, muted: bool = False
) -> UInt8[np.ndarray, "bar_h width 3"]:
    """A strip with `text` on the left and `detail`, smaller and lighter, on the right.

    The height is even and depends on `size` alone, so strips of one size always fit one another.
    """
    # A clip asks for the same strips frame after frame; what they share must not be written to.
    # No letter is narrower than a pixel, so what lies beyond `width` of them is never drawn.
    shown = one_line(text)[: width + 1], one_line(detail)[: width + 1]
    return _strip(width, *shown, size, inset, muted).copy()


@lru_cache(maxsize=64)
def _strip(
    width: int, text: str, detail: str, size: int, inset: int, muted: bool
) -> UInt8[np.ndarray, "bar_h width 3"]:
    height = 2 * math.ceil(0.85 * size)
    baseline = round((height + 0.7 * size) / 2)  # capitals are about 0.7 of the size high
    image = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(image)
    text_room, detail_room = _shared(width - 2 * inset, text, detail, size)
    words, font = fitted(text, size, text_room)
    draw.text((inset, baseline), words, fill=MUTED if muted else INK, font=font, anchor="ls")
    words, font = fitted(detail, smaller(size), detail_room)
    draw.text((width - inset, baseline), words, fill=MUTED, font=font, anchor="rs")
    return np.asarray(image)


def smaller(size: int) -> int:
    """The font size of what is said beside or under a text of this size."""
    return max(10, round(0.85 * size))


def _shared(room: int, text: str, detail: str, size: int) -> tuple[int, int]:
    """The room of each when both must fit; of two long ones, the detail gets 40 percent."""
    if not detail:
        return room, 0
    room -= size  # the gap between them
    wanted = math.ceil(_length(detail, _font_for(detail, smaller(size))))
    left = room - math.ceil(_length(text, _font_for(text, size)))
    given = min(wanted, max(left, round(0.4 * room)))
    return room - given, given


def fitted(text: str, size: int, room: int) -> tuple[str, Font]:
    """The text and a font in which it is at most `room` pixels wide: shrunk, then cut off."""
    smallest = max(8, round(SMALLEST * size))
    for candidate in range(size, smallest - 1, -1):
        font = _font_for(text, candidate)
        if _length(text, font) <= room:
            return text, font
    font = _font_for(text + ELLIPSIS, min(size, smallest))
    fits, too_long = -1, len(text)
    while too_long - fits > 1:
        middle = (fits + too_long) // 2
        if _length(_cut(text, middle), font) <= room:
            fits = middle
        else:
            too_long = middle
    return (_cut(text, fits) if fits >= 0 else ""), font


def _cut(text: str, length: int) -> str:
    return text[:length].rstrip() + ELLIPSIS


def one_line(text: str) -> str:
    """The text with line breaks, tabs and what no font can draw as single spaces."""
    blank = ("Cc", "Cs", "Zl", "Zp")  # control letters, halves of pairs, separators
    return "".join(" " if unicodedata.category(one) in blank else one for one in text).strip()


def _length(text: str, font: Font) -> float:
    return font.getlength(text) if text else 0.0


def _font_for(text: str, size: int) -> Font:
    """The font that has the most letters of the text; Pillow's own where it is as good as any."""
    special = frozenset(letter for letter in text if not letter.isascii() and letter != ELLIPSIS)
    return _font(_best_font(special) if special else OWN, size) or ImageFont.load_default(size)


@lru_cache(maxsize=512)
def _best_font(letters: frozenset[str]) -> str:
    best, most = OWN, _drawn(OWN, letters)
    for name in FALLBACKS:
        # Looking for a font walks the system's folders, so it ends as soon as nothing is missing.
        if most == len(letters):
            break
        drawn = _drawn(name, letters)
        if drawn > most:
            best, most = name, drawn
    return best


def _drawn(name: str, letters: frozenset[str]) -> int:
    """How many letters have a shape of their own, not the box that stands for "none"."""
    font = _font(name, 16)
    if font is None:
        return 0
    box = bytes(font.getmask("\uffff"))
    return sum(bytes(font.getmask(letter)) != box for letter in letters)


@lru_cache(maxsize=256)
def _font(name: str, size: int) -> Font | None:
    """A font by its file name; None where it is not installed."""
    try:
        return ImageFont.load_default(size) if name == OWN else ImageFont.truetype(name, size)
    except OSError:
        return None
