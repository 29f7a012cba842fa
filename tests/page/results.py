"""Results of each task for the tests of pages, by models that need no training."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

import mmcam
from mmcam.explanations import Explanations
from mmcam.results.explanation import Explanation
from mmcam.types import Placement, Sample, Target
from tests import colour_net
from tests.adapters.tiny_answerers import answerer
from tests.adapters.tiny_captioners import captioner

HOSTILE = [
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "\"quoted\" 'and' & <b>bold</b>",
    "مرحبا بالعالم",
    "🐶👩‍👩‍👧 犬",
    "{{style}} {{data}} \\u003c",
    "\u2028\u2029 <!-- -->",
]


def classes(**options: Any) -> Explanations:
    """Three classes; green is not in the picture, so its map has no positive evidence."""
    pixels = colour_net.scene({"red": (0.3, 0.4), "blue": (0.7, 0.6)})
    options = {"method": ["gradcam", "gradcam++", "guided"], **options}
    return mmcam.explain(
        colour_net.model(clips=False), pixels, mmcam.Classes(["red", "blue", "green"]), **options
    )


def clip(**options: Any) -> Explanations:
    """Red moves in the first half; green never."""
    return mmcam.explain(
        colour_net.model(clips=True),
        colour_net.clip(),
        mmcam.Actions(["red moves", "green moves"]),
        **options,
    )


def pixels(height: int = 48, width: int = 60) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def caption(text: str | None = "a dog runs", **options: Any) -> Explanations:
    return mmcam.explain(captioner(seed=3), pixels(), mmcam.Caption(text), **options)


def answers(**options: Any) -> Explanations:
    task = mmcam.Answers("What color is the dog?", ["red", "yellow", "yellow and red"])
    return mmcam.explain(answerer(), pixels(), task, **options)


def make_explanations(
    labels: Sequence[str],
    photo: np.ndarray,
    *,
    kinds: Sequence[str] = (),
    box: tuple[float, float, float, float] | None = None,
    text: dict[str, Any] | None = None,
    file: str = "photo.jpg",
    grid: tuple[int, int] = (7, 7),
    words: Sequence[tuple[str, float]] = (),
) -> Explanations:
    """Results with random maps, one for each label."""
    height, width = photo.shape[:2]
    random = torch.Generator().manual_seed(0)
    explanations = [
        Explanation(
            target=Target(
                label=label,
                score=lambda output: output,
                kind=kinds[i] if kinds else "class",
                position=i - 1 if kinds and kinds[i] == "word" else None,
            ),
            cam=torch.rand(grid, generator=random) - 0.3,
            score=float(i) - 1.5,
            probability=0.5 / (i + 1),
            method="gradcam",
            layer="trunk",
            placement=Placement(
                size=(height, width), box=box or (0.0, 0.0, float(width), float(height))
            ),
            words=tuple(words),
        )
        for i, label in enumerate(labels)
    ]
    task = mmcam.Caption() if text and "caption" in text else mmcam.Classes()
    sample = Sample(pixels=photo, id=file)
    return Explanations.of_picture(colour_net.model(clips=False), sample, task, explanations, text)


def caption_facts(words: Sequence[str]) -> dict[str, Any]:
    """The entry of a generated caption of these words in `explanation.json`."""
    return {
        "caption": " ".join(words),
        "generated": True,
        "log_prob": -3.0,
        "words": [
            {"text": word, "position": i, "log_prob": -0.5 * (i + 1)}
            for i, word in enumerate(words)
        ],
    }


def twelve_words(photo: np.ndarray) -> Explanations:
    """A caption of twelve words with all its maps."""
    words = ["a", "brown", "dog", "and", "a", "grey", "cat", "sit", "on", "a", "red", "sofa"]
    kinds = ["sentence", *["word"] * len(words)]
    return make_explanations(
        [" ".join(words), *words], photo, kinds=kinds, text=caption_facts(words)
    )


def page_of(explanations: Explanations) -> str:
    """The page that a notebook shows, which needs no files to be written."""
    _, _, srcdoc = explanations._repr_html_().partition('srcdoc="')
    return html.unescape(srcdoc.removesuffix('"></iframe>'))
