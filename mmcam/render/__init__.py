"""Drawing: pure functions from arrays to uint8 pictures."""

from mmcam.render.colormaps import COLORMAPS, colorize, colorize_signed
from mmcam.render.figures import caption_bar, panes, sheet
from mmcam.render.overlay import OPACITY, as_colours, explanation_map, gradient_picture, overlay
from mmcam.render.words import shaded_words

__all__ = [
    "COLORMAPS",
    "OPACITY",
    "as_colours",
    "caption_bar",
    "colorize",
    "colorize_signed",
    "explanation_map",
    "gradient_picture",
    "overlay",
    "panes",
    "shaded_words",
    "sheet",
]
