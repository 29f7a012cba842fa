"""Open datasets by specification: `name:path`, with options after a question mark.

    jsonl:items.jsonl
    coco:DIR?split=val2017
    hf:beans?split=test&image=image

Paths in options are relative to the working folder; VQA's options `questions` and `annotations` are
first looked up in VQA's folder. `DATASETS` lists the names; `mmcam.datasets.jsonl` describes the
JSONL format.
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
    """One row of the table of datasets: its reader, an example and a summary.

    Options are the keyword-only arguments of `read`. An argument `task` is no option: it is set to
    the name of the run's task.
    """

    read: Callable[..., Dataset]
    example: str
    summary: str

    @property
    def options(self) -> list[str]:
        """The names of the options after the question mark."""
        parameters = inspect.signature(self.read).parameters.values()
        return [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.name != "task"]


DATASETS: dict[str, Reader] = {
    "jsonl": Reader(
        read=jsonl.JsonLines,
        example="jsonl:items.jsonl",
        summary="one JSON object per item: path, text, labels, regions, human maps",
    ),
    "imagefolder": Reader(
        read=image_folder.read_image_folder,
        example="imagefolder:val/",
        summary="as in ImageNet: a folder for each class, or files nXXXXXXXX_name.JPEG",
    ),
    "coco": Reader(
        read=coco.read_coco,
        example="coco:DIR?split=val2017",
        summary="COCO's photos with instances; for captions, one item per caption",
    ),
    "voc": Reader(
        read=voc.read_voc,
        example="voc:VOCdevkit/VOC2012?split=val",
        summary="Pascal VOC's photos with boxes",
    ),
    "kinetics": Reader(
        read=kinetics.read_kinetics,
        example="kinetics:val.csv?clips=DIR",
        summary="clips from Kinetics' CSV, or from lines of path and label",
    ),
    "vqa": Reader(
        read=vqa.read_vqa,
        example="vqa:DIR?images=val2014",
        summary="VQA v1, v2 and VizWiz: questions, each with its most common answer",
    ),
    "vqa-hat": Reader(
        read=vqa.read_vqa_hat,
        example="vqa-hat:vqahat_val/?vqa=DIR",
        summary="VQA-HAT: questions with maps of human attention",
    ),
    "densecap": Reader(
        read=densecap.read_densecap_results,
        example="densecap:results.json?images=DIR",
        summary="DenseCap's results: descriptions with boxes, one item each",
    ),
    "flickr": Reader(
        read=flickr.read_flickr,
        example="flickr:captions.txt?images=DIR",
        summary="Flickr8k's and Flickr30k's captions, one item each",
    ),
    "hf": Reader(
        read=hub.read_hub,
        example="hf:beans?split=test",
        summary="any dataset of Hugging Face datasets, from the hub or a folder",
    ),
}
"""All kinds of datasets by name."""


def open_data(spec: str, task: str = "") -> Dataset:
    """Open the dataset of a specification.

    Args:
        spec: `name:path?option=value&...`.
        task: the name of the task (a key of `evaluation.study.TASKS`); for "caption", COCO has one
            item per caption.

    Raises:
        InputError: no such kind of dataset or option, an option has an invalid value, or the
            dataset cannot be read or is empty.
        MissingExtra: the library that reads the dataset is not installed.
    """
    name, _, rest = spec.partition(":")
    reader = DATASETS.get(name)
    if reader is None or not rest:
        examples = ", ".join(row.example for row in DATASETS.values())
        raise InputError(
            f"'{spec}' is not a dataset specification; nearest kind: "
            f"{nearest(name, DATASETS, 1)}. Give one of: {examples}"
        )
    path, _, query = rest.partition("?")
    options: dict[str, Any] = dict(parse_qsl(query, keep_blank_values=True))
    for option in options:
        if option not in reader.options:
            known = ", ".join(reader.options) or "none"
            raise InputError(f"'{spec}': {name} has no option '{option}'; it has: {known}")
    if "task" in inspect.signature(reader.read).parameters:
        options["task"] = task
    try:
        data = reader.read(path if name == "hf" else Path(path), **options)
    except ValueError as error:
        raise InputError(f"'{spec}': {error}; correct the option") from error
    data.name = spec
    return data
