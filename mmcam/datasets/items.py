"""What a dataset consists of: items, each a picture or clip with what is known about it."""

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
from mmcam.datasets.segments import segment
from mmcam.errors import EvaluationError, InputError
from mmcam.evaluators.human_attention import HumanMap
from mmcam.evaluators.maps import Box, box_region
from mmcam.media import open_clip, read_image
from mmcam.media.windows import sample_window
from mmcam.types import Sample, Window

WHOLE = ""
"""The key of a region that is right for whatever is asked of the item."""


@dataclass(frozen=True, kw_only=True)
class Region:
    """Where a thing is on the original: segments or mask files where there are any, else boxes.

    `segments` are in COCO's format; `masks` are pictures, not black where the thing is.
    """

    boxes: tuple[Box, ...] = ()
    segments: tuple[Any, ...] = ()
    masks: tuple[str, ...] = ()

    def mask(self, size: tuple[int, int]) -> Bool[np.ndarray, "height width"]:
        """The union of all parts, on a picture of `size` (height, width).

        Raises:
            MmcamError: a part does not fit the picture, or cannot be read.
        """
        parts = [segment(one, *size) for one in self.segments]
        parts += [_read_mask(path, size) for path in self.masks]
        parts = parts or [box_region(box, size) for box in self.boxes]
        if not parts:
            raise EvaluationError("the region has no box, segment or mask; give it one")
        union: Bool[np.ndarray, "height width"] = np.any(parts, axis=0)
        return union

    def boxes_on(self, size: tuple[int, int]) -> tuple[Box, ...]:
        """The boxes, or the one around the mask where none are given.

        Raises:
            MmcamError: as `mask`, or an empty mask.
        """
        if self.boxes:
            return self.boxes
        rows, columns = np.nonzero(self.mask(size))
        if not len(rows):
            raise EvaluationError("the region's mask is empty; leave the item out")
        left, top = float(columns.min()), float(rows.min())
        return ((left, top, float(columns.max() + 1), float(rows.max() + 1)),)

    def joined(self, other: Region) -> Region:
        """Both regions as one."""
        return Region(
            boxes=self.boxes + other.boxes,
            segments=self.segments + other.segments,
            masks=self.masks + other.masks,
        )


def _read_mask(path: str, size: tuple[int, int]) -> Bool[np.ndarray, "height width"]:
    mask = read_human_map(path) > 0
    if mask.shape != size:
        raise InputError(
            f"{path}: a mask of {mask.shape[1]} x {mask.shape[0]} pixels for a picture of "
            f"{size[1]} x {size[0]}; give one of the picture's own size"
        )
    return mask


@dataclass(frozen=True, kw_only=True)
class Item:
    """One picture or clip, what is asked of it, and what is known to be true of it.

    Attributes:
        id: what rows call it.
        group: what it shares with other items, such as the photo of several captions; items of one
            group are not taken for independent. Empty: it is a group of its own.
        source: a path, a PIL image or an array; a folder of frames is a clip.
        text: its caption, or the question that is asked of it.
        labels: its classes, actions or answers, by name or by number.
        regions: where things are, by label or category; `WHOLE` is right for any target.
        human_maps: files or arrays of where people looked, one a person.
        span: the stretch of a longer clip that is meant, in seconds.
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
        """The maps of where people looked.

        Raises:
            InputError: one cannot be read.
        """
        return [
            one if isinstance(one, np.ndarray) else read_human_map(one) for one in self.human_maps
        ]

    def read(self, window: Window | None) -> Sample:
        """The picture, or for a video model the frames of one window in the middle of the clip.

        Raises:
            InputError: it cannot be read.
        """
        if window is None:
            if isinstance(self.source, (str, Path)) and Path(self.source).is_dir():
                raise InputError(
                    f"{self.source}: a folder is a clip, and the model is one of pictures; choose "
                    "a video model (mmcam list models)"
                )
            return Sample(pixels=read_image(self.source).pixels, id=self.id, text=self.text)
        with open_clip(self.source) as clip:
            first, last = 0.0, float(clip.frames)
            if self.span is not None:
                first, last = (min(edge * clip.fps, last) for edge in self.span)
            if not first < last:
                raise InputError(
                    f"{self.id}: seconds {self.span} hold no frame of a clip of "
                    f"{clip.frames / clip.fps:.2f} seconds; mend the item's start and end"
                )
            length = min(window.length(clip.fps), last - first)
            start = first + (last - first - length) / 2
            frames = sample_window(clip, (start, start + length), window)
        return Sample(pixels=frames.pixels, id=self.id, text=self.text)


class Dataset(ABC):
    """Items by number; making one reads no pixels.

    `fingerprint` is the same for the same items in the same order: what a run is resumed by. `name`
    is the line of text that named it, where one did.
    """

    fingerprint: str
    name: str = ""

    @abstractmethod
    def __len__(self) -> int:
        """How many items there are."""

    @abstractmethod
    def item(self, number: int) -> Item:
        """The item of this number.

        Raises:
            InputError: what is known of it cannot be read.
        """

    def __iter__(self) -> Iterator[Item]:
        return (self.item(number) for number in range(len(self)))

    def __getitem__(self, number: int) -> Item:
        if not -len(self) <= number < len(self):
            raise IndexError(f"item {number} of {len(self)}")
        return self.item(number % len(self))


class Rows(Dataset):
    """Items that are made of short rows held in memory, each when it is asked for."""

    def __init__(self, rows: Sequence[Any], make: Callable[[Any], Item], about: str) -> None:
        if not rows:
            raise InputError(f"{about} holds no item; check the path and the options behind '?'")
        self.rows, self.make = rows, make
        digest = hashlib.sha256()
        for row in rows:
            digest.update(repr(row).encode(errors="backslashreplace") + b"\n")
        self.fingerprint = digest.hexdigest()

    def __len__(self) -> int:
        return len(self.rows)

    def item(self, number: int) -> Item:
        """The item of this number."""
        return self.make(self.rows[number])
