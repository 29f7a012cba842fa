"""One explanation: a raw map, what it explains, and how it lies on the original."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from mmcam.grids import onto_original
from mmcam.render import overlay
from mmcam.render.inline import card
from mmcam.types import Placement, Target

Heatmap = Float[np.ndarray, "*time height width"]


class Peak(NamedTuple):
    """Where a map is highest: the middle of a pixel of the original, and the frame of a clip."""

    x: float
    y: float
    frame: int | None


@dataclass(frozen=True, kw_only=True, eq=False)
class Explanation:
    """The map of one target by one method at one layer.

    `cam` is raw: signed, not normalised, comparable between labels of the same forward. It has the
    layer's grid, (h, w) or (t, h, w), the windows of a long clip joined along time. A pixel-space
    map, and the product of one with a map of a layer, has three colour channels before it.

    `words` are those of a question, each with its part in the score: gradient times input, summed
    over its embedding.

    `score` is the target's score, `probability` its softmax where there is one; for a clip, the
    mean over its windows, whose own scores are in `window_scores`.
    """

    target: Target
    cam: Float[Tensor, "*grid"]
    score: float
    probability: float | None
    method: str
    layer: str
    placement: Placement
    counterfactual: bool = False
    words: tuple[tuple[str, float], ...] = ()
    window_scores: tuple[float, ...] = ()

    @property
    def label(self) -> str:
        """What is explained, in words."""
        return self.target.label

    @property
    def is_clip(self) -> bool:
        """Whether the map has a time axis."""
        return bool(self.placement.spans)

    @cached_property
    def saliency(self) -> Float[Tensor, "*grid"]:
        """The map without colour: as it is, or the largest absolute value over the channels.

        (Simonyan et al. 2014, section 3.1, for pixel-space maps.)
        """
        cam = self.cam.detach().float().cpu()
        return cam.abs().amax(0) if self.has_colours else cam

    @property
    def has_colours(self) -> bool:
        """Whether this is a pixel-space map, with an axis of three colours before its grid."""
        return self.cam.ndim == (4 if self.is_clip else 3)

    @property
    def empty(self) -> bool:
        """Whether nothing in the picture or clip speaks for the target: no positive value."""
        return not bool((self.saliency > 0).any())

    @cached_property
    def maximum(self) -> float:
        """The largest value of the raw map; heatmaps are shares of it. 0 where it is empty."""
        return max(float(self.saliency.max()), 0.0)

    def heatmap(self, frames: Sequence[int] | None = None) -> Heatmap:
        """The positive part of the map on the pixels of the original, as float32 in [0, 1].

        Scaled by the map's maximum, over all frames alike. Pixels and frames that the model did
        not see (outside its crop) are NaN; an empty map is 0 where it was seen.

        Args:
            frames: which frames of a clip; all that the windows cover when None.

        Returns:
            `[height, width]` for a picture, `[frame, height, width]` for a clip.
        """
        return self._shares(self.saliency, frames)

    def gradient(self, frames: Sequence[int] | None = None) -> Float[np.ndarray, "3 *size"]:
        """A pixel-space map with its colours and signs on the original, not scaled."""
        frames = self._frames(frames)
        return onto_original(self.cam, self.placement, frames).numpy()

    def _shares(self, maps: Tensor, frames: Sequence[int] | None) -> Heatmap:
        maps = maps.clamp(min=0) / (self.maximum or 1)
        placed = onto_original(maps, self.placement, self._frames(frames))
        return placed.clamp(0, 1).numpy()

    def _frames(self, frames: Sequence[int] | None) -> Sequence[int] | None:
        if not self.is_clip:
            return None
        return range(self.frame_count) if frames is None else frames

    @property
    def frame_count(self) -> int:
        """How many frames of the clip the windows reach over, from its first frame on."""
        return math.ceil(max(last for _, last in self.placement.spans) - 1e-6)

    def evidence(self) -> Float[np.ndarray, " slice"]:
        """The mean positive value of each time slice of a clip's map: where in time it speaks."""
        return self.saliency.clamp(min=0).flatten(1).mean(1).numpy()

    def slice_times(self) -> Float[np.ndarray, " slice"]:
        """The middle of each time slice, in frames from the start of the clip."""
        each = self.saliency.shape[0] // len(self.placement.spans)
        shares = (np.arange(each) + 0.5) / each
        return np.concatenate(
            [first + shares * (last - first) for first, last in self.placement.spans]
        )

    def peak(self) -> Peak:
        """Where the map is highest, on the original; the middle of what was seen if it is empty."""
        saliency, frame = self.saliency, None
        if self.is_clip:
            slice_ = int(saliency.flatten(1).amax(1).argmax())
            frame = min(int(self.slice_times()[slice_]), self.frame_count - 1)
            saliency = saliency[slice_]
        if self.empty:
            left, top, right, bottom = self.placement.box
            return Peak((left + right) / 2, (top + bottom) / 2, frame)
        placed = onto_original(saliency, self._still)
        flat = int(torch.where(placed.isnan(), -torch.inf, placed).argmax())
        y, x = divmod(flat, placed.shape[1])
        return Peak(x + 0.5, y + 0.5, frame)

    def _repr_html_(self) -> str:
        """The map by itself with its facts, as notebooks show it; of a clip where it peaks."""
        share = [] if self.probability is None else [f"probability {self.probability:.4f}"]
        against = ["counterfactual: what speaks against it"] if self.counterfactual else []
        nothing = ["no positive evidence"] if self.empty else []
        made = f"{self.method} at {self.layer}"
        facts = [made, f"score {self.score:.4g}", *share, *against, *nothing]
        return card(self._thumbnail(), self.label, facts)

    def _thumbnail(self, side: int = 320) -> UInt8[np.ndarray, "h w 3"]:
        """The map on a dark ground in the proportions of the original, hatched where not seen."""
        height, width = self.placement.size
        scale = min(1.0, side / max(height, width))
        size = max(1, round(height * scale)), max(1, round(width * scale))
        across, down = size[1] / width, size[0] / height
        left, top, right, bottom = self.placement.box
        box = (left * across, top * down, right * across, bottom * down)
        maps = self.saliency
        if self.is_clip:
            maps = maps[int(maps.flatten(1).amax(1).argmax())]
        shares = maps.clamp(min=0) / (self.maximum or 1)
        heat = onto_original(shares, Placement(size=size, box=box)).clamp(0, 1).numpy()
        return overlay(np.full((*size, 3), 20, np.uint8), heat, opacity=1.0)

    @property
    def _still(self) -> Placement:
        return Placement(size=self.placement.size, box=self.placement.box)
