"""Does a captioner look where a described box is? In/out ratio on COCO's boxes (ICCV 7.1).

    python examples/in_out_ratio.py --model my_captioner/ --photos val2017/
        --instances instances_val2017.json

The paper has DenseCap describe five regions of a picture and explains each description by a
captioner of whole pictures; here the five largest objects of different categories are described as
"a dog", "a bench", in a word of `data/coco_words.json` that the captioner knows, with COCO's own
box. Of each map it is the mean inside the box over the mean outside: 1 for a uniform map. Beside
each method stand

- centre: a hill in the middle of the picture.
- activation: the mean over the channels of the layer, which knows nothing of the words.
- wrong words: the same method's map of a category that is not on the photo.

Means are over descriptions, and their errors over photos, by drawing these anew 2,000 times; a few
small boxes weigh heavily in a mean of ratios, so medians stand beside it.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table
from word_pointing import redrawn

import mmcam
from mmcam.datasets.coco import Instance, Photo, read_instances
from mmcam.errors import EvaluationError, LabelError
from mmcam.evaluators.coco_words import WordTable
from mmcam.evaluators.densecap import in_out_ratio
from mmcam.evaluators.human_attention import centre_map
from mmcam.evaluators.maps import Map, box_region

MOST = 5
"""How many descriptions of a picture there are at most, as in the paper."""


@dataclass(frozen=True)
class Judged:
    """One description: for each method and baseline, its ratio."""

    photo: int
    text: str
    ratios: dict[str, float]


def largest(photo: Photo, texts: Mapping[str, str]) -> dict[str, Instance]:
    """The largest object of each category that can be described, the largest first."""
    best: dict[str, Instance] = {}
    for one in sorted(photo.instances, key=_area, reverse=True):
        if not one.crowd and one.category in texts:
            best.setdefault(one.category, one)
    return dict(itertools.islice(best.items(), MOST))


def _area(instance: Instance) -> float:
    left, top, right, bottom = instance.box
    return (right - left) * (bottom - top)


def sayable(model: mmcam.types.Adapter, picture: Path, table: WordTable) -> dict[str, str]:
    """For each category the words that describe it, where the captioner knows some."""
    texts: dict[str, str] = {}
    for words, category in table.entries.items():
        if category is None or category in texts:
            continue
        text = f"a {' '.join(words)}"
        try:
            mmcam.explain(model, picture, mmcam.Caption(text, words=[]))
            texts[category] = text
        except LabelError:
            continue
    return texts


def maps_of(
    model: mmcam.types.Adapter, path: Path, text: str, methods: Sequence[str]
) -> dict[str, Map]:
    """The maps of a whole description."""
    asked = mmcam.Caption(text, words=[])
    return {one.method: one.heatmap() for one in mmcam.explain(model, path, asked, method=methods)}


def judge(
    model: mmcam.types.Adapter,
    path: Path,
    photo: Photo,
    methods: Sequence[str],
    texts: Mapping[str, str],
) -> Iterator[Judged]:
    """The descriptions of one photo, judged."""
    size = (photo.height, photo.width)
    absent = next((texts[name] for name in texts if name not in photo.categories), None)
    wrong = maps_of(model, path, absent, methods) if absent else {}
    for category, instance in largest(photo, texts).items():
        heats = maps_of(model, path, texts[category], [*methods, "activation"])
        heats |= {f"{name}, wrong words": heat for name, heat in wrong.items()}
        # What the model did not see says nothing, for the centre too.
        unseen = np.isnan(heats["activation"])
        heats["centre"] = np.where(unseen, np.nan, centre_map(size)).astype(np.float32)
        region, ratios = box_region(instance.box, size), {}
        for name, heat in heats.items():
            try:
                ratios[name] = in_out_ratio(heat, region)
            except EvaluationError:
                continue  # an empty map, or a box that holds all that was seen
        yield Judged(photo.id, texts[category], ratios)


def summary(judged: Sequence[Judged], name: str) -> dict[str, float]:
    """Mean, its standard error over photos, median, and how many descriptions there were."""
    ratios, means = redrawn(
        (one.photo, one.ratios[name]) for one in judged if np.isfinite(one.ratios.get(name, np.nan))
    )
    return {
        "mean": float(np.mean(ratios)),
        "error": float(means.std()),
        "median": float(np.median(ratios)),
        "count": len(ratios),
    }


def main() -> None:
    """Judge, print a table, and write all ratios as JSON if asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, help="a captioner, as mmcam caption takes it")
    parser.add_argument("--instances", type=Path, required=True, help="COCO's instances JSON")
    parser.add_argument("--photos", type=Path, required=True, help="the folder of photos")
    parser.add_argument("--method", nargs="+", default=["gradcam", "guided", "guided-gradcam"])
    parser.add_argument("--limit", type=int, help="at most so many photos")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every ratio there")
    settings = parser.parse_args()
    console, model = Console(), mmcam.load(settings.model)
    photos = list(read_instances(settings.instances).values())[: settings.limit]
    texts = sayable(model, settings.photos / photos[0].file_name, WordTable.load())
    judged: list[Judged] = []
    for photo in track(photos, "photos", disable=not console.is_terminal):
        path = settings.photos / photo.file_name
        judged += judge(model, path, photo, settings.method, texts)
    if not judged:
        sys.exit("nothing to judge: the captioner knows no word for what is on these photos")
    result = Table("map", "mean", "error", "median", "descriptions", title=f"In/out, {model.name}")
    names = dict.fromkeys(name for one in judged for name in one.ratios)
    found = {name: summary(judged, name) for name in names}
    for name, one in found.items():
        numbers = [f"{one[key]:.2f}" for key in ("mean", "error", "median")]
        result.add_row(name, *numbers, str(one["count"]))
    console.print(result)
    console.print(f"{len({one.photo for one in judged})} photos; {len(texts)} categories known")
    if settings.json:
        content = {"summary": found, "descriptions": [vars(one) for one in judged]}
        settings.json.write_text(json.dumps(content, indent=1))


if __name__ == "__main__":
    main()
