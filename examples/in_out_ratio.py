"""Do a captioner's maps lie in the box of a described object? In/out ratio on COCO (ICCV 7.1).

    python examples/in_out_ratio.py --model my_captioner/ --photos val2017/
        --instances instances_val2017.json

In the paper, DenseCap describes five regions of a picture, and a captioner of whole pictures
explains each description. Here the five largest objects of different categories are described as
"a dog", "a bench", with a word of `data/coco_words.json` that the captioner knows, and COCO's box.
The ratio of a map is the mean inside the box divided by the mean outside: 1 for a uniform map. The
baselines are:

- centre: a Gaussian in the middle of the picture.
- activation: the mean over the channels of the layer, which does not depend on the words.
- wrong words: the same method's map of a category that is not in the photo.

Means are over descriptions; their standard errors are over photos, by a bootstrap of 2,000 draws. A
few small boxes dominate a mean of ratios, so medians are printed too.
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
from word_pointing import bootstrap

import mmcam
from mmcam.datasets.coco import Instance, Photo, read_instances
from mmcam.errors import EvaluationError, LabelError
from mmcam.evaluators.coco_words import WordTable
from mmcam.evaluators.densecap import in_out_ratio
from mmcam.evaluators.human_attention import centre_map
from mmcam.evaluators.maps import Map, box_region

MAX_DESCRIPTIONS = 5
"""The maximum number of descriptions of a picture, as in the paper."""


@dataclass(frozen=True)
class DescriptionResult:
    """The ratios of each method and baseline for one description."""

    photo: int
    text: str
    ratios: dict[str, float]


def largest(photo: Photo, texts: Mapping[str, str]) -> dict[str, Instance]:
    """The largest object of each describable category, in decreasing order of size."""
    objects: dict[str, Instance] = {}
    for instance in sorted(photo.instances, key=_area, reverse=True):
        if not instance.crowd and instance.category in texts:
            objects.setdefault(instance.category, instance)
    return dict(itertools.islice(objects.items(), MAX_DESCRIPTIONS))


def _area(instance: Instance) -> float:
    left, top, right, bottom = instance.box
    return (right - left) * (bottom - top)


def describable_categories(
    model: mmcam.types.Adapter, picture: Path, table: WordTable
) -> dict[str, str]:
    """Category -> the description of it, for categories with words that the captioner knows."""
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
    task = mmcam.Caption(text, words=[])
    explanations = mmcam.explain(model, path, task, method=methods)
    return {explanation.method: explanation.heatmap() for explanation in explanations}


def evaluate_photo(
    model: mmcam.types.Adapter,
    path: Path,
    photo: Photo,
    methods: Sequence[str],
    texts: Mapping[str, str],
) -> Iterator[DescriptionResult]:
    """The results of all descriptions of one photo."""
    size = (photo.height, photo.width)
    absent = next((texts[name] for name in texts if name not in photo.categories), None)
    wrong_maps = maps_of(model, path, absent, methods) if absent else {}
    for category, instance in largest(photo, texts).items():
        heatmaps = maps_of(model, path, texts[category], [*methods, "activation"])
        heatmaps |= {f"{name}, wrong words": heatmap for name, heatmap in wrong_maps.items()}
        # Pixels outside the model's input are excluded from the centre baseline as well.
        outside_input = np.isnan(heatmaps["activation"])
        heatmaps["centre"] = np.where(outside_input, np.nan, centre_map(size)).astype(np.float32)
        region, ratios = box_region(instance.box, size), {}
        for name, heatmap in heatmaps.items():
            try:
                ratios[name] = in_out_ratio(heatmap, region)
            except EvaluationError:
                continue  # an empty map, or a box that contains the whole input
        yield DescriptionResult(photo.id, texts[category], ratios)


def summary(results: Sequence[DescriptionResult], name: str) -> dict[str, float]:
    """The mean, its standard error over photos, the median, and the number of descriptions."""
    ratios, means = bootstrap(
        (result.photo, result.ratios[name])
        for result in results
        if np.isfinite(result.ratios.get(name, np.nan))
    )
    return {
        "mean": float(np.mean(ratios)),
        "error": float(means.std()),
        "median": float(np.median(ratios)),
        "count": len(ratios),
    }


def main() -> None:
    """Evaluate, print a table, and write all ratios as JSON if requested."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, help="a captioner, as for mmcam caption")
    parser.add_argument("--instances", type=Path, required=True, help="COCO's instances JSON")
    parser.add_argument("--photos", type=Path, required=True, help="the folder of photos")
    parser.add_argument("--method", nargs="+", default=["gradcam", "guided", "guided-gradcam"])
    parser.add_argument("--limit", type=int, help="the maximum number of photos")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all ratios to this file")
    settings = parser.parse_args()
    console, model = Console(), mmcam.load(settings.model)
    photos = list(read_instances(settings.instances).values())[: settings.limit]
    texts = describable_categories(model, settings.photos / photos[0].file_name, WordTable.load())
    results: list[DescriptionResult] = []
    for photo in track(photos, "photos", disable=not console.is_terminal):
        path = settings.photos / photo.file_name
        results += evaluate_photo(model, path, photo, settings.method, texts)
    if not results:
        sys.exit("nothing to evaluate: the captioner knows no word for the objects in these photos")
    table = Table("map", "mean", "error", "median", "descriptions", title=f"In/out, {model.name}")
    names = dict.fromkeys(name for result in results for name in result.ratios)
    summaries = {name: summary(results, name) for name in names}
    for name, values in summaries.items():
        numbers = [f"{values[key]:.2f}" for key in ("mean", "error", "median")]
        table.add_row(name, *numbers, str(values["count"]))
    console.print(table)
    photo_count = len({result.photo for result in results})
    console.print(f"{photo_count} photos; {len(texts)} categories known")
    if settings.json:
        content = {"summary": summaries, "descriptions": [vars(result) for result in results]}
        settings.json.write_text(json.dumps(content, indent=1))


if __name__ == "__main__":
    main()
