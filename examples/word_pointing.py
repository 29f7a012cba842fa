"""Do the maps of caption words lie on the named objects? Word pointing on COCO (IJCV 8.1.1).

    python examples/word_pointing.py --model my_captioner/ --photos val2017/
        --instances instances_val2017.json --captions captions_val2017.json

Every human caption of a photo is teacher-forced. Each of its words that names one of COCO's 80
categories (`data/coco_words.json`) is explained, if the photo has segments of that category. The
word is a hit if the map's maximum lies in the union of the segments. The baselines are:

- chance: the share of the picture that the segments cover.
- centre: the middle of the picture.
- activation: the mean over the channels of the layer, which does not depend on the word.
- wrong word: the same method's map of the caption's next visual word that is not of the category.

Captions with words that the model does not know cannot be teacher-forced; they are counted. The
intervals are 95 % bootstrap intervals over photos, with 2,000 draws.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

import mmcam
from mmcam.datasets.coco import Photo, read_captions, read_instances
from mmcam.errors import LabelError
from mmcam.evaluators.coco_words import VisualWord, WordTable
from mmcam.evaluators.pointing import centre_pointing, chance, word_pointing
from mmcam.tasks.words import visual as is_visual


@dataclass(frozen=True)
class WordResult:
    """The hits of each method and baseline for one word; "chance" is a probability."""

    photo: int
    caption: str
    word: str
    category: str
    hits: dict[str, float]


def evaluate_caption(
    model: mmcam.types.Adapter,
    path: Path,
    photo: Photo,
    caption: str,
    methods: Sequence[str],
    table: WordTable,
) -> Iterator[WordResult]:
    """The results of the visual words of one caption.

    Raises:
        LabelError: the model does not know a word of the caption.
    """
    maps = mmcam.explain(model, path, mmcam.Caption(caption), method=[*methods, "activation"])
    assert maps.text is not None
    words = [word["text"] for word in maps.text["words"]]
    visual_words = table.find(words)
    regions = photo.masks()
    for visual_word in visual_words:
        if visual_word.category not in regions:
            continue
        position, category = visual_word.position, visual_word.category
        heatmaps = {
            method: maps.select(method=method, position=position)[0].heatmap()
            for method in (*methods, "activation")
        }
        activation = heatmaps["activation"]
        hits = {
            "chance": chance(activation, regions[category]),
            "centre": float(centre_pointing(activation, regions[category], tolerance=0)),
            **{name: float(word_pointing(heatmaps[name], regions, category)) for name in heatmaps},
        }
        wrong_position = _wrong_word(visual_words, words, position, category)
        for method in methods if wrong_position is not None else ():
            wrong_map = maps.select(method=method, position=wrong_position)[0].heatmap()
            hits[f"{method}, wrong word"] = float(word_pointing(wrong_map, regions, category))
        yield WordResult(photo.id, caption, words[position], category, hits)


def _wrong_word(
    visual_words: Sequence[VisualWord], words: Sequence[str], position: int, category: str
) -> int | None:
    """The position of the next visual word that is not of the category, cyclically, if any."""
    excluded = {word.position for word in visual_words if word.category == category}
    visual = is_visual(words)
    order = [(position + step) % len(words) for step in range(1, len(words))]
    return next((index for index in order if visual[index] and index not in excluded), None)


def bootstrap(
    values: Iterable[tuple[int, float]], draws: int = 2000
) -> tuple[list[float], np.ndarray]:
    """All values of (photo, value) pairs, and the means of bootstrap samples of the photos."""
    by_photo: dict[int, list[float]] = defaultdict(list)
    for photo, value in values:
        by_photo[photo].append(value)
    sums = np.array([sum(photo_values) for photo_values in by_photo.values()])
    counts = np.array([len(photo_values) for photo_values in by_photo.values()])
    samples = np.random.default_rng(0).integers(0, len(sums), (draws, len(sums)))
    means = sums[samples].sum(1) / counts[samples].sum(1)
    return [value for photo_values in by_photo.values() for value in photo_values], means


def interval(results: Sequence[WordResult], name: str) -> tuple[float, float, float, int]:
    """The share of hits, its 95 % interval over photos, and the number of words."""
    hits, shares = bootstrap(
        (result.photo, result.hits[name]) for result in results if name in result.hits
    )
    low, high = np.quantile(shares, [0.025, 0.975])
    return float(np.mean(hits)), float(low), float(high), len(hits)


def main() -> None:
    """Evaluate, print a table, and write all words as JSON if requested."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, help="a captioner, as for mmcam caption")
    parser.add_argument("--instances", type=Path, required=True, help="COCO's instances JSON")
    parser.add_argument("--captions", type=Path, required=True, help="COCO's captions JSON")
    parser.add_argument("--photos", type=Path, required=True, help="the folder of photos")
    parser.add_argument("--method", nargs="+", default=["gradcam", "gradcam++"])
    parser.add_argument("--limit", type=int, help="the maximum number of photos")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all words to this file")
    settings = parser.parse_args()
    console, table = Console(), WordTable.load()
    model = mmcam.load(settings.model)
    captions = read_captions(settings.captions)
    photos = [
        photo for photo in read_instances(settings.instances).values() if photo.id in captions
    ]
    results: list[WordResult] = []
    forced, unknown = 0, 0
    for photo in track(photos[: settings.limit], "photos", disable=not console.is_terminal):
        for caption in captions[photo.id]:
            try:
                results += evaluate_caption(
                    model, settings.photos / photo.file_name, photo, caption, settings.method, table
                )
                forced += 1
            except LabelError:
                unknown += 1
    if not results:
        sys.exit(
            f"no words to evaluate: {forced} captions were teacher-forced, {unknown} have words "
            "that the model does not know"
        )
    result_table = Table("map", "hits", "95 %", "words", title=f"Word pointing, {model.name}")
    names = dict.fromkeys(name for result in results for name in result.hits)
    for name in names:
        share, low, high, count = interval(results, name)
        result_table.add_row(name, f"{share:.3f}", f"{low:.3f} - {high:.3f}", str(count))
    console.print(result_table)
    photo_count = len({result.photo for result in results})
    console.print(
        f"{photo_count} photos; {forced} captions were teacher-forced, {unknown} have words that "
        "the model does not know"
    )
    if settings.json:
        content = {
            "summary": {name: interval(results, name) for name in names},
            "said": forced,
            "unsaid": unknown,
            "words": [vars(result) for result in results],
        }
        settings.json.write_text(json.dumps(content, indent=1))


if __name__ == "__main__":
    main()
