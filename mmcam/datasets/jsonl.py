r"""Plain JSONL: one item a line, each a JSON object with these keys.

============  =====================================================================================
key           what it is
============  =====================================================================================
`path`        a picture, a video, or a folder of frames; relative paths begin at the file's folder
`id`          what rows call the item; its `path` when left out
`text`        a caption, or the question that is asked
`labels`      a list of classes, actions or answers, by name or by number
`regions`     a list of regions, each with a `label` (a class, a COCO category; left out: right
              for whatever is asked) and one or more of `box` (`[left, top, right, bottom]` in
              pixels of the original), `segmentation` (COCO's format: polygons or run lengths) and
              `mask` (a picture of the original's size, not black where the thing is). Regions of
              one label are taken together; segments and masks go before boxes
`human_maps`  a list of pictures or `.npy` files, one a person, brighter where they looked
`group`       what it shares with other items, such as the photo of several captions: items of one
              group are not taken for independent
`start`,      the stretch of a longer clip that is meant, in seconds
`end`
============  =====================================================================================

Only `path` must be there. A key that is none of these is an error of that item, as it may be a slip
of the pen; keys that begin with `_` are passed over, and so are empty lines. The encoding is UTF-8.

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
    """The items of a JSONL file, each line read when it is asked for.

    Raises:
        InputError: the file cannot be read, or has no item.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.starts = array("q")
        digest = hashlib.sha256()
        at = 0
        try:
            with self.path.open("rb") as file:
                for line in file:
                    if line.strip():
                        self.starts.append(at)
                    at += len(line)
                    digest.update(line)
        except OSError as error:
            raise InputError(
                f"{path} cannot be read ({error.strerror}); name a file with one JSON object a line"
            ) from error
        if not self.starts:
            raise InputError(f"{path} holds no item; give it one JSON object a line")
        self.fingerprint = digest.hexdigest()

    def __len__(self) -> int:
        return len(self.starts)

    def item(self, number: int) -> Item:
        """The item of this number.

        Raises:
            InputError: its line is no item.
        """
        with self.path.open("rb") as file:
            file.seek(self.starts[number])
            line = file.readline()
        try:
            return _item(json.loads(line), self.path.parent)
        except (ValueError, TypeError, KeyError) as error:
            reason = f"{error}" if isinstance(error, ValueError) else f"no {error} as it must be"
            raise InputError(
                f"{self.path}, item {number}: {reason}; see the format of JSONL in the README"
            ) from error


def _item(values: Any, folder: Path) -> Item:
    _check_keys(values, KEYS)
    path = _text(values, "path")
    labels = values.get("labels", [])
    if not isinstance(labels, list) or not all(type(one) in (str, int) for one in labels):
        raise ValueError(f"labels {labels!r} are no list of names or numbers")
    regions: dict[str, Region] = {}
    for one in values.get("regions", []):
        _check_keys(one, REGION_KEYS)
        label = str(one.get("label", WHOLE))
        regions[label] = regions.get(label, Region()).joined(_region(one, folder))
    span = (float(values["start"]), float(values["end"])) if "start" in values else None
    return Item(
        id=str(values.get("id", path)),
        source=str(folder / path),
        text=_text(values, "text") if "text" in values else "",
        labels=tuple(labels),
        regions=regions,
        human_maps=tuple(str(folder / one) for one in values.get("human_maps", [])),
        span=span,
        group=_text(values, "group") if "group" in values else "",
    )


def _region(values: Mapping[str, Any], folder: Path) -> Region:
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
        raise ValueError(f"{values!r} is no JSON object")
    for key in values:
        if key not in known and not key.startswith("_"):
            raise ValueError(f"key '{key}' is unknown; nearest: {nearest(key, known)}")


def _text(values: Mapping[str, Any], key: str) -> str:
    if not isinstance(values[key], str):
        raise ValueError(f"{key} {values[key]!r} is no text")
    return str(values[key])
