"""One explanation: a raw map, its target, and its placement on the original picture or clip."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8
from torch import Tensor

from mmcam.errors import InputError
from mmcam.grids import maximum_cell, onto_original
from mmcam.render import overlay
from mmcam.render.inline import card
from mmcam.types import Placement, Target

Heatmap = Float[np.ndarray, "*time height width"]


class Peak(NamedTuple):
    """The position of the maximum, in pixels of the original, and the frame of a clip.

    The centre of the pixel in row 0 and column 0 is (0.5, 0.5). `frame` is None for a picture.
    """

    x: float
    y: float
    frame: int | None


@dataclass(frozen=True, kw_only=True, eq=False)
class Explanation:
    """The map of one target by one method at one layer.

    Everything that is derived from `cam` raises InputError if `cam` has NaN or infinite values.

    `cam` is raw: signed, not normalised, and comparable between targets of one forward pass. It has
    the layer's grid, (h, w) or (t, h, w); the windows of a long clip are concatenated along time. A
    pixel-space map, and its product with the map of a layer, starts with an axis of the input's
    channels, three colours of most models.

    `words` are the words of a question, each with its contribution to the score: gradient times
    input, summed over the word's embedding.

    `score` is the target's score and `probability` the target's probability, if any. For a clip,
    both are means over the windows; `window_scores` holds the score of each window.
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
        """The label of the target."""
        return self.target.label

    @property
    def is_clip(self) -> bool:
        """Whether the map has a time axis."""
        return bool(self.placement.spans)

    @cached_property
    def saliency(self) -> Float[Tensor, "*grid"]:
        """The map without an axis of the input's channels.

        A pixel-space map is reduced to the largest absolute value over its channels (Simonyan et
        al. 2014, section 3.1); any other map is returned unchanged.

        Raises:
            InputError: the map has NaN or infinite values.
        """
        cam = self._finite_cam
        return cam.abs().amax(0) if self.is_pixel_space else cam

    @cached_property
    def _finite_cam(self) -> Float[Tensor, "*grid"]:
        """The map in single precision on the CPU.

        Raises:
            InputError: the map has NaN or infinite values.
        """
        cam = self.cam.detach().float().cpu()
        if not cam.isfinite().all():
            raise InputError(
                f"the map of '{self.label}' ({self.method} at {self.layer}) has NaN or infinite "
                "values, so it has no maximum; compute it again in a wider dtype"
            )
        return cam

    @property
    def is_pixel_space(self) -> bool:
        """Whether `cam` is a pixel-space map: its first axis is the input's channels."""
        return self.cam.ndim == (4 if self.is_clip else 3)

    @property
    def empty(self) -> bool:
        """Whether the map has no positive value, that is, no evidence for the target.

        Raises:
            InputError: the map has NaN or infinite values.
        """
        return not bool((self.saliency > 0).any())

    @cached_property
    def maximum(self) -> float:
        """The largest value of `saliency`, by which heatmaps are divided; 0 if the map is empty.

        Raises:
            InputError: the map has NaN or infinite values.
        """
        return max(float(self.saliency.max()), 0.0)

    def heatmap(self, frames: Sequence[int] | None = None) -> Heatmap:
        """The positive part of the map, resampled to the original's pixels, as float32 in [0, 1].

        All frames are scaled by the same value, the map's maximum. Pixels and frames outside the
        model's input (its crop and its windows) are NaN; inside it, an empty map is 0.

        Args:
            frames: indices of the frames of a clip; None for all up to the end of the last window.

        Returns:
            `[height, width]` for a picture, `[frame, height, width]` for a clip.

        Raises:
            InputError: the map has NaN or infinite values.
        """
        return self._to_heatmap(self.saliency, frames)

    def gradient(self, frames: Sequence[int] | None = None) -> Float[np.ndarray, "channel *size"]:
        """`cam` resampled to the original, signed and unscaled; for pixel-space maps only.

        Args:
            frames: as in `heatmap`.

        Returns:
            `[channel, height, width]` for a picture, `[channel, frame, height, width]` for a clip.

        Raises:
            InputError: the map has NaN or infinite values.
        """
        frames = self._frames(frames)
        return onto_original(self._finite_cam, self.placement, frames).numpy()

    def _to_heatmap(self, maps: Tensor, frames: Sequence[int] | None) -> Heatmap:
        maps = maps.clamp(min=0) / (self.maximum or 1)
        placed = onto_original(maps, self.placement, self._frames(frames))
        return placed.clamp(0, 1).numpy()

    def _frames(self, frames: Sequence[int] | None) -> Sequence[int] | None:
        if not self.is_clip:
            return None
        return range(self.frame_count) if frames is None else frames

    @property
    def frame_count(self) -> int:
        """The number of frames from the start of the clip to the end of the last window."""
        return math.ceil(max(last for _, last in self.placement.spans) - 1e-6)

    def evidence(self) -> Float[np.ndarray, " slice"]:
        """The evidence over time: the mean of the map's positive part in each slice of a clip.

        Raises:
            InputError: the map has NaN or infinite values.
        """
        return self.saliency.clamp(min=0).flatten(1).mean(1).numpy()

    def slice_times(self) -> Float[np.ndarray, " slice"]:
        """The centre of each time slice, in frames from the start of the clip.

        Raises:
            InputError: the map has NaN or infinite values.
        """
        count = self.saliency.shape[0] // len(self.placement.spans)
        centres = np.array(self.placement.centres(-3, count))
        return np.concatenate(
            [first + centres * (last - first) for first, last in self.placement.spans]
        )

    def peak(self) -> Peak:
        """The position of the maximum; the centre of the model's input if the map is empty.

        Of several equal positions, it is the one nearest to the centre of the map's largest cell.

        For a clip, the frame is the middle of the time slice that holds the largest value, even if
        that value is not positive.

        Raises:
            InputError: the map has NaN or infinite values.
        """
        saliency, frame = self.saliency, None
        if self.is_clip:
            index = int(saliency.flatten(1).amax(1).argmax())
            frame = min(int(self.slice_times()[index]), self.frame_count - 1)
            saliency = saliency[index]
        left, top, right, bottom = self.placement.box
        if self.empty:
            return Peak((left + right) / 2, (top + bottom) / 2, frame)
        row, column = divmod(int(saliency.argmax()), saliency.shape[1])
        centre = (
            top + self.placement.centres(-2, saliency.shape[0])[row] * (bottom - top) - 0.5,
            left + self.placement.centres(-1, saliency.shape[1])[column] * (right - left) - 0.5,
        )
        placed = onto_original(saliency, self._spatial_placement).numpy()
        y, x = maximum_cell(placed, near=centre)
        return Peak(x + 0.5, y + 0.5, frame)

    def _repr_html_(self) -> str:
        """A card with the map for notebooks; for a clip, the time slice that holds the maximum."""
        facts = [f"{self.method} at {self.layer}", f"score {self.score:.4g}"]
        if self.probability is not None:
            facts.append(f"probability {self.probability:.4f}")
        if self.counterfactual:
            facts.append("counterfactual: evidence against it")
        if self.empty:
            facts.append("no positive evidence")
        return card(self._thumbnail(), self.label, facts)

    def _thumbnail(self, side: int = 320) -> UInt8[np.ndarray, "h w 3"]:
        """The heatmap on a dark background, with the aspect ratio of the original.

        The parts outside the model's input are hatched.
        """
        height, width = self.placement.size
        scale = min(1.0, side / max(height, width))
        size = max(1, round(height * scale)), max(1, round(width * scale))
        scale_x, scale_y = size[1] / width, size[0] / height
        left, top, right, bottom = self.placement.box
        box = (left * scale_x, top * scale_y, right * scale_x, bottom * scale_y)
        saliency = self.saliency
        if self.is_clip:
            saliency = saliency[int(saliency.flatten(1).amax(1).argmax())]
        scaled = saliency.clamp(min=0) / (self.maximum or 1)
        placement = replace(self._spatial_placement, size=size, box=box)
        heatmap = onto_original(scaled, placement).clamp(0, 1).numpy()
        return overlay(np.full((*size, 3), 20, np.uint8), heatmap, opacity=1.0)

    @property
    def _spatial_placement(self) -> Placement:
        """The placement without the time axis."""
        return replace(self.placement, spans=(), extent=self.placement.extent[-2:])
