"""Explanations drawn on the picture or clip that was explained: overlays, plots, thumbnails."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from mmcam.errors import InputError
from mmcam.grids import onto_original
from mmcam.render import overlay
from mmcam.render.plots import import_pyplot, new_axes, plot_picture, wrapped_title
from mmcam.results.drawing import Picture, detail, draw_explanation, heading
from mmcam.results.explanation import Explanation
from mmcam.results.sources import ImageSource
from mmcam.types import Pixels

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_on_original(
    explanation: Explanation, frame: int | None, colormap: str, opacity: float
) -> Picture:
    """The explanation drawn on its picture, or on a frame of its clip (`Explanation.overlay`).

    Raises:
        InputError: as `Explanation.overlay`.
    """
    frame = shown_frame(explanation, frame)
    pixels = original(explanation, frame)
    if frame is None:
        return draw_explanation(explanation, pixels, colormap, opacity)
    return overlay(pixels, explanation.heatmap([frame])[0], colormap=colormap, opacity=opacity)


def shown_frame(explanation: Explanation, frame: int | None) -> int | None:
    """The frame to draw: `frame`, or that of the peak; None for a picture.

    Raises:
        InputError: a frame of a picture is requested, or the map has NaN or infinite values.
    """
    if explanation.is_clip:
        return explanation.peak().frame if frame is None else frame
    if frame is not None:
        raise InputError(
            f"frame={frame} of '{explanation.label}': its map is that of a picture, which has no "
            "frames; leave frame out"
        )
    return None


def original(explanation: Explanation, frame: int | None) -> Pixels:
    """The pixels of the explained picture, or of a frame of the explained clip.

    Raises:
        InputError: the picture or clip is unknown, missing, broken or changed, or has no such
            frame.
    """
    source = explanation.source
    if source is None:
        raise InputError(
            f"the map of '{explanation.label}' does not know its picture or clip; take it from the "
            "result of mmcam.explain or mmcam.read, or draw heatmap() with mmcam.render.overlay"
        )
    if isinstance(source, ImageSource):
        return source.read()
    with source.open() as clip:
        pixels: Pixels = clip.read([0 if frame is None else frame])[0]
    return pixels


def plot(
    explanation: Explanation,
    ax: Axes | None,
    frame: int | None,
    colormap: str,
    opacity: float,
) -> Axes:
    """Draw an explanation on axes of matplotlib (`Explanation.plot`).

    Raises:
        InputError: as `Explanation.overlay`.
        MissingExtra: matplotlib is not installed.
    """
    import_pyplot()
    frame = shown_frame(explanation, frame)
    picture = draw_on_original(explanation, frame, colormap, opacity)
    label = explanation.label if explanation.target.kind == "sentence" else heading(explanation)
    return plot_picture(picture, _title(label, explanation, frame), ax)


def plot_all(
    items: Sequence[Explanation],
    title: str,
    frame: int | None,
    columns: int | None,
    colormap: str,
    opacity: float,
) -> list[Axes]:
    """Draw explanations side by side in a new figure (`Explanations.plot`).

    Raises:
        InputError: as `Explanations.plot`.
        MissingExtra: matplotlib is not installed.
    """
    import_pyplot()
    pictures, titles = [], []
    methods, layers = {e.method for e in items}, {e.layer for e in items}
    if items and not items[0].is_clip and frame is None:
        pictures, titles = [original(items[0], None)], ["original"]
    for explanation in items:
        shown = shown_frame(explanation, frame)
        pictures.append(draw_on_original(explanation, shown, colormap, opacity))
        origin = [explanation.method] if len(methods) > 1 else []
        origin += [f"at {explanation.layer}"] if len(layers) > 1 else []
        titles.append(_title(heading(explanation), explanation, shown, " ".join(origin)))
    aspect = pictures[0].shape[0] / pictures[0].shape[1] if pictures else 1
    axes = new_axes(len(pictures), aspect, columns, title)
    for ax, picture, text in zip(axes, pictures, titles, strict=True):
        plot_picture(picture, text, ax)
    return axes[-len(items) :]


def _title(label: str, explanation: Explanation, frame: int | None, origin: str = "") -> str:
    """The label above the score, the frame, and the method and layer if several are shown."""
    facts = [detail(explanation), "" if frame is None else f"frame {frame}", origin]
    return "\n".join([wrapped_title(label), "  ".join(fact for fact in facts if fact)])


def thumbnail(explanation: Explanation, side: int = 320) -> Picture:
    """The heatmap on a dark background, with the proportions of the original.

    Its longer side has at most `side` pixels. Of a clip, it is the time slice that holds the
    maximum. The parts outside the model's input are hatched.

    Raises:
        InputError: the map has NaN or infinite values.
    """
    height, width = explanation.placement.size
    scale = min(1.0, side / max(height, width))
    size = max(1, round(height * scale)), max(1, round(width * scale))
    scale_x, scale_y = size[1] / width, size[0] / height
    left, top, right, bottom = explanation.placement.box
    box = (left * scale_x, top * scale_y, right * scale_x, bottom * scale_y)
    saliency = explanation.saliency
    if explanation.is_clip:
        saliency = saliency[int(saliency.flatten(1).amax(1).argmax())]
    scaled = saliency.clamp(min=0) / (explanation.maximum or 1)
    placement = replace(explanation.spatial_placement, size=size, box=box)
    heatmap = onto_original(scaled, placement).clamp(0, 1).numpy()
    return overlay(np.full((*size, 3), 20, np.uint8), heatmap, opacity=1.0)
