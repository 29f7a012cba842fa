"""A sentence whose words are shaded by their contribution to a score."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw

from mmcam.render.text import BACKGROUND, FOREGROUND, fit_text, one_line, text_size

POSITIVE, NEGATIVE = (242, 142, 43), (78, 121, 167)
"""The colours of words that raise or lower the score, safe for colour-blind readers."""


def shaded_words(
    words: Sequence[tuple[str, float]], width: int, size: int | None = None
) -> UInt8[np.ndarray, "bar_h width 3"]:
    """The words on as many lines as needed, each on a background shaded by its contribution.

    Orange words raise the score, blue words lower it; the strongest word has the full colour.
    `size` is the font size in pixels; if None, it depends on the width (`text_size`).
    """
    size = size or text_size(width)
    pad, line_height = max(2, size // 5), 2 * round(0.8 * size)
    strongest = max((abs(contribution) for _, contribution in words), default=0.0) or 1.0
    boxes, x, y = [], pad, 0
    for word, contribution in words:
        text, font = fit_text(one_line(word), size, width - 4 * pad)
        box_width = round(font.getlength(text)) + 2 * pad
        if x + box_width > width - pad and x > pad:
            x, y = pad, y + line_height
        boxes.append((x, y, box_width, text, font, contribution / strongest))
        x += box_width + pad
    image = Image.new("RGB", (width, y + line_height + y % 2), BACKGROUND)
    draw = ImageDraw.Draw(image)
    for x, y, box_width, text, font, strength in boxes:
        colour = POSITIVE if strength > 0 else NEGATIVE
        fill = tuple(
            round(background + abs(strength) * (full - background))
            for background, full in zip(BACKGROUND, colour, strict=True)
        )
        box = (x, y + 1, x + box_width - 1, y + line_height - 3)
        draw.rounded_rectangle(box, radius=pad, fill=fill)
        draw.text(
            (x + pad, y + line_height // 2 - 1), text, fill=FOREGROUND, font=font, anchor="lm"
        )
    return np.asarray(image).copy()
