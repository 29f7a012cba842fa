"""The packaged models' maps depend on the trained weights (Adebayo et al. 2018, Sixt et al. 2020).

The tests do not cover Grad-CAM++ and similar methods: their channel weights cannot be negative, so
their maps are close to the mean activation at the default layer, with or without training.
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

MapsWithMasks = list[tuple[np.ndarray, np.ndarray]]
"""Maps, each with the mask of its evidence."""


def caption_maps(model: Adapter, method: str) -> MapsWithMasks:
    """Maps of the shapes and colours in teacher-forced captions."""
    maps = []
    for seed in SEEDS:
        scene = shapes.scene(seed)
        caption = shapes.caption(scene)
        masks = {w.position: w.mask for w in caption.words if w.kind in ("shape", "colour")}
        task = mmcam.Caption(caption.text, words=list(masks))
        for explanation in mmcam.explain(model, scene.pixels, task, method=method):
            mask = masks.get(explanation.target.position)
            if mask is not None:
                maps.append((explanation.heatmap(), mask))
    return maps


def answer_maps(model: Adapter, method: str) -> MapsWithMasks:
    """Maps of the right answers that have a mask."""
    maps = []
    for seed in SEEDS:
        scene = shapes.scene(seed)
        for question in shapes.questions(scene):
            mask = question.answers[question.answer]
            if mask is not None:
                task = mmcam.Answers(question.text, [question.answer])
                explanation = mmcam.explain(model, scene.pixels, task, method=method)[0]
                maps.append((explanation.heatmap(), mask))
    return maps


def action_maps(model: Adapter, method: str) -> MapsWithMasks:
    """Maps of the actions of clips."""
    maps = []
    for seed in SEEDS:
        clip = shapes.clip(seed)
        explanation = mmcam.explain(
            model, clip.pixels, mmcam.Actions([clip.action]), method=method
        )[0]
        maps.append((explanation.heatmap(), clip.objects[clip.actor].masks))
    return maps


CASES: dict[str, Callable[[Adapter, str], MapsWithMasks]] = {
    "captioner": caption_maps,
    "vqa": answer_maps,
    "action": action_maps,
}


def mean_inside(maps: MapsWithMasks) -> float:
    """The mean share of the maps on their masks."""
    return float(np.mean([energy_inside(heat, mask) for heat, mask in maps]))


def similarity(maps: MapsWithMasks, other_maps: MapsWithMasks) -> float:
    """The mean rank correlation of pairs of maps of the same targets."""
    pairs = zip(maps, other_maps, strict=True)
    return float(np.mean([rank_similarity(first, second) for (first, _), (second, _) in pairs]))


def layers_with_weights(model: nn.Module) -> list[str]:
    """All layers that have weights themselves, from the score down to the pixels."""
    names = [name for name, part in model.named_modules() if list(part.parameters(recurse=False))]
    return names[::-1]


@pytest.mark.parametrize("method", ["gradcam", "hirescam"])
@pytest.mark.parametrize("name", CASES)
def test_models_with_randomised_weights_have_other_maps(name: str, method: str) -> None:
    adapter = mmcam.load(packaged(name))
    layers = layers_with_weights(adapter.model)
    calls = itertools.count()

    def explain() -> MapsWithMasks:
        # Only for the trained and the fully randomised model; those between take long.
        return CASES[name](adapter, method) if next(calls) in (0, len(layers)) else []

    maps = cascading_randomization(adapter.model, explain, layers)
    trained, randomised = maps[None], maps[layers[-1]]
    assert similarity(trained, randomised) < 0.5
    assert mean_inside(randomised) < 0.75 * mean_inside(trained)
    assert mean_inside(CASES[name](adapter, method)) == mean_inside(trained)


def test_maps_of_the_wrong_answer_are_other_maps() -> None:
    model, similarities = mmcam.load(packaged("vqa")), []
    for seed in SEEDS:
        scene = shapes.scene(seed)
        question = two_tone_question(scene) or shapes.questions(scene)[0]

        def explain(
            label: int, scene: shapes.Scene = scene, text: str = question.text
        ) -> np.ndarray:
            task = mmcam.Answers(text, [shapes.ANSWERS[label]])
            return mmcam.explain(model, scene.pixels, task, method="hirescam")[0].heatmap()

        label = shapes.ANSWERS.index(question.answer)
        similarities.append(random_label_similarity(explain, label, len(shapes.ANSWERS), seed=seed))
    assert np.mean(similarities) < 0.5


def test_maps_of_a_wrong_word_are_other_maps() -> None:
    model, similarities = mmcam.load(packaged("captioner")), []
    for seed in SEEDS:
        scene = shapes.scene(seed)
        words = [word.text for word in shapes.caption(scene).words]
        word = next(word for word in shapes.caption(scene).words if word.kind == "colour")
        other = next(colour for colour in shapes.COLOURS if colour not in words)
        maps = []
        for text in (word.text, other):
            words[word.position] = text
            task = mmcam.Caption(" ".join(words), words=[word.position])
            explanations = mmcam.explain(model, scene.pixels, task, method="gradcam")
            maps.append(explanations.select(position=word.position)[0].heatmap())
        similarities.append(rank_similarity(*maps))
    assert np.mean(similarities) < 0.5
