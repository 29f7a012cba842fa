"""Several pictures and their captions as one: strips, panes side by side, contact sheets."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from mmcam.errors import InputError
from mmcam.render.checks import check_picture, check_size, describe
from mmcam.render.text import PAPER, smaller, strip, text_size

Picture = UInt8[np.ndarray, "_ _ 3"]  # each of any size

TALLEST = 4 / 3  # a tile is at most this much taller than it is wide: upright photos fill it


def caption_bar(width: int, text: str, *, detail: str = "") -> UInt8[np.ndarray, "bar_h width 3"]:
    """A strip with a label on the left and its score, or another detail, on the right.

    Its height is even and depends on the width alone, in pixels. Text that is too long is shrunk
    to three quarters, then cut off with an ellipsis; line breaks become spaces.

    Raises:
        InputError: the width is not a whole number from 1 up.
    """
    check_size(width, "width")
    size = text_size(width)
    return strip(width, text, detail, size=size, inset=size // 2)


def panes(
    frames: Sequence[UInt8[np.ndarray, "h w 3"]],
    titles: Sequence[str],
    *,
    header: str = "",
    detail: str = "",
) -> UInt8[np.ndarray, "H W 3"]:
    """Pictures of one size side by side, each under its title, below a header with a score.

    Height and width are even, as video encoders want them. They depend only on the pictures' size
    and number, on whether header and detail are both "", and on whether all titles are: a strip
    with nothing to say is left out. Give " " to keep it where only some frames of a clip have
    text.

    Raises:
        InputError: there are no pictures, their sizes differ, or there is not one title for each.
    """
    width = _common_width(frames, titles)
    gap = max(2, width // 80)
    columns = len(frames) * (width + gap) + gap
    columns += columns % 2
    parts = []
    if header or detail:
        size = text_size(columns)
        parts.append(strip(columns, header, detail, size=size, inset=max(gap, size // 2)))
    else:
        parts.append(_paper(gap, columns))
    if any(titles):
        labels = [strip(width, title, size=text_size(width)) for title in titles]
        parts.append(_beside(labels, gap, columns))
    parts.append(_beside(frames, gap, columns))
    below = gap + (sum(len(part) for part in parts) + gap) % 2
    return np.concatenate([*parts, _paper(below, columns)])


def _beside(pictures: Sequence[Picture], gap: int, columns: int) -> Picture:
    """Pictures of one size in a row, `gap` before each, on paper `columns` wide."""
    height, width = pictures[0].shape[:2]
    row = _paper(height, columns)
    for place, picture in enumerate(pictures):
        left = gap + place * (width + gap)
        row[:, left : left + width] = picture
    return row


def _paper(height: int, width: int) -> Picture:
    return np.full((height, width, 3), PAPER, dtype=np.uint8)


def _common_width(frames: Sequence[Picture], titles: Sequence[str]) -> int:
    """The width of the pictures, which must be of one size.

    Raises:
        InputError: as `panes` says.
    """
    if not frames or len(frames) != len(titles):
        raise InputError(
            f"there are {len(frames)} pictures and {len(titles)} titles; give at least one "
            'picture, and one title for each ("" for none)'
        )
    for frame in frames:
        check_picture(frame, "a pane")
        if frame.shape != frames[0].shape:
            raise InputError(
                f"one pane is {describe(frames[0])}, another {describe(frame)}: panes share one "
                "size; resize them first, or use sheet()"
            )
    width: int = frames[0].shape[1]
    return width


def sheet(
    tiles: Sequence[tuple[Picture, str, str]],
    *,
    columns: int | None = None,
    title: str = "",
    tile_width: int = 320,
) -> UInt8[np.ndarray, "H W 3"]:
    """A contact sheet: pictures of any sizes in a grid, each over its title and subtitle.

    Tiles are (picture, title, subtitle), row by row. Each picture keeps its proportions and is
    scaled to `tile_width` pixels, or less where it is very tall. Without `columns`, the number is
    chosen so that few places stay empty. Titles or subtitles that are all "" take no room.

    Raises:
        InputError: there are no tiles, one holds no picture, or a count is not 1 or more.
    """
    check_size(tile_width, "tile_width")
    if not tiles:
        raise InputError("there are no tiles to put on a sheet; give at least one picture")
    if columns is None:
        columns = _columns(len(tiles))
    check_size(columns, "columns")
    columns = min(columns, len(tiles))
    gap = max(4, tile_width // 20)
    captions = _captions(tiles, tile_width)
    pictures = [_scaled(picture, tile_width) for picture, _, _ in tiles]
    width = columns * (tile_width + gap) + gap
    parts = [_heading(title, width, gap)]
    for first in range(0, len(tiles), columns):
        row = slice(first, first + columns)
        parts += [_bottoms_aligned(pictures[row], tile_width, gap, width)]
        parts += [_beside(captions[row], gap, width), _paper(gap, width)]
    return np.concatenate(parts)


def _columns(count: int) -> int:
    """Up to four in one row; then the row of three to six that leaves the fewest places empty."""
    if count <= 4:
        return count
    return min((4, 5, 3, 6), key=lambda columns: -count % columns)


def _heading(title: str, width: int, gap: int) -> Picture:
    if not title:
        return _paper(gap, width)
    size = text_size(width)
    space = _paper(gap // 2, width)
    return np.concatenate([space, strip(width, title, size=size, inset=gap), space])


def _captions(tiles: Sequence[tuple[Picture, str, str]], width: int) -> list[Picture]:
    """The strips under the pictures, all of one height."""
    size = text_size(width)
    titled, detailed = (any(tile[part] for tile in tiles) for part in (1, 2))
    captions = []
    for _, title, subtitle in tiles:
        lines = [_paper(0, width)]
        if titled:
            lines.append(strip(width, title, size=size))
        if detailed:
            lines.append(strip(width, subtitle, size=smaller(size), muted=True))
        captions.append(np.concatenate(lines))
    return captions


def _scaled(picture: Picture, width: int) -> Picture:
    """The picture at most `width` wide and `TALLEST` times as much tall, its proportions kept.

    Raises:
        InputError: it is no picture.
    """
    check_picture(picture, "a tile")
    height = picture.shape[0]
    scale = min(width / picture.shape[1], TALLEST * width / height)
    size = max(1, round(picture.shape[1] * scale)), max(1, round(height * scale))
    smooth = Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.BICUBIC
    return np.asarray(Image.fromarray(picture).resize(size, smooth))


def _bottoms_aligned(pictures: Sequence[Picture], tile: int, gap: int, columns: int) -> Picture:
    """Pictures in a row of tiles, standing on one line so that each is right over its title."""
    row = _paper(max(len(picture) for picture in pictures), columns)
    for place, picture in enumerate(pictures):
        left = gap + place * (tile + gap)
        row[len(row) - len(picture) :, left : left + picture.shape[1]] = picture
    return row
