"""Pictures and clips of explanations: what is drawn, on what, and with which words beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from mmcam.errors import InputError
from mmcam.media import Clip, ClipWriter, write_image
from mmcam.render import (
    COLORMAPS,
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
"""A drawn picture, of a size of its own."""

Tile = tuple[Picture, str, str]
Pane = Callable[[Explanation, Pixels, np.ndarray, str], Picture]

PANES: dict[str, Pane] = {
    "original": lambda explanation, pixels, heatmap, colormap: pixels,
    "overlay": lambda explanation, pixels, heatmap, colormap: overlay(
        pixels, heatmap, colormap=colormap
    ),
    "explanation": lambda explanation, pixels, heatmap, colormap: explanation_map(pixels, heatmap),
}
"""What can stand side by side in a clip; "explanation" is E = L * I (Grad-CAM++ eq. 25)."""

CHUNK = 8
"""Frames whose heatmaps are in memory at once while a clip is drawn."""


def check_look(colormap: str, names: Sequence[str] = tuple(PANES)) -> None:
    """That there is such a colour map, and every pane is one of `PANES`.

    Raises:
        InputError: one is not, or there is no pane.
    """
    check_name(colormap, COLORMAPS, "colour map")
    for name in names:
        check_name(name, PANES, "pane")
    if not names:
        raise InputError(f"no panes to draw; name some of {', '.join(PANES)}")


def heading(explanation: Explanation) -> str:
    """What is explained: the label, marked where it is counterfactual or has no evidence."""
    against = "against " if explanation.counterfactual else ""
    nothing = " (no positive evidence)" if explanation.empty else ""
    # The sheet has the sentence itself above all its pictures.
    label = "whole caption" if explanation.target.kind == "sentence" else explanation.label
    return f"{against}{label}{nothing}"


def detail(explanation: Explanation) -> str:
    """The score and the probability, in a few characters."""
    if explanation.target.kind == "sentence":
        return f"log p {explanation.score:.2f}"
    share = "" if explanation.probability is None else f"  p {explanation.probability:.3f}"
    return f"score {explanation.score:.2f}{share}"


def picture(explanation: Explanation, pixels: Pixels, colormap: str = "inferno") -> Picture:
    """A picture's explanation: the map over it, or, for a pixel-space map, the gradient itself."""
    if explanation.has_colours:
        return gradient_picture(np.nan_to_num(explanation.gradient()))
    return overlay(pixels, explanation.heatmap(), colormap=colormap)


def tile(explanation: Explanation, pixels: Pixels, colormap: str = "inferno") -> Tile:
    """The explanation of a picture with its label, score, method and layer below it.

    The words of a question, shaded by their part, stand under the picture.
    """
    below = f"{explanation.method} at {explanation.layer}"
    title = f"{heading(explanation)}  {detail(explanation)}"
    drawn = picture(explanation, pixels, colormap)
    if explanation.words:
        drawn = np.concatenate([drawn, shaded_words(explanation.words, drawn.shape[1])])
    return drawn, title, below


def picture_sheet(
    explanations: Sequence[Explanation],
    pixels: Pixels,
    title: str = "",
    colormap: str = "inferno",
) -> Picture:
    """The picture and all its explanations on one sheet."""
    tiles = [tile(explanation, pixels, colormap) for explanation in explanations]
    original = pixels
    if question := next((one.words for one in explanations if one.words), ()):
        plain = shaded_words([(word, 0.0) for word, _ in question], pixels.shape[1])
        original = np.concatenate([pixels, plain])
    return sheet([(original, "original", ""), *tiles], title=title)


def frames_of(
    explanation: Explanation,
    clip: Clip,
    names: Sequence[str] = tuple(PANES),
    colormap: str = "inferno",
) -> Iterator[Picture]:
    """Every frame of a clip, drawn: the panes side by side under the label and the score.

    The heat of all frames has one scale, the maximum over the clip. A single pane keeps the clip's
    own size and has the label in a strip above it.
    """
    check_look(colormap, names)
    waiting: list[Pixels] = []
    done = 0
    for frame in clip:
        waiting.append(frame)
        if len(waiting) == CHUNK:
            yield from _drawn(explanation, waiting, done, names, colormap)
            done += len(waiting)
            waiting = []
    yield from _drawn(explanation, waiting, done, names, colormap)


def _drawn(
    explanation: Explanation,
    frames: Sequence[Pixels],
    start: int,
    names: Sequence[str],
    colormap: str,
) -> Iterator[Picture]:
    heatmaps = explanation.heatmap(range(start, start + len(frames))) if frames else ()
    for pixels, heatmap in zip(frames, heatmaps, strict=True):
        made = [PANES[name](explanation, pixels, heatmap, colormap) for name in names]
        yield framed(made, names, heading(explanation), detail(explanation))


def framed(made: Sequence[Picture], names: Sequence[str], header: str, below: str) -> Picture:
    """A frame of a written clip: its panes, of one size, under the header and the detail."""
    if len(made) == 1:
        return np.concatenate([caption_bar(made[0].shape[1], header, detail=below), made[0]])
    titles = ["E = L * I" if name == "explanation" else name for name in names]
    return panes(made, titles, header=header, detail=below)


def write_clip(
    path: Path,
    explanation: Explanation,
    clip: Clip,
    names: Sequence[str] = tuple(PANES),
    colormap: str = "inferno",
    frames_to: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """The whole clip, drawn, as H.264 at the source's rate; each frame as PNG too if asked.

    Raises:
        OutputError: it cannot be written; no half file stays behind.
    """
    frames = frames_of(explanation, clip, names, colormap)
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
    if frames_to is not None:  # those of a longer clip that was drawn here before
        for stale in sorted(frames_to.glob("frame-*.png"))[number + 1 :]:
            stale.unlink()


def _chain(first: Picture, rest: Iterator[Picture]) -> Iterator[Picture]:
    yield first
    yield from rest


def clip_sheet(
    explanation: Explanation, clip: Clip, colormap: str = "inferno", count: int = 8
) -> Picture:
    """Frames spread evenly over the clip, each with its heat and its time."""
    count = min(count, clip.frames)
    indices = [(2 * i + 1) * clip.frames // (2 * count) for i in range(count)]
    heatmaps = explanation.heatmap(indices)
    tiles = [
        (overlay(pixels, heatmap, colormap=colormap), f"{index / clip.fps:.2f} s", f"frame {index}")
        for index, pixels, heatmap in zip(indices, clip.read(indices), heatmaps, strict=True)
    ]
    return sheet(tiles, title=f"{heading(explanation)}  {detail(explanation)}", columns=4)
