"""Datasets by one line of text: `name:path`, with options behind a question mark.

    jsonl:items.jsonl
    coco:DIR?split=val2017
    hf:beans?split=test&image=image

Paths in options are relative to the working folder. `DATASETS` has every name; what JSONL looks
like is said in `mmcam.datasets.jsonl`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from mmcam.datasets import coco, densecap, flickr, hub, image_folder, jsonl, kinetics, voc, vqa
from mmcam.datasets.items import Dataset
from mmcam.errors import InputError, nearest


@dataclass(frozen=True, kw_only=True)
class Reader:
    """One row of the table of datasets: how it is read, and what it is.

    Options are the keyword arguments of `read`; `task`, where it has one, is the run's.
    """

    read: Callable[..., Dataset]
    example: str
    summary: str

    @property
    def options(self) -> list[str]:
        """What may stand behind the question mark."""
        parameters = inspect.signature(self.read).parameters.values()
        return [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.name != "task"]


DATASETS: dict[str, Reader] = {
    "jsonl": Reader(
        read=jsonl.JsonLines,
        example="jsonl:items.jsonl",
        summary="one JSON object an item: path, text, labels, regions, human maps",
    ),
    "imagefolder": Reader(
        read=image_folder.read_image_folder,
        example="imagefolder:val/",
        summary="ImageNet's way: a folder for each class, or files nXXXXXXXX_name.JPEG",
    ),
    "coco": Reader(
        read=coco.read_coco,
        example="coco:DIR?split=val2017",
        summary="COCO's photos with instances; for captions, an item a caption",
    ),
    "voc": Reader(
        read=voc.read_voc,
        example="voc:VOCdevkit/VOC2012?split=val",
        summary="Pascal VOC's photos with boxes",
    ),
    "kinetics": Reader(
        read=kinetics.read_kinetics,
        example="kinetics:val.csv?clips=DIR",
        summary="clips by Kinetics' CSV, or by lines of path and label",
    ),
    "vqa": Reader(
        read=vqa.read_vqa,
        example="vqa:DIR?images=val2014",
        summary="VQA v2: questions, and the answer that most people gave",
    ),
    "vqa-hat": Reader(
        read=vqa.read_vqa_hat,
        example="vqa-hat:vqahat_val/?vqa=DIR",
        summary="VQA-HAT: questions with maps of where people looked",
    ),
    "densecap": Reader(
        read=densecap.read_densecap_results,
        example="densecap:results.json?images=DIR",
        summary="DenseCap's results: descriptions with boxes, an item each",
    ),
    "flickr": Reader(
        read=flickr.read_flickr,
        example="flickr:captions.txt?images=DIR",
        summary="Flickr8k's and Flickr30k's captions, an item each",
    ),
    "hf": Reader(
        read=hub.read_hub,
        example="hf:beans?split=test",
        summary="any dataset of Hugging Face datasets, from the hub or a folder",
    ),
}
"""Every kind of dataset by name."""


def open_data(spec: str, task: str = "") -> Dataset:
    """The dataset that a line of text names.

    Args:
        spec: `name:path?option=value&...`.
        task: what is asked of the items, by the task's name; COCO has items for it.

    Raises:
        InputError: no such kind of dataset or option, or it cannot be read.
        MissingExtra: what reads it is not installed.
    """
    name, _, rest = spec.partition(":")
    reader = DATASETS.get(name)
    if reader is None or not rest:
        examples = ", ".join(row.example for row in DATASETS.values())
        raise InputError(
            f"'{spec}' names no dataset; nearest kind: {nearest(name, DATASETS, 1)}. Give one of: "
            f"{examples}"
        )
    path, _, asked = rest.partition("?")
    options: dict[str, Any] = dict(parse_qsl(asked, keep_blank_values=True))
    for option in options:
        if option not in reader.options:
            have = ", ".join(reader.options) or "none"
            raise InputError(f"'{spec}': {name} has no option '{option}'; it has: {have}")
    if "task" in inspect.signature(reader.read).parameters:
        options["task"] = task
    try:
        data = reader.read(path if name == "hf" else Path(path), **options)
    except ValueError as error:
        raise InputError(f"'{spec}': {error}; mend the option") from error
    data.name = spec
    return data
