"""The windows of a clip: which stretches a video model sees at once, and their frames."""

from __future__ import annotations

import math
from itertools import pairwise

from mmcam.media.clips import Clip
from mmcam.types import Sample, Window

ROUNDING = 1e-6
"""The share of a window that a clip may be longer than whole windows by rounding alone."""


def spans(frames: int, window: float) -> list[tuple[float, float]]:
    """The stretches of a clip that its windows stand for, in frames.

    Windows lie end to end from the first frame on; the last is moved back to end with the clip. A
    clip shorter than a window is one span, and no window is shorter than a frame.
    """
    window = max(window, 1.0)
    count = math.ceil(frames / window - ROUNDING)
    if count <= 1:
        return [(0.0, float(frames))]
    edges = [i * window for i in range(count)]
    return [*pairwise(edges), (min(edges[-1], frames - window), float(frames))]


def sample_window(clip: Clip, span: tuple[float, float], window: Window) -> Sample:
    """The frames of one window: the middles of as many equal parts of its span."""
    first, last = span
    step = (last - first) / window.frames
    indices = [min(int(first + (i + 0.5) * step), clip.frames - 1) for i in range(window.frames)]
    return Sample(pixels=clip.read(indices), id=str(clip.path), span=span)
