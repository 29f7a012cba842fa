"""One explanation: a raw map, its target, and its placement on the original picture or clip."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from mmcam.errors import InputError, reason_of
from mmcam.grids import covering_windows, maximum_cell, onto_original
from mmcam.render import OPACITY
from mmcam.render.inline import card
from mmcam.render.plots import import_pyplot
from mmcam.render.text import one_line
from mmcam.results.sources import ClipSource, ImageSource
from mmcam.types import Placement, Target

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Heatmap = Float[np.ndarray, "*time height width"]

CHUNK_PIXELS = 2**20
"""The number of pixels of a clip whose heatmaps are computed at once; at least one frame's."""


class Peak(NamedTuple):
    """The position of the maximum, in pixels of the original, and the frame of a clip.

    The centre of the pixel in row 0 and column 0 is (0.5, 0.5). `frame` is None for a picture.
    """

    x: float
    y: float
    frame: int | None


def shortened(text: str, length: int = 48) -> str:
    """The text in quotes on one line, truncated after `length` characters."""
    line = one_line(text)
    return repr(line if len(line) <= length else f"{line[: length - 1].rstrip()}…")


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
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

    `source` is the picture or clip that was explained, on which the map is drawn; None for a map
    that is not part of `Explanations`.

    A pickled explanation is complete but for the functions of its target (see `Target`).
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
    source: ImageSource | ClipSource | None = None

    def __repr__(self) -> str:
        facts: dict[str, object] = {"label": shortened(self.label)}
        if self.position is not None:
            facts["position"] = self.position
        if self.counterfactual:
            facts["counterfactual"] = True
        facts["score"] = f"{self.score:.4g}"
        if self.probability is not None:
            facts["probability"] = f"{self.probability:.4g}"
        facts |= {"method": repr(self.method), "layer": repr(self.layer)}
        facts["grid"] = tuple(self.cam.shape)
        return f"Explanation({', '.join(f'{name}={value}' for name, value in facts.items())})"

    def __getstate__(self) -> dict[str, Any]:
        """The fields, without the maps derived from `cam`; `cam` without its graph."""
        state = {field.name: getattr(self, field.name) for field in fields(self)}
        # The maps of a batch may share their memory, all of which would be stored with each.
        return state | {"cam": self.cam.detach().clone()}

    def __copy__(self) -> Explanation:
        return replace(self)

    def to(self, device: str | torch.device) -> Explanation:
        """The same explanation with `cam` on another device.

        The result still keeps the model in memory, through the functions of its target; a pickled
        copy does not (see `Target`).

        Raises:
            InputError: the device cannot be used.
        """
        try:
            return replace(self, cam=self.cam.to(device))
        except (RuntimeError, AssertionError) as error:
            raise InputError(
                f"device '{device}' cannot be used ({reason_of(error)}); try cpu"
            ) from error

    @property
    def label(self) -> str:
        """The label of the target."""
        return self.target.label

    @property
    def position(self) -> int | None:
        """The position of a word in the sentence, counted from 0; None for other targets."""
        return self.target.position

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

        The memory needed is that of the frames that are returned; `heatmaps` yields them one at a
        time.

        Args:
            frames: indices of the frames of a clip; None for all up to the end of the last window.

        Returns:
            `[height, width]` for a picture, `[frame, height, width]` for a clip.

        Raises:
            InputError: the map has NaN or infinite values.
        """
        if not self.is_clip:
            return self._chunk_of_heatmaps(None)
        frames = range(self.frame_count) if frames is None else frames
        heatmaps = np.empty((len(frames), *self.placement.size), np.float32)
        for index, heatmap in enumerate(self.heatmaps(frames)):
            heatmaps[index] = heatmap
        return heatmaps

    def heatmaps(
        self, frames: Iterable[int] | None = None
    ) -> Iterator[Float[np.ndarray, "height width"]]:
        """Yield the heatmap of each frame of a clip, in memory that its length does not change.

        Args:
            frames: as in `heatmap`; may be endless.

        Yields:
            `[height, width]`, as in `heatmap`; for a picture, its one heatmap.

        Raises:
            InputError: the map has NaN or infinite values.
        """
        if not self.is_clip:
            yield self._chunk_of_heatmaps(None)
            return
        height, width = self.placement.size
        remaining = iter(range(self.frame_count) if frames is None else frames)
        while chunk := list(itertools.islice(remaining, max(1, CHUNK_PIXELS // (height * width)))):
            yield from self._chunk_of_heatmaps(chunk)

    def _chunk_of_heatmaps(self, frames: Sequence[int] | None) -> Heatmap:
        """The heatmap of a picture, or the heatmaps of a few frames of a clip."""
        maps, placement = self.saliency, self.placement
        if frames is not None:
            maps, placement = covering_windows(maps, placement, frames)
        maps = maps.clamp(min=0) / (self.maximum or 1)
        return onto_original(maps, placement, frames).clamp_(0, 1).numpy()

    def gradient(self, frames: Sequence[int] | None = None) -> Float[np.ndarray, "channel *size"]:
        """`cam` resampled to the original, signed and unscaled; for pixel-space maps only.

        Args:
            frames: as in `heatmap`.

        Returns:
            `[channel, height, width]` for a picture, `[channel, frame, height, width]` for a clip.

        Raises:
            InputError: the map has NaN or infinite values.
        """
        cam, placement = self._finite_cam, self.placement
        if not self.is_clip:
            return onto_original(cam, placement).numpy()
        frames = range(self.frame_count) if frames is None else frames
        cam, placement = covering_windows(cam, placement, frames)
        return onto_original(cam, placement, frames).numpy()

    def overlay(
        self,
        *,
        frame: int | None = None,
        colormap: str = "inferno",
        opacity: float = OPACITY,
    ) -> Image.Image:
        """The map over the picture, as `Explanations.save` draws it, at the original's size.

        A pixel-space map of a picture is drawn by itself, as a signed gradient around grey.

        Args:
            frame: the frame of a clip; the frame of the peak if None.
            colormap: one of `mmcam.render.COLORMAPS`.
            opacity: the opacity of the largest value, in [0, 1].

        Raises:
            InputError: there is no such frame or colour map, the opacity is out of range, the map
                has NaN or infinite values, or the picture or clip is unknown, missing, broken or
                changed.

        Example:
            >>> maps["dog"].overlay().save("dog.png")
        """
        from mmcam.results import plotting  # which imports this module

        return Image.fromarray(plotting.draw_on_original(self, frame, colormap, opacity))

    def plot(
        self,
        ax: Axes | None = None,
        *,
        frame: int | None = None,
        colormap: str = "inferno",
        opacity: float = OPACITY,
    ) -> Axes:
        """Draw the overlay on axes of matplotlib, under the label and the score.

        The axes count the pixels of the original, as `peak` does.

        Args:
            ax: the axes; those of a new figure if None.
            frame: as in `overlay`.
            colormap: as in `overlay`.
            opacity: as in `overlay`.

        Returns:
            The axes.

        Raises:
            InputError: as `overlay`.
            MissingExtra: matplotlib is not installed (`pip install 'mmcam[notebook]'`).

        Example:
            >>> ax = maps["dog"].plot()
            >>> ax.plot(*maps["dog"].peak()[:2], "w+")
            >>> ax.figure.savefig("dog.pdf")
        """
        from mmcam.results import plotting  # which imports this module

        return plotting.plot(self, ax, frame, colormap, opacity)

    def show(
        self,
        *,
        frame: int | None = None,
        colormap: str = "inferno",
        opacity: float = OPACITY,
    ) -> None:
        """Plot the map and show the figure, in the notebook or in a window.

        Args:
            frame: as in `overlay`.
            colormap: as in `overlay`.
            opacity: as in `overlay`.

        Raises:
            InputError: as `overlay`.
            MissingExtra: matplotlib is not installed (`pip install 'mmcam[notebook]'`).
        """
        self.plot(frame=frame, colormap=colormap, opacity=opacity)
        import_pyplot().show()

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
        placed = onto_original(saliency, self.spatial_placement).numpy()
        y, x = maximum_cell(placed, near=centre)
        return Peak(x + 0.5, y + 0.5, frame)

    def _repr_html_(self) -> str:
        """A card with the map for notebooks; for a clip, the time slice that holds the maximum."""
        from mmcam.results import plotting  # which imports this module

        facts = [f"{self.method} at {self.layer}", f"score {self.score:.4g}"]
        if self.probability is not None:
            facts.append(f"probability {self.probability:.4f}")
        if self.counterfactual:
            facts.append("counterfactual: evidence against it")
        if self.empty:
            facts.append("no positive evidence")
        return card(plotting.thumbnail(self), self.label, facts)

    @property
    def spatial_placement(self) -> Placement:
        """The placement without the time axis."""
        return replace(self.placement, spans=(), extent=self.placement.extent[-2:])
