"""The parts of a dataset: items, each a picture or clip with its ground truth."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool

from mmcam.datasets.human_maps import read_human_map
from mmcam.datasets.segments import decode_segment
from mmcam.errors import EvaluationError, InputError
from mmcam.evaluators.human_attention import HumanMap
from mmcam.evaluators.maps import Box, box_region
from mmcam.media import open_clip, read_image
from mmcam.media.windows import sample_window
from mmcam.types import Sample, Window

WHOLE = ""
"""The key of a region that applies to any target of the item, except a word of a caption."""


@dataclass(frozen=True, kw_only=True)
class Region:
    """The location of an object on the original: its segments and mask files, if any, or its boxes.

    `segments` are in COCO's format; `masks` are image files, nonzero on the object.
    """

    boxes: tuple[Box, ...] = ()
    segments: tuple[Any, ...] = ()
    masks: tuple[str, ...] = ()

    def mask(self, size: tuple[int, int]) -> Bool[np.ndarray, "height width"]:
        """The union of all segments and masks, or of the boxes, on a picture of `size` (h, w).

        Raises:
            MmcamError: there is no segment, mask or box; one does not fit the picture or cannot be
                read; or pycocotools, which draws segments, is not installed.
        """
        masks = [decode_segment(segmentation, *size) for segmentation in self.segments]
        masks += [_read_mask(path, size) for path in self.masks]
        masks = masks or [box_region(box, size) for box in self.boxes]
        if not masks:
            raise EvaluationError("the region has no box, segment or mask; give it one")
        union: Bool[np.ndarray, "height width"] = np.any(masks, axis=0)
        return union

    def boxes_on(self, size: tuple[int, int]) -> tuple[Box, ...]:
        """The boxes; if there are none, the bounding box of the mask.

        Raises:
            MmcamError: as for `mask`, or the mask is empty.
        """
        if self.boxes:
            return self.boxes
        rows, columns = np.nonzero(self.mask(size))
        if not len(rows):
            raise EvaluationError("the region's mask is empty; leave the item out")
        left, top = float(columns.min()), float(rows.min())
        return ((left, top, float(columns.max() + 1), float(rows.max() + 1)),)

    def joined(self, other: Region) -> Region:
        """The union of both regions."""
        return Region(
            boxes=self.boxes + other.boxes,
            segments=self.segments + other.segments,
            masks=self.masks + other.masks,
        )


def _read_mask(path: str, size: tuple[int, int]) -> Bool[np.ndarray, "height width"]:
    mask = read_human_map(path) > 0
    if mask.shape != size:
        raise InputError(
            f"{path} is a mask of {mask.shape[1]} x {mask.shape[0]} pixels for a picture of "
            f"{size[1]} x {size[0]}; give a mask of the picture's size"
        )
    return mask


@dataclass(frozen=True, kw_only=True)
class Item:
    """One picture or clip with its text and its ground truth.

    Attributes:
        id: the name of the item in the results.
        group: shared by dependent items, such as the captions of one photo; statistics do not treat
            items of one group as independent. If empty, the item is its own group.
        source: a path, a PIL image or an array; a folder of frames is a clip.
        text: the caption or the question.
        labels: the classes, actions or answers, by name or by index.
        regions: locations of objects, by label or category; see also `WHOLE`.
        human_maps: files or arrays of human attention, one per person.
        span: the part of a longer clip to use, in seconds.
    """

    id: str
    source: Any
    text: str = ""
    labels: tuple[str | int, ...] = ()
    regions: Mapping[str, Region] = field(default_factory=dict)
    human_maps: tuple[Any, ...] = ()
    span: tuple[float, float] | None = None
    group: str = ""

    def read_human_maps(self) -> list[HumanMap]:
        """The maps of human attention, one per person.

        Raises:
            InputError: a map cannot be read.
        """
        return [
            human_map if isinstance(human_map, np.ndarray) else read_human_map(human_map)
            for human_map in self.human_maps
        ]

    def read(self, window: Window | None) -> Sample:
        """The picture, or for a video model the frames of one window in the middle of the span.

        Args:
            window: the input window of a video model; None for an image model.

        Raises:
            InputError: the source cannot be read, is a clip for an image model, or has no frame in
                the span.
        """
        if window is None:
            if isinstance(self.source, (str, Path)) and Path(self.source).is_dir():
                raise InputError(
                    f"{self.source} is a folder, thus a clip, and the model is an image model; "
                    "choose a video model (mmcam list models)"
                )
            return Sample(pixels=read_image(self.source).pixels, id=self.id, text=self.text)
        with open_clip(self.source) as clip:
            first, last = 0.0, float(clip.frames)
            if self.span is not None:
                first, last = (min(edge * clip.fps, last) for edge in self.span)
            if not first < last:
                raise InputError(
                    f"{self.id}: the span {self.span} contains no frame; the clip has "
                    f"{clip.frames / clip.fps:.2f} seconds; correct the item's start and end"
                )
            length = min(window.length(clip.fps), last - first)
            start = first + (last - first - length) / 2
            frames = sample_window(clip, (start, start + length), window)
        return Sample(pixels=frames.pixels, id=self.id, text=self.text)


class Dataset(ABC):
    """Items by index; creating an item decodes no picture, except in `hub.HubRows`.

    `fingerprint` identifies the items and their order, so that a run can be resumed. `name` is the
    specification given to `open_data`, if any.
    """

    fingerprint: str
    name: str = ""

    @abstractmethod
    def __len__(self) -> int:
        """The number of items."""

    @abstractmethod
    def item(self, number: int) -> Item:
        """The item with this index.

        Raises:
            InputError: the item's annotation cannot be read, or its file is missing.
        """

    def __iter__(self) -> Iterator[Item]:
        return (self.item(number) for number in range(len(self)))

    def __getitem__(self, number: int) -> Item:
        if not -len(self) <= number < len(self):
            raise IndexError(f"item {number} of {len(self)}")
        return self.item(number % len(self))


class Rows(Dataset):
    """Items created on access from short rows held in memory.

    Args:
        rows: what `make` needs to create each item; the fingerprint is a hash of them.
        make: creates the item of a row.
        source: the name of the dataset in error messages.

    Raises:
        InputError: there are no rows.
    """

    def __init__(self, rows: Sequence[Any], make: Callable[[Any], Item], source: str) -> None:
        if not rows:
            raise InputError(f"{source} has no items; check the path and the options after '?'")
        self.rows, self.make = rows, make
        digest = hashlib.sha256()
        for row in rows:
            digest.update(repr(row).encode(errors="backslashreplace") + b"\n")
        self.fingerprint = digest.hexdigest()

    def __len__(self) -> int:
        return len(self.rows)

    def item(self, number: int) -> Item:
        """The item with this index.

        Raises:
            InputError: the item's annotation cannot be read, or its file is missing.
        """
        return self.make(self.rows[number])
