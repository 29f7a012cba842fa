"""Pictures on axes of matplotlib, which is imported on first use."""

from __future__ import annotations

import math
import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import UInt8

from mmcam.errors import InputError, MissingExtra
from mmcam.render.checks import check_size
from mmcam.render.figures import tile_columns
from mmcam.render.text import one_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Picture = UInt8[np.ndarray, "_ _ 3"]

WIDTH, SINGLE_WIDTH = 3.2, 4.8
"""The width of a picture in a new figure, in inches: one of several, and the only one."""

TITLE_HEIGHT, HEADER_HEIGHT = 0.5, 0.3
"""The heights of a picture's title of two lines and of a figure's title, in inches."""


def import_pyplot() -> Any:
    """Import pyplot.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    try:
        import matplotlib.pyplot
    except ImportError as error:
        raise MissingExtra("plots need matplotlib; pip install 'mmcam[notebook]'") from error
    return matplotlib.pyplot


def plot_picture(picture: Picture, title: str, ax: Axes | None = None) -> Axes:
    """Draw a picture on `ax`, or on the axes of a new figure if None, and return these axes.

    The axes count the picture's pixels: the centre of the pixel in row 0 and column 0 is
    (0.5, 0.5), as in `Explanation.peak`.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    height, width = picture.shape[:2]
    if ax is None:
        (ax,) = new_axes(1, height / width)
    ax.imshow(picture, extent=(0, width, height, 0))
    ax.set_axis_off()
    # A label is not a formula, even if it has two dollar signs.
    ax.set_title(title, fontsize="medium", parse_math=False)
    return ax


def new_axes(count: int, aspect: float, columns: int | None = None, title: str = "") -> list[Axes]:
    """A new figure with axes for `count` pictures in a grid, row by row, under a title.

    `aspect` is the height of a picture over its width. If `columns` is None, the number is chosen
    to leave few cells empty.

    Raises:
        MissingExtra: matplotlib is not installed.
        InputError: there are no pictures, or `columns` is not a positive integer.
    """
    pyplot = import_pyplot()
    if not count:
        raise InputError("there are no maps to plot; explain at least one label")
    if columns is not None:
        check_size(columns, "columns")
    columns = min(columns or tile_columns(count), count)
    rows = math.ceil(count / columns)
    width = WIDTH if count > 1 else SINGLE_WIDTH
    height = rows * (width * aspect + TITLE_HEIGHT) + (HEADER_HEIGHT if title else 0)
    figure, grid = pyplot.subplots(
        rows, columns, figsize=(columns * width, height), layout="constrained", squeeze=False
    )
    axes = list(grid.flat)
    for unused in axes[count:]:
        unused.remove()
    if title:
        text = wrapped_title(title, int(columns * width * 9))
        figure.suptitle(text, parse_math=False)
    return axes[:count]


def wrapped_title(text: str, width: int = 36) -> str:
    """The text on one or two lines of at most `width` characters, truncated if it is longer."""
    return "\n".join(textwrap.wrap(one_line(text), width, max_lines=2, placeholder=" …"))
