"""Drawings of explanations: overlays, contact sheets and annotated clips, with their labels."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from mmcam.errors import InputError
from mmcam.media import Clip, ClipWriter, write_image
from mmcam.render import (
    COLORMAPS,
    OPACITY,
    as_colours,
    caption_bar,
    explanation_map,
    gradient_picture,
    overlay,
    panes,
    shaded_words,
    sheet,
)
from mmcam.render.checks import check_name
from mmcam.results.explanation import Explanation
from mmcam.types import Pixels

Picture = UInt8[np.ndarray, "_ _ 3"]
"""A drawn picture of any size."""

Tile = tuple[Picture, str, str]
"""A tile of a sheet: picture, title and subtitle."""

Pane = Callable[[Explanation, Pixels, np.ndarray, str], Picture]

PANES: dict[str, Pane] = {
    "original": lambda explanation, pixels, heatmap, colormap: pixels,
    "overlay": lambda explanation, pixels, heatmap, colormap: overlay(
        pixels, heatmap, colormap=colormap
    ),
    "explanation": lambda explanation, pixels, heatmap, colormap: explanation_map(pixels, heatmap),
}
"""The panes that a clip can show side by side; "explanation" is E = L * I (Grad-CAM++ eq. 25)."""


def check_drawing_options(colormap: str, names: Sequence[str] = tuple(PANES)) -> None:
    """Check that the colour map exists and that every pane is one of `PANES`.

    Raises:
        InputError: the colour map or a pane is unknown, or there is no pane.
    """
    check_name(colormap, COLORMAPS, "colour map")
    for name in names:
        check_name(name, PANES, "pane")
    if not names:
        raise InputError(f"no panes to draw; give at least one of {', '.join(PANES)}")


def heading(explanation: Explanation) -> str:
    """The label of the target, marked if the map is counterfactual or has no positive value.

    Raises:
        InputError: the map has NaN or infinite values.
    """
    prefix = "against " if explanation.counterfactual else ""
    suffix = " (no positive evidence)" if explanation.empty else ""
    # The title of the sheet already shows the whole sentence.
    label = "whole caption" if explanation.target.kind == "sentence" else explanation.label
    return f"{prefix}{label}{suffix}"


def detail(explanation: Explanation) -> str:
    """The score and the probability as a short text."""
    if explanation.target.kind == "sentence":
        return f"log p {explanation.score:.2f}"
    probability = explanation.probability
    suffix = "" if probability is None else f"  p {probability:.3f}"
    return f"score {explanation.score:.2f}{suffix}"


def draw_explanation(
    explanation: Explanation,
    pixels: Pixels,
    colormap: str = "inferno",
    opacity: float = OPACITY,
) -> Picture:
    """The overlay of the heatmap on the picture or, for a pixel-space map, the gradient itself.

    Raises:
        InputError: the map has NaN or infinite values, the picture has another size than the
            explained one, the colour map is unknown, or the opacity is outside [0, 1].
    """
    if explanation.is_pixel_space:
        return gradient_picture(np.nan_to_num(as_colours(explanation.gradient())))
    return overlay(pixels, explanation.heatmap(), colormap=colormap, opacity=opacity)


def tile(explanation: Explanation, pixels: Pixels, colormap: str = "inferno") -> Tile:
    """The drawn explanation, with label and score as its title, method and layer as its subtitle.

    The words of a question are drawn under the picture, shaded by their contribution.

    Raises:
        InputError: as `draw_explanation`.
    """
    subtitle = f"{explanation.method} at {explanation.layer}"
    title = f"{heading(explanation)}  {detail(explanation)}"
    drawing = draw_explanation(explanation, pixels, colormap)
    if explanation.words:
        drawing = np.concatenate([drawing, shaded_words(explanation.words, drawing.shape[1])])
    return drawing, title, subtitle


def picture_sheet(
    explanations: Sequence[Explanation],
    pixels: Pixels,
    title: str = "",
    colormap: str = "inferno",
) -> Picture:
    """The picture and all its explanations on one sheet.

    Raises:
        InputError: as `draw_explanation`.
    """
    tiles = [tile(explanation, pixels, colormap) for explanation in explanations]
    original = pixels
    if question := next((e.words for e in explanations if e.words), ()):
        unshaded = shaded_words([(word, 0.0) for word, _ in question], pixels.shape[1])
        original = np.concatenate([pixels, unshaded])
    return sheet([(original, "original", ""), *tiles], title=title)


def draw_frames(
    explanation: Explanation,
    clip: Clip,
    names: Sequence[str] = tuple(PANES),
    colormap: str = "inferno",
) -> Iterator[Picture]:
    """Draw every frame of a clip: the panes side by side below the label and the score.

    The heatmaps of all frames share one scale, the maximum over the clip. A single pane keeps the
    clip's own size and has the label in a strip above it.

    Raises:
        InputError: as `check_drawing_options`, the map has NaN or infinite values, or a frame
            cannot be decoded or has another size than the explained clip.
    """
    check_drawing_options(colormap, names)
    header, facts = heading(explanation), detail(explanation)
    heatmaps = explanation.heatmaps(itertools.count())
    for pixels, heatmap in zip(clip, heatmaps, strict=False):
        pictures = [PANES[name](explanation, pixels, heatmap, colormap) for name in names]
        yield compose_frame(pictures, names, header, facts)


def compose_frame(
    pictures: Sequence[Picture], names: Sequence[str], header: str, detail: str
) -> Picture:
    """Compose a frame of a written clip: panes of one size below the header and the detail.

    Raises:
        InputError: as `render.panes`.
    """
    if len(pictures) == 1:
        bar = caption_bar(pictures[0].shape[1], header, detail=detail)
        return np.concatenate([bar, pictures[0]])
    titles = ["E = L * I" if name == "explanation" else name for name in names]
    return panes(pictures, titles, header=header, detail=detail)


def write_clip(
    path: Path,
    explanation: Explanation,
    clip: Clip,
    names: Sequence[str] = tuple(PANES),
    colormap: str = "inferno",
    frames_to: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write the drawn clip as H.264 at the frame rate of the source.

    If `frames_to` is given, each frame is also written to that folder as a PNG.

    Raises:
        InputError: the clip has no frames, or as `draw_frames`.
        OutputError: the clip or a frame cannot be written; no partial clip is left behind.
    """
    frames = draw_frames(explanation, clip, names, colormap)
    first = next(frames, None)
    if first is None:
        raise InputError(f"'{clip.path}' has no frames to draw; check the file")
    height, width = first.shape[:2]
    with ClipWriter(path, clip.fps, height, width) as writer:
        for number, frame in enumerate(_chain(first, frames)):
            writer.write(frame)
            if frames_to is not None:
                write_image(frames_to / f"frame-{number:06d}.png", frame)
            if progress:
                progress(number + 1, clip.frames)
    if frames_to is not None:
        # Remove the frames left by an earlier, longer clip.
        for stale in sorted(frames_to.glob("frame-*.png"))[number + 1 :]:
            stale.unlink()


def _chain(first: Picture, rest: Iterator[Picture]) -> Iterator[Picture]:
    yield first
    yield from rest


def clip_sheet(
    explanation: Explanation, clip: Clip, colormap: str = "inferno", count: int = 8
) -> Picture:
    """A sheet of up to `count` evenly spaced frames, each with its heatmap and time.

    Raises:
        InputError: as `draw_frames`.
    """
    count = min(count, clip.frames)
    indices = [(2 * i + 1) * clip.frames // (2 * count) for i in range(count)]
    heatmaps = explanation.heatmaps(indices)
    tiles = [
        (overlay(pixels, heatmap, colormap=colormap), f"{index / clip.fps:.2f} s", f"frame {index}")
        for index, pixels, heatmap in zip(indices, clip.read(indices), heatmaps, strict=True)
    ]
    return sheet(tiles, title=f"{heading(explanation)}  {detail(explanation)}", columns=4)
