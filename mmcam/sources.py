"""What `explain` takes: which sources are one picture or clip, and the items of a batch."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from mmcam.errors import InputError
from mmcam.media import Clip
from mmcam.types import Sample

PIXEL_KEYS = ("pixel_values", "pixels", "image", "images", "img", "video")
"""The key of the pictures in an item or batch that is a mapping: the first of these that it has."""


def is_single(source: Any, axes: int) -> bool:
    """Whether a source is one picture or clip; what cannot be iterated is left to its reader.

    `axes` is the number of axes of the model's input without the batch: 3, or 4 for clips.
    """
    if isinstance(source, Mapping):
        return is_single(_pixels_of(source), axes)
    if isinstance(source, Tensor):
        return source.ndim <= axes
    if isinstance(source, (str, bytes, os.PathLike, np.ndarray, Image.Image, Sample, Clip)):
        return True
    return not (hasattr(source, "__iter__") or hasattr(source, "__getitem__"))


def each_source(source: Any, axes: int) -> Iterator[Any]:
    """The pictures or clips of a source, one by one; a single one is the only item.

    A sequence, a dataset or any other iterable has an item for each. An item that is a tuple or a
    list begins with the picture, as in `(picture, label)`. A mapping, alone or as an item, has the
    picture, or a sequence of pictures, under one of `PIXEL_KEYS`. A tensor with a batch axis, alone
    or as such an item, is unrolled, and so is each batch of a `DataLoader`.

    Raises:
        InputError: a mapping without any of `PIXEL_KEYS`, or an empty tuple or list as an item.
    """
    if isinstance(source, DataLoader) and source.batch_size is not None:
        for batch in source:
            yield from _of_batch(batch, axes)
    elif is_single(source, axes) or isinstance(source, (Tensor, Mapping)):
        yield from _of_item(source, axes)
    else:
        for item in _iterate(source):
            yield from _of_item(item, axes)


def _iterate(source: Any) -> Iterable[Any]:
    """The items of an iterable, or of a dataset that has a length and an index only."""
    if hasattr(source, "__iter__") or not hasattr(source, "__len__"):
        items: Iterable[Any] = iter(source)
        return items
    return (source[index] for index in range(len(source)))


def _of_item(item: Any, axes: int) -> Iterator[Any]:
    if isinstance(item, Mapping):
        yield from _of_batch(item, axes)
    elif isinstance(item, (tuple, list)):
        if not item:
            raise InputError(f"{item!r} holds no picture; give (picture, label), or the picture")
        yield from _of_item(item[0], axes)
    elif isinstance(item, Tensor) and item.ndim > axes:
        yield from item
    else:
        yield item


def _of_batch(batch: Any, axes: int) -> Iterator[Any]:
    """The sources of a mapping, or of a `DataLoader`'s batch.

    A batch is what its `collate_fn` returns: `(pictures, labels, ...)`, where pictures are a tensor
    with a batch axis, a list or (in a tuple) a tuple; a mapping with these pictures; or a list of
    items.
    """
    if isinstance(batch, Mapping):
        batch = (_pixels_of(batch),)
    if isinstance(batch, (tuple, list)):
        first = batch[0] if batch else None
        if isinstance(first, list) or (isinstance(first, tuple) and isinstance(batch, tuple)):
            batch = first
        elif isinstance(first, Tensor) and first.ndim > axes:
            batch = [first]
        for item in batch:
            yield from _of_item(item, axes)
    else:
        yield from _of_item(batch, axes)


def _pixels_of(item: Mapping[Any, Any]) -> Any:
    """The pictures in a mapping.

    Raises:
        InputError: the mapping has none of `PIXEL_KEYS`.
    """
    for key in PIXEL_KEYS:
        if key in item:
            return item[key]
    raise InputError(
        f"a mapping with the keys {', '.join(map(repr, item))} does not say which one holds the "
        f"picture; name it {', '.join(PIXEL_KEYS[:-1])} or {PIXEL_KEYS[-1]}, or give the picture"
    )
