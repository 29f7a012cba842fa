"""The windows of a clip: the spans that a video model processes one at a time, and their frames."""

from __future__ import annotations

import math
from itertools import pairwise

from mmcam.media.clips import Clip
from mmcam.types import Sample, Window

ROUNDING = 1e-6
"""The fraction of a window by which a clip may exceed whole windows through rounding."""


def window_spans(frames: int, window: float) -> list[tuple[float, float]]:
    """The spans (first, last) of the windows of a clip, in frames.

    Windows are consecutive, starting at the first frame; the last is moved back to end with the
    clip. A clip shorter than a window is one span. A window has at least one frame.

    Args:
        frames: the number of frames of the clip.
        window: the length of a window in frames.
    """
    window = max(window, 1.0)
    count = math.ceil(frames / window - ROUNDING)
    if count <= 1:
        return [(0.0, float(frames))]
    edges = [i * window for i in range(count)]
    return [*pairwise(edges), (min(edges[-1], frames - window), float(frames))]


def sample_window(clip: Clip, span: tuple[float, float], window: Window) -> Sample:
    """The frames of one window: the middle frame of each of `window.frames` equal parts of `span`.

    Raises:
        InputError: a frame cannot be decoded, or the clip is closed.
    """
    first, last = span
    step = (last - first) / window.frames
    indices = [min(int(first + (i + 0.5) * step), clip.frames - 1) for i in range(window.frames)]
    return Sample(pixels=clip.read(indices), id=str(clip.path), span=span)
