"""The packaged models' maps depend on what was learnt (Adebayo et al. 2018, Sixt et al. 2020).

Grad-CAM++ and the like, whose weights cannot be negative, are near the mean activation at the usual
layer, for trained and untrained weights alike; what is tested is what the maps are used for.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
from torch import nn

import mmcam
from mmcam import shapes
from mmcam.demo import packaged, two_tone_question
from mmcam.evaluators.pointing import energy_inside
from mmcam.evaluators.sanity import (
    cascading_randomization,
    random_label_similarity,
    rank_similarity,
)
from mmcam.types import Adapter

SEEDS = shapes.SPLITS["test"][200_000:200_006]

Judged = list[tuple[np.ndarray, np.ndarray]]
"""Maps, each with the mask of what it should lie on."""


def words(model: Adapter, method: str) -> Judged:
    """The shapes and colours of captions that are put into the model's mouth."""
    made = []
    for seed in SEEDS:
        scene = shapes.scene(seed)
        told = shapes.caption(scene)
        masks = {w.position: w.mask for w in told.words if w.kind in ("shape", "colour")}
        asked = mmcam.Caption(told.text, words=list(masks))
        for found in mmcam.explain(model, scene.pixels, asked, method=method):
            mask = masks.get(found.target.position)
            if mask is not None:
                made.append((found.heatmap(), mask))
    return made


def answers(model: Adapter, method: str) -> Judged:
    """The right answers that rest on something."""
    made = []
    for seed in SEEDS:
        scene = shapes.scene(seed)
        for ask in shapes.questions(scene):
            mask = ask.answers[ask.answer]
            if mask is not None:
                asked = mmcam.Answers(ask.text, [ask.answer])
                found = mmcam.explain(model, scene.pixels, asked, method=method)[0]
                made.append((found.heatmap(), mask))
    return made


def actions(model: Adapter, method: str) -> Judged:
    """The actions of clips."""
    made = []
    for seed in SEEDS:
        clip = shapes.clip(seed)
        found = mmcam.explain(model, clip.pixels, mmcam.Actions([clip.action]), method=method)[0]
        made.append((found.heatmap(), clip.objects[clip.actor].masks))
    return made


CASES: dict[str, Callable[[Adapter, str], Judged]] = {
    "captioner": words,
    "vqa": answers,
    "action": actions,
}


def inside(maps: Judged) -> float:
    """The mean share of the maps that lies where it should."""
    return float(np.mean([energy_inside(heat, mask) for heat, mask in maps]))


def likeness(maps: Judged, others: Judged) -> float:
    """The mean rank correlation of maps with others of the same."""
    pairs = zip(maps, others, strict=True)
    return float(np.mean([rank_similarity(one, other) for (one, _), (other, _) in pairs]))


def every_layer(model: nn.Module) -> list[str]:
    """All layers with weights of their own, from the score down to the pixels."""
    own = [name for name, part in model.named_modules() if list(part.parameters(recurse=False))]
    return own[::-1]


@pytest.mark.parametrize("method", ["gradcam", "hirescam"])
@pytest.mark.parametrize("name", CASES)
def test_models_with_weights_drawn_anew_have_other_maps(name: str, method: str) -> None:
    adapter = mmcam.load(packaged(name))
    layers = every_layer(adapter.model)
    calls = itertools.count()

    def explain() -> Judged:
        # Only for the model as it is and with no weight left; those between take long.
        return CASES[name](adapter, method) if next(calls) in (0, len(layers)) else []

    made = cascading_randomization(adapter.model, explain, layers)
    learnt, drawn = made[None], made[layers[-1]]
    assert likeness(learnt, drawn) < 0.5
    assert inside(drawn) < 0.75 * inside(learnt)
    assert inside(CASES[name](adapter, method)) == inside(learnt)


def test_maps_of_the_wrong_answer_are_other_maps() -> None:
    model, likenesses = mmcam.load(packaged("vqa")), []
    for seed in SEEDS:
        scene = shapes.scene(seed)
        ask = two_tone_question(scene) or shapes.questions(scene)[0]

        def explain(label: int, scene: shapes.Scene = scene, text: str = ask.text) -> np.ndarray:
            asked = mmcam.Answers(text, [shapes.ANSWERS[label]])
            return mmcam.explain(model, scene.pixels, asked, method="hirescam")[0].heatmap()

        label = shapes.ANSWERS.index(ask.answer)
        likenesses.append(random_label_similarity(explain, label, len(shapes.ANSWERS), seed=seed))
    assert np.mean(likenesses) < 0.5


def test_maps_of_a_wrong_word_are_other_maps() -> None:
    model, likenesses = mmcam.load(packaged("captioner")), []
    for seed in SEEDS:
        scene = shapes.scene(seed)
        said = [word.text for word in shapes.caption(scene).words]
        word = next(word for word in shapes.caption(scene).words if word.kind == "colour")
        other = next(colour for colour in shapes.COLOURS if colour not in said)
        maps = []
        for text in (word.text, other):
            said[word.position] = text
            asked = mmcam.Caption(" ".join(said), words=[word.position])
            found = mmcam.explain(model, scene.pixels, asked, method="gradcam")
            maps.append(found.select(position=word.position)[0].heatmap())
        likenesses.append(rank_similarity(*maps))
    assert np.mean(likenesses) < 0.5
