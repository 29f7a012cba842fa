"""Compositions of pictures and captions: caption bars, panes side by side, contact sheets."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from mmcam.errors import InputError
from mmcam.render.checks import check_picture, check_size, describe
from mmcam.render.text import BACKGROUND, detail_size, text_size, text_strip

Picture = UInt8[np.ndarray, "_ _ 3"]  # any height and width

MAX_ASPECT = 4 / 3  # the largest height / width of a tile, that of upright photos


def caption_bar(width: int, text: str, *, detail: str = "") -> UInt8[np.ndarray, "bar_h width 3"]:
    """A strip with a label on the left and its score, or another detail, on the right.

    The height in pixels is even and depends on the width alone. Text that is too long is shrunk to
    three quarters, then truncated with an ellipsis; line breaks become spaces.

    Raises:
        InputError: the width is not a positive integer.
    """
    check_size(width, "width")
    size = text_size(width)
    return text_strip(width, text, detail, size=size, inset=size // 2)


def panes(
    frames: Sequence[UInt8[np.ndarray, "h w 3"]],
    titles: Sequence[str],
    *,
    header: str = "",
    detail: str = "",
) -> UInt8[np.ndarray, "H W 3"]:
    """Pictures of one size side by side, each below its title, all below a header with a score.

    Height and width are even, as video encoders require. The strip of the header and detail is left
    out if both are "", and the strip of titles if all are "". Otherwise the size depends only on
    the size and number of the pictures. Pass " " to keep a strip if only some frames of a clip have
    text.

    Raises:
        InputError: there are no pictures, one is not `uint8 [h w 3]`, their sizes differ, or the
            number of titles differs.
    """
    width = _common_width(frames, titles)
    gap = max(2, width // 80)
    columns = len(frames) * (width + gap) + gap
    columns += columns % 2
    parts = []
    if header or detail:
        size = text_size(columns)
        parts.append(text_strip(columns, header, detail, size=size, inset=max(gap, size // 2)))
    else:
        parts.append(_blank(gap, columns))
    if any(titles):
        labels = [text_strip(width, title, size=text_size(width)) for title in titles]
        parts.append(_row(labels, gap, columns))
    parts.append(_row(frames, gap, columns))
    margin = gap + (sum(len(part) for part in parts) + gap) % 2
    return np.concatenate([*parts, _blank(margin, columns)])


def _row(pictures: Sequence[Picture], gap: int, columns: int) -> Picture:
    """Pictures of one size in a row `columns` pixels wide, with `gap` pixels before each."""
    height, width = pictures[0].shape[:2]
    row = _blank(height, columns)
    for i, picture in enumerate(pictures):
        left = gap + i * (width + gap)
        row[:, left : left + width] = picture
    return row


def _blank(height: int, width: int) -> Picture:
    return np.full((height, width, 3), BACKGROUND, dtype=np.uint8)


def _common_width(frames: Sequence[Picture], titles: Sequence[str]) -> int:
    """The width of the pictures, which must all have one size.

    Raises:
        InputError: as in `panes`.
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
                f"one pane is {describe(frames[0])}, another {describe(frame)}, but panes must "
                "have one size; resize them first, or use sheet()"
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
    """A contact sheet: pictures of any sizes in a grid, each above its title and subtitle.

    Tiles are (picture, title, subtitle), row by row. Each picture keeps its proportions and is
    scaled to a width of `tile_width` pixels, or less if it is very tall. If `columns` is None, the
    number is chosen to leave few cells empty. Titles, and likewise subtitles, take no space if all
    are "".

    Raises:
        InputError: there are no tiles, a tile holds no picture, or `columns` or `tile_width` is not
            a positive integer.
    """
    check_size(tile_width, "tile_width")
    if not tiles:
        raise InputError("there are no tiles to put on a sheet; give at least one picture")
    if columns is None:
        columns = tile_columns(len(tiles))
    check_size(columns, "columns")
    columns = min(columns, len(tiles))
    gap = max(4, tile_width // 20)
    captions = _captions(tiles, tile_width)
    pictures = [_scale(picture, tile_width) for picture, _, _ in tiles]
    width = columns * (tile_width + gap) + gap
    parts = [_heading(title, width, gap)]
    for first in range(0, len(tiles), columns):
        row = slice(first, first + columns)
        parts += [_bottom_aligned_row(pictures[row], tile_width, gap, width)]
        parts += [_row(captions[row], gap, width), _blank(gap, width)]
    return np.concatenate(parts)


def tile_columns(count: int) -> int:
    """One row for up to 4 tiles; else 3 to 6 columns, with the fewest empty cells."""
    if count <= 4:
        return count
    return min((4, 5, 3, 6), key=lambda columns: -count % columns)


def _heading(title: str, width: int, gap: int) -> Picture:
    if not title:
        return _blank(gap, width)
    size = text_size(width)
    space = _blank(gap // 2, width)
    return np.concatenate([space, text_strip(width, title, size=size, inset=gap), space])


def _captions(tiles: Sequence[tuple[Picture, str, str]], width: int) -> list[Picture]:
    """The title and subtitle strips below the pictures, all of one height."""
    size = text_size(width)
    has_titles, has_subtitles = (any(tile[part] for tile in tiles) for part in (1, 2))
    captions = []
    for _, title, subtitle in tiles:
        lines = [_blank(0, width)]
        if has_titles:
            lines.append(text_strip(width, title, size=size))
        if has_subtitles:
            lines.append(text_strip(width, subtitle, size=detail_size(size), muted=True))
        captions.append(np.concatenate(lines))
    return captions


def _scale(picture: Picture, width: int) -> Picture:
    """Scale a picture to at most `width` x `MAX_ASPECT * width` pixels, keeping its proportions.

    Raises:
        InputError: the array is not a picture.
    """
    check_picture(picture, "a tile")
    height = picture.shape[0]
    scale = min(width / picture.shape[1], MAX_ASPECT * width / height)
    size = max(1, round(picture.shape[1] * scale)), max(1, round(height * scale))
    resampling = Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.BICUBIC
    return np.asarray(Image.fromarray(picture).resize(size, resampling))


def _bottom_aligned_row(pictures: Sequence[Picture], tile: int, gap: int, columns: int) -> Picture:
    """Pictures in a row of tiles, aligned at the bottom so that each is just above its title."""
    row = _blank(max(len(picture) for picture in pictures), columns)
    for i, picture in enumerate(pictures):
        left = gap + i * (tile + gap)
        row[len(row) - len(picture) :, left : left + picture.shape[1]] = picture
    return row
