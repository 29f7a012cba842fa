r"""Plain JSONL: one item per line, a JSON object with these keys.

============  =====================================================================================
key           meaning
============  =====================================================================================
`path`        a picture, a video, or a folder of frames
`id`          the name of the item in the results; `path` by default
`text`        a caption or a question
`labels`      a list of classes, actions or answers, by name or by index
`regions`     a list of regions, each with a `label` (a class or COCO category; without a label, the
              region applies to any target except a word of a caption) and one or more of `box`
              (`[left, top, right, bottom]` in pixels of the original), `segmentation` (COCO's
              format: polygons or run-length encoding) and `mask` (a picture of the original's size,
              black except on the object). Regions with the same label are merged; where there is a
              segmentation or mask, boxes are not used for the region's mask
`human_maps`  a list of pictures or `.npy` files, one per person, bright where the person looked
`group`       shared by dependent items, such as the captions of one photo: statistics do not treat
              items of one group as independent
`start`,      the part of a longer clip to use, in seconds
`end`
============  =====================================================================================

Only `path` is required. All paths are relative to the JSONL file's folder. An item with an unknown
key is an error, as the key may be a typo. Empty lines are ignored, and so are keys that begin with
`_`. The encoding is UTF-8.

    {"path": "a.jpg", "text": "a dog runs", "regions": [{"label": "dog", "box": [8, 20, 90, 70]}]}
"""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmcam.datasets.items import WHOLE, Dataset, Item, Region
from mmcam.errors import InputError, nearest

KEYS = ("path", "id", "text", "labels", "regions", "human_maps", "group", "start", "end")
REGION_KEYS = ("label", "box", "segmentation", "mask")


class JsonLines(Dataset):
    """The items of a JSONL file; a line is read each time its item is accessed.

    Raises:
        InputError: the file cannot be read, or has no items.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.offsets = array("q")
        digest = hashlib.sha256()
        offset = 0
        try:
            with self.path.open("rb") as file:
                for line in file:
                    if line.strip():
                        self.offsets.append(offset)
                    offset += len(line)
                    digest.update(line)
        except OSError as error:
            raise InputError(
                f"{path} cannot be read ({error.strerror}); name a file with one JSON object "
                "per line"
            ) from error
        if not self.offsets:
            raise InputError(f"{path} holds no item; write one JSON object per line")
        self.fingerprint = digest.hexdigest()

    def __len__(self) -> int:
        return len(self.offsets)

    def item(self, number: int) -> Item:
        """The item with this index.

        Raises:
            InputError: its line is not a valid item.
        """
        with self.path.open("rb") as file:
            file.seek(self.offsets[number])
            line = file.readline()
        try:
            return _parse_item(json.loads(line), self.path.parent)
        except (ValueError, TypeError, KeyError) as error:
            reason = f"key {error} is missing" if isinstance(error, KeyError) else f"{error}"
            raise InputError(
                f"{self.path}, item {number}: {reason}; see the JSONL format in the README"
            ) from error


def _parse_item(values: Any, folder: Path) -> Item:
    _check_keys(values, KEYS)
    path = _parse_text(values, "path")
    labels = values.get("labels", [])
    if not isinstance(labels, list) or not all(type(label) in (str, int) for label in labels):
        raise ValueError(f"labels {labels!r} is not a list of names or indices")
    human_maps = values.get("human_maps", [])
    if not isinstance(human_maps, list) or not all(isinstance(name, str) for name in human_maps):
        raise ValueError(f"human_maps {human_maps!r} is not a list of paths")
    regions: dict[str, Region] = {}
    for region in values.get("regions", []):
        _check_keys(region, REGION_KEYS)
        label = str(region.get("label", WHOLE))
        regions[label] = regions.get(label, Region()).joined(_parse_region(region, folder))
    if ("start" in values) != ("end" in values):
        raise ValueError("'start' and 'end' belong together, and one of them is missing")
    span = (float(values["start"]), float(values["end"])) if "start" in values else None
    return Item(
        id=str(values.get("id", path)),
        source=str(folder / path),
        text=_parse_text(values, "text") if "text" in values else "",
        labels=tuple(labels),
        regions=regions,
        human_maps=tuple(str(folder / name) for name in human_maps),
        span=span,
        group=_parse_text(values, "group") if "group" in values else "",
    )


def _parse_region(values: Mapping[str, Any], folder: Path) -> Region:
    boxes: tuple[tuple[float, float, float, float], ...] = ()
    if "box" in values:
        left, top, right, bottom = (float(edge) for edge in values["box"])
        if not (left < right and top < bottom):
            raise ValueError(f"box {values['box']} is not [left, top, right, bottom]")
        boxes = ((left, top, right, bottom),)
    region = Region(
        boxes=boxes,
        segments=(values["segmentation"],) if "segmentation" in values else (),
        masks=(str(folder / values["mask"]),) if "mask" in values else (),
    )
    if region == Region():
        raise ValueError(f"region {dict(values)} has no box, segmentation or mask")
    return region


def _check_keys(values: Any, known: tuple[str, ...]) -> None:
    if not isinstance(values, dict):
        raise ValueError(f"{values!r} is not a JSON object")
    for key in values:
        if key not in known and not key.startswith("_"):
            raise ValueError(f"key '{key}' is unknown; nearest: {nearest(key, known)}")


def _parse_text(values: Mapping[str, Any], key: str) -> str:
    if not isinstance(values[key], str):
        raise ValueError(f"{key} {values[key]!r} is not a string")
    return str(values[key])
