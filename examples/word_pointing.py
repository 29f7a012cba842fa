"""Do the maps of a caption's words lie on what they name? Word pointing on COCO (IJCV 8.1.1).

    python examples/word_pointing.py --model my_captioner/ --photos val2017/
        --instances instances_val2017.json --captions captions_val2017.json

Every caption that people wrote of a photo is put into the model's mouth. Each of its words that
stands for one of COCO's 80 categories (`data/coco_words.json`), where the photo has segments of
that category, is explained; it is a hit if the map is highest within their union. Beside each
method stand the baselines that it has to beat:

- chance: the share of the picture that the segments cover.
- centre: the middle of the picture.
- activation: the mean over the channels of the layer, which knows nothing of the word.
- wrong word: the same method's map of the caption's next visual word that is of no such category.

Captions with words that the model does not know cannot be forced, and are counted. Intervals are
95 %, by drawing photos anew with replacement 2,000 times.
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
class Judged:
    """One word of a caption: for each method and baseline, whether it is a hit (or how likely)."""

    photo: int
    caption: str
    word: str
    category: str
    hits: dict[str, float]


def judge(
    model: mmcam.types.Adapter,
    path: Path,
    photo: Photo,
    caption: str,
    methods: Sequence[str],
    table: WordTable,
) -> Iterator[Judged]:
    """The visual words of one caption, judged.

    Raises:
        LabelError: the model cannot say the caption.
    """
    maps = mmcam.explain(model, path, mmcam.Caption(caption), method=[*methods, "activation"])
    assert maps.text is not None
    words = [word["text"] for word in maps.text["words"]]
    visual = table.find(words)
    regions = photo.masks()
    for found in visual:
        if found.category not in regions:
            continue
        position, category = found.position, found.category
        heat = {
            method: maps.select(method=method, position=position)[0].heatmap()
            for method in (*methods, "activation")
        }
        seen = heat["activation"]
        hits = {
            "chance": chance(seen, regions[category]),
            "centre": float(centre_pointing(seen, regions[category], tolerance=0)),
            **{name: float(word_pointing(heat[name], regions, category)) for name in heat},
        }
        other = _wrong(visual, words, position, category)
        for method in methods if other is not None else ():
            wrong = maps.select(method=method, position=other)[0].heatmap()
            hits[f"{method}, wrong word"] = float(word_pointing(wrong, regions, category))
        yield Judged(photo.id, caption, words[position], category, hits)


def _wrong(
    visual: Sequence[VisualWord], words: Sequence[str], position: int, category: str
) -> int | None:
    """The next visual word of another category, or of none, around the end to the beginning."""
    same = {found.position for found in visual if found.category == category}
    seen = is_visual(words)
    order = [(position + step) % len(words) for step in range(1, len(words))]
    return next((at for at in order if seen[at] and at not in same), None)


def redrawn(
    values: Iterable[tuple[int, float]], draws: int = 2000
) -> tuple[list[float], np.ndarray]:
    """All values, each told with its photo, and their means when the photos are drawn anew."""
    by_photo: dict[int, list[float]] = defaultdict(list)
    for photo, value in values:
        by_photo[photo].append(value)
    sums = np.array([sum(found) for found in by_photo.values()])
    counts = np.array([len(found) for found in by_photo.values()])
    drawn = np.random.default_rng(0).integers(0, len(sums), (draws, len(sums)))
    means = sums[drawn].sum(1) / counts[drawn].sum(1)
    return [value for found in by_photo.values() for value in found], means


def interval(judged: Sequence[Judged], name: str) -> tuple[float, float, float, int]:
    """The share of hits, its 95 % interval over photos, and how many words were judged."""
    hits, shares = redrawn((one.photo, one.hits[name]) for one in judged if name in one.hits)
    low, high = np.quantile(shares, [0.025, 0.975])
    return float(np.mean(hits)), float(low), float(high), len(hits)


def main() -> None:
    """Judge, print a table, and write all words as JSON if asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, help="a captioner, as mmcam caption takes it")
    parser.add_argument("--instances", type=Path, required=True, help="COCO's instances JSON")
    parser.add_argument("--captions", type=Path, required=True, help="COCO's captions JSON")
    parser.add_argument("--photos", type=Path, required=True, help="the folder of photos")
    parser.add_argument("--method", nargs="+", default=["gradcam", "gradcam++"])
    parser.add_argument("--limit", type=int, help="at most so many photos")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every word there")
    settings = parser.parse_args()
    console, table = Console(), WordTable.load()
    model = mmcam.load(settings.model)
    captions = read_captions(settings.captions)
    photos = [
        photo for photo in read_instances(settings.instances).values() if photo.id in captions
    ]
    judged: list[Judged] = []
    said, unsaid = 0, 0
    for photo in track(photos[: settings.limit], "photos", disable=not console.is_terminal):
        for caption in captions[photo.id]:
            try:
                judged += judge(
                    model, settings.photos / photo.file_name, photo, caption, settings.method, table
                )
                said += 1
            except LabelError:
                unsaid += 1
    if not judged:
        sys.exit(f"no words to judge: {said} captions could be said, {unsaid} could not")
    result = Table("map", "hits", "95 %", "words", title=f"Word pointing, {model.name}")
    names = dict.fromkeys(name for one in judged for name in one.hits)
    for name in names:
        share, low, high, count = interval(judged, name)
        result.add_row(name, f"{share:.3f}", f"{low:.3f} - {high:.3f}", str(count))
    console.print(result)
    console.print(
        f"{len({one.photo for one in judged})} photos; {said} captions were said, {unsaid} hold "
        "words that the model does not know"
    )
    if settings.json:
        content = {
            "summary": {name: interval(judged, name) for name in names},
            "said": said,
            "unsaid": unsaid,
            "words": [vars(one) for one in judged],
        }
        settings.json.write_text(json.dumps(content, indent=1))


if __name__ == "__main__":
    main()
