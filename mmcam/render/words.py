"""A sentence whose words are shaded by their part in a score."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw

from mmcam.render.text import INK, PAPER, fitted, one_line, text_size

FOR, AGAINST = (242, 142, 43), (78, 121, 167)
"""The colours of words that speak for the score, and against it; the colour-blind see both."""


def shaded_words(
    words: Sequence[tuple[str, float]], width: int, size: int | None = None
) -> UInt8[np.ndarray, "bar_h width 3"]:
    """The words on as many lines as they need, each on a ground as strong as its part.

    Orange speaks for the score, blue against it; the strongest word has the full colour. `size` is
    that of the text, in pixels.
    """
    size = size or text_size(width)
    pad, line = max(2, size // 5), 2 * round(0.8 * size)
    strongest = max((abs(part) for _, part in words), default=0.0) or 1.0
    places, x, y = [], pad, 0
    for text, part in words:
        shown, font = fitted(one_line(text), size, width - 4 * pad)
        wide = round(font.getlength(shown)) + 2 * pad
        if x + wide > width - pad and x > pad:
            x, y = pad, y + line
        places.append((x, y, wide, shown, font, part / strongest))
        x += wide + pad
    image = Image.new("RGB", (width, y + line + y % 2), PAPER)
    draw = ImageDraw.Draw(image)
    for x, y, wide, shown, font, share in places:
        colour = FOR if share > 0 else AGAINST
        ground = tuple(
            round(paper + abs(share) * (ink - paper))
            for paper, ink in zip(PAPER, colour, strict=True)
        )
        draw.rounded_rectangle((x, y + 1, x + wide - 1, y + line - 3), radius=pad, fill=ground)
        draw.text((x + pad, y + line // 2 - 1), shown, fill=INK, font=font, anchor="lm")
    return np.asarray(image).copy()
