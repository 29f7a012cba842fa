"""One item as metrics see it: its maps, what is known to be true of it, and the model to ask."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float

from mmcam.capture.model_state import autocast
from mmcam.datasets.items import WHOLE, Item, Region
from mmcam.engine.pictures import explain_samples
from mmcam.engine.rescoring import Rescorer
from mmcam.errors import EvaluationError, LabelError
from mmcam.evaluation.study import Study
from mmcam.evaluators.coco_words import WordTable
from mmcam.evaluators.faithfulness import explanation_map
from mmcam.evaluators.human_attention import centre_map, random_map
from mmcam.evaluators.maps import Box, Map
from mmcam.evaluators.sanity import cascading_randomization, rank_similarity
from mmcam.grids import onto_original
from mmcam.methods import METHODS
from mmcam.results.explanation import Explanation
from mmcam.tasks import Classes
from mmcam.types import Adapter, Sample, Target

CELLS = 14


def seed_of(item_id: str) -> int:
    """A seed that is fixed by an item's id, on any machine."""
    return int(hashlib.sha256(item_id.encode(errors="backslashreplace")).hexdigest()[:8], 16)


def with_baselines(
    found: Sequence[Explanation], study: Study, item_id: str
) -> tuple[Explanation, ...]:
    """All maps of an item in the order of the series, target after target, baselines made here."""
    groups: list[list[Explanation]] = []
    for explanation in found:
        if groups and groups[-1][0].target is explanation.target:
            groups[-1].append(explanation)
        else:
            groups.append([explanation])
    made: list[Explanation] = []
    for number, group in enumerate(groups):
        for name in study.series:
            made += [one for one in group if one.method == name]
            if name not in METHODS and name in study.baselines:
                made.append(_baseline(name, group[0], seed_of(f"{item_id}\n{number}")))
    return tuple(made)


def _baseline(name: str, like: Explanation, seed: int) -> Explanation:
    """A map over what the model saw; noise has cells in time too."""
    time = 4 * len(like.placement.spans)
    shape = (CELLS, CELLS)
    if name == "random":
        values = random_map(seed, (max(time, 1) * CELLS, CELLS)).reshape(-1, *shape)
    else:
        plane = centre_map(shape) if name == "centre" else np.ones(shape)
        values = np.repeat(plane[None], max(time, 1), 0)
    cam = torch.from_numpy(values if time else values[0]).float()
    return replace(like, cam=cam, method=name, layer="none")


def signed(explanation: Explanation) -> Map:
    """The raw map on the original with its signs, NaN where the model did not see."""
    frames = range(explanation.frame_count) if explanation.is_clip else None
    placed: Map = onto_original(explanation.saliency, explanation.placement, frames).numpy()
    return placed


@dataclass(eq=False)
class Subject:
    """One item after the forward: its maps and everything metrics ask of it, made once.

    `found` are the engine's own maps, `maps` those that are judged.
    """

    item: Item
    sample: Sample
    study: Study
    adapter: Adapter
    rescorer: Rescorer
    task: Any
    text: str
    classes: int | None
    found: tuple[Explanation, ...]
    maps: tuple[Explanation, ...]
    words: tuple[str, ...] = ()
    heat: dict[int, Map] = field(default_factory=dict)
    masks: dict[str, Bool[np.ndarray, "height width"]] = field(default_factory=dict)
    others: dict[tuple[int, int], tuple[Explanation, ...]] = field(default_factory=dict)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the original."""
        return self.sample.pixels.shape[-3], self.sample.pixels.shape[-2]

    def probabilities(
        self, pictures: Iterable[np.ndarray], targets: Iterable[Target]
    ) -> Float[np.ndarray, " n"]:
        """The probability of each target on its changed picture; its score if it has none."""
        return self.rescorer.probabilities(pictures, targets, self.task, self.text)

    @property
    def targets(self) -> list[Target]:
        """What was asked, each once, in order."""
        return list({id(one.target): one.target for one in self.maps}.values())

    def heatmap(self, explanation: Explanation) -> Map:
        """The map on the original, in [0, 1]."""
        if id(explanation) not in self.heat:
            self.heat[id(explanation)] = explanation.heatmap()
        return self.heat[id(explanation)]

    @cached_property
    def regions(self) -> Mapping[str, Region]:
        """Regions by what the model calls them."""
        return {self.model_name(label): region for label, region in self.item.regions.items()}

    def model_name(self, label: str | int) -> str:
        """What the model calls a label of the data."""
        if label == WHOLE:
            return WHOLE
        return model_label(self.adapter, label, self.classes)

    def mask(self, key: str) -> Bool[np.ndarray, "height width"]:
        """The mask of a region."""
        if key not in self.masks:
            self.masks[key] = self.regions[key].mask(self.size)
        return self.masks[key]

    @cached_property
    def categories(self) -> dict[int, str]:
        """The COCO category that words of the caption stand for, by their position."""
        return {found.position: found.category for found in _words().find(self.words)}

    def key(self, target: Target) -> str | None:
        """Which region a target is about: None where it is about nothing that has one.

        Raises:
            EvaluationError: the item has no region of a label, or none at all.
        """
        if not self.regions:
            raise EvaluationError(
                f"'{self.item.id}' has no regions, boxes or masks to compare with"
            )
        if target.kind == "word":
            category = self.categories.get(-1 if target.position is None else target.position)
            return next((name for name in (target.label, category) if name in self.regions), None)
        name = WHOLE if target.kind == "sentence" else target.label
        if name in self.regions:
            return name
        if WHOLE in self.regions:
            return WHOLE
        if target.kind == "sentence":
            return None
        raise EvaluationError(f"the item has no region of '{name}', which is explained")

    def boxes(self, key: str) -> tuple[Box, ...]:
        """The boxes of a region."""
        return self.regions[key].boxes_on(self.size)

    @cached_property
    def explained(self) -> dict[int, float]:
        """For each map the probability of its target when only the explanation map is shown.

        Raises:
            EvaluationError: a target without a probability.
        """
        for one in self.maps:
            if one.probability is None:
                raise EvaluationError(
                    f"'{one.label}' ({one.target.kind}) has no probability; deletion and insertion "
                    "take any score"
                )

        def shown() -> Iterator[np.ndarray]:
            for one in self.maps:
                yield explanation_map(self.sample.pixels, self.heatmap(one))

        found = self.probabilities(shown(), [one.target for one in self.maps])
        return {id(one): float(value) for one, value in zip(self.maps, found, strict=True)}

    def rivals(self, explanation: Explanation) -> dict[str, Explanation]:
        """The other methods' maps of the same target, at the same layer where they have it."""
        rivals: dict[str, Explanation] = {}
        for one in self.maps:
            other = one.target is explanation.target and one.method != explanation.method
            if other and (one.method not in rivals or one.layer == explanation.layer):
                rivals[one.method] = one
        return rivals

    def occlusion(self, explanation: Explanation) -> Explanation:
        """The occlusion map of the same target."""
        return next(
            one
            for one in self.found
            if one.target is explanation.target and one.method == "occlusion"
        )

    def explain(
        self, task: Any, targets: Sequence[Target] | None = None
    ) -> tuple[Explanation, ...]:
        """The item explained again, by the model as it is now: the same maps in the same order."""
        sample = replace(self.sample, text=self.text)
        with autocast(self.adapter.model, self.study.amp):
            (found,) = explain_samples(
                self.adapter, [sample], task, self.study.plan, self.study.layers, targets=targets
            )
        return with_baselines(found.explanations, self.study, self.item.id)

    def of_label(self, explanation: Explanation, label: int) -> Map:
        """The map of another class by the same method at the same layer."""
        key = (id(explanation.target), label)
        if key not in self.others:
            self.others[key] = self.explain(replace(self.study.task, labels=(label,)))
        place = (explanation.method, explanation.layer)
        return signed(next(o for o in self.others[key] if (o.method, o.layer) == place))

    def class_index(self, target: Target) -> int:
        """The number of the class that a target is about.

        Raises:
            EvaluationError: the model has no numbered classes.
        """
        known: Any = self.adapter
        if (
            self.classes is None
            or not hasattr(known, "index")
            or not isinstance(self.study.task, Classes)
        ):
            raise EvaluationError(
                f"{known.name} has no numbered classes to draw another label from"
            )
        return int(known.index(target.label, self.classes))

    @cached_property
    def randomized(self) -> list[np.ndarray]:
        """For each map its similarity to those of the model as its layers are drawn anew."""
        originals = [signed(one) for one in self.maps]

        def similar() -> list[float]:
            made = self.explain(self.task, self.targets)
            return [
                rank_similarity(first, signed(again))
                for first, again in zip(originals, made, strict=True)
            ]

        rows = cascading_randomization(self.adapter.model, similar, seed=seed_of(self.item.id))
        table = np.asarray([row for layer, row in rows.items() if layer is not None])
        return list(table.T)


def model_label(adapter: Adapter, label: str | int, classes: int | None) -> str:
    """What the model calls a label of the data; the label itself where it cannot tell."""
    known: Any = adapter
    if classes is not None and hasattr(adapter, "index") and hasattr(adapter, "label"):
        with suppress(LabelError):
            return str(known.label(known.index(label, classes)))
    return str(label)


@cache
def _words() -> WordTable:
    return WordTable.load()
