"""One item with all that the metrics need: maps, ground truth, and the model for re-scoring."""

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

BASELINE_CELLS = 14
"""The number of rows, and of columns, of a baseline's map."""


def seed_of(item_id: str) -> int:
    """A seed derived from an item's id; the same on any machine."""
    return int(hashlib.sha256(item_id.encode(errors="backslashreplace")).hexdigest()[:8], 16)


def with_baselines(
    explanations: Sequence[Explanation], study: Study, item_id: str
) -> tuple[Explanation, ...]:
    """An item's maps and baselines, target by target; for each target in `study.series`' order."""
    groups: list[list[Explanation]] = []
    for explanation in explanations:
        if groups and groups[-1][0].target is explanation.target:
            groups[-1].append(explanation)
        else:
            groups.append([explanation])
    maps: list[Explanation] = []
    for number, group in enumerate(groups):
        for name in study.series:
            maps += [explanation for explanation in group if explanation.method == name]
            if name not in METHODS and name in study.baselines:
                maps.append(_baseline(name, group[0], seed_of(f"{item_id}\n{number}")))
    return tuple(maps)


def _baseline(name: str, template: Explanation, seed: int) -> Explanation:
    """A baseline's map for the target and the placement of `template`.

    For a clip, it has four steps in time for each window; random maps differ from step to step.
    """
    steps = 4 * len(template.placement.spans)  # 0 for a picture
    shape = (BASELINE_CELLS, BASELINE_CELLS)
    if name == "random":
        values = random_map(seed, (max(steps, 1) * shape[0], shape[1])).reshape(-1, *shape)
    else:
        plane = centre_map(shape) if name == "centre" else np.ones(shape)
        values = np.repeat(plane[None], max(steps, 1), 0)
    cam = torch.from_numpy(values if steps else values[0]).float()
    placement = replace(template.placement, extent=())
    return replace(template, cam=cam, method=name, layer="none", placement=placement)


def signed_map(explanation: Explanation) -> Map:
    """The raw map without colour channels (`Explanation.saliency`), signed, on the original.

    Pixels and frames outside the model's input are NaN.

    Raises:
        InputError: the map has NaN or infinite values.
    """
    frames = range(explanation.frame_count) if explanation.is_clip else None
    placed: Map = onto_original(explanation.saliency, explanation.placement, frames).numpy()
    return placed


@dataclass(eq=False)
class EvaluatedItem:
    """One item after the forward pass, with everything that the metrics need, computed once.

    `explanations` are the engine's own maps; `maps` are the evaluated ones, baselines included.
    """

    item: Item
    sample: Sample
    study: Study
    adapter: Adapter
    rescorer: Rescorer
    task: Any
    text: str
    class_count: int | None
    explanations: tuple[Explanation, ...]
    maps: tuple[Explanation, ...]
    words: tuple[str, ...] = ()
    heatmaps: dict[int, Map] = field(default_factory=dict)
    masks: dict[str, Bool[np.ndarray, "height width"]] = field(default_factory=dict)
    label_maps: dict[tuple[int, int], tuple[Explanation, ...]] = field(default_factory=dict)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the original."""
        return self.sample.pixels.shape[-3], self.sample.pixels.shape[-2]

    def probabilities(
        self, pictures: Iterable[np.ndarray], targets: Iterable[Target]
    ) -> Float[np.ndarray, " n"]:
        """The probability of each target on its picture; the score if there is no probability.

        Raises:
            MmcamError: the model fails on a picture.
        """
        return self.rescorer.probabilities(pictures, targets, self.task, self.text)

    @property
    def targets(self) -> list[Target]:
        """The explained targets without duplicates, in order."""
        return list(
            {id(explanation.target): explanation.target for explanation in self.maps}.values()
        )

    def heatmap(self, explanation: Explanation) -> Map:
        """The map on the original, in [0, 1].

        Raises:
            InputError: the map has NaN or infinite values.
        """
        if id(explanation) not in self.heatmaps:
            self.heatmaps[id(explanation)] = explanation.heatmap()
        return self.heatmaps[id(explanation)]

    @cached_property
    def regions(self) -> Mapping[str, Region]:
        """The item's regions by the names that the model has for their labels.

        The regions of several labels that are one class of the model are joined.
        """
        regions: dict[str, Region] = {}
        for label, region in self.item.regions.items():
            name = self.model_name(label)
            regions[name] = regions.get(name, Region()).joined(region)
        return regions

    def model_name(self, label: str | int) -> str:
        """The name that the model has for a dataset label."""
        if label == WHOLE:
            return WHOLE
        return model_label(self.adapter, label, self.class_count)

    def model_index(self, label: str | int) -> int | None:
        """The number of the model's class for a dataset label; None if there is no such class."""
        return model_index(self.adapter, label, self.class_count)

    def mask(self, key: str) -> Bool[np.ndarray, "height width"]:
        """The mask of a region.

        Raises:
            MmcamError: as `Region.mask`.
        """
        if key not in self.masks:
            self.masks[key] = self.regions[key].mask(self.size)
        return self.masks[key]

    @cached_property
    def categories(self) -> dict[int, str]:
        """The COCO categories of the caption's words, by position."""
        return {word.position: word.category for word in _word_table().find(self.words)}

    def region_key(self, target: Target) -> str | None:
        """The key of the target's region; None for a word or sentence without one.

        Raises:
            EvaluationError: the item has no regions, or none for a class, action or answer.
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
        """The boxes of a region.

        Raises:
            MmcamError: as `Region.boxes_on`.
        """
        return self.regions[key].boxes_on(self.size)

    @cached_property
    def masked_probabilities(self) -> dict[int, float]:
        """For each map, by its `id()`: its target's probability on the picture times the heatmap.

        Raises:
            EvaluationError: a target without a probability, or as `faithfulness.explanation_map`.
            MmcamError: the model fails on a picture.
        """
        for explanation in self.maps:
            if explanation.probability is None:
                raise EvaluationError(
                    f"'{explanation.label}' ({explanation.target.kind}) has no probability; use "
                    "deletion or insertion, which take any score"
                )

        def explanation_maps() -> Iterator[np.ndarray]:
            for explanation in self.maps:
                yield explanation_map(self.sample.pixels, self.heatmap(explanation))

        targets = [explanation.target for explanation in self.maps]
        values = self.probabilities(explanation_maps(), targets)
        return {
            id(explanation): float(value)
            for explanation, value in zip(self.maps, values, strict=True)
        }

    def other_methods(self, explanation: Explanation) -> dict[str, Explanation]:
        """The other methods' maps of the same target, preferably at the same layer."""
        others: dict[str, Explanation] = {}
        for candidate in self.maps:
            if candidate.target is not explanation.target or candidate.method == explanation.method:
                continue
            if candidate.method not in others or candidate.layer == explanation.layer:
                others[candidate.method] = candidate
        return others

    def occlusion(self, explanation: Explanation) -> Explanation:
        """The occlusion map of the same target."""
        return next(
            candidate
            for candidate in self.explanations
            if candidate.target is explanation.target and candidate.method == "occlusion"
        )

    def explain(
        self, task: Any, targets: Sequence[Target] | None = None
    ) -> tuple[Explanation, ...]:
        """The maps for `task`, in the order of `maps`, with the model's current weights.

        Args:
            task: the item's task, or the task with another label.
            targets: as in `explain_samples`.

        Raises:
            MmcamError: as `explain_samples`.
        """
        sample = replace(self.sample, text=self.text)
        with autocast(self.adapter.model, self.study.amp):
            (result,) = explain_samples(
                self.adapter, [sample], task, self.study.plan, self.study.layers, targets=targets
            )
        return with_baselines(result.explanations, self.study, self.item.id)

    def map_of_label(self, explanation: Explanation, label: int) -> Map:
        """The signed map of the class `label` by the same method at the same layer.

        Raises:
            MmcamError: as `explain_samples`.
        """
        key = (id(explanation.target), label)
        if key not in self.label_maps:
            self.label_maps[key] = self.explain(replace(self.study.task, labels=(label,)))
        method, layer = explanation.method, explanation.layer
        candidates = self.label_maps[key]
        return signed_map(next(c for c in candidates if (c.method, c.layer) == (method, layer)))

    def class_index(self, target: Target) -> int:
        """The index of a target's class.

        Raises:
            EvaluationError: the model or the task has no class indices.
        """
        adapter: Any = self.adapter
        if (
            self.class_count is None
            or not hasattr(adapter, "index")
            or not isinstance(self.study.task, Classes)
        ):
            raise EvaluationError(
                f"{adapter.name} has no numbered classes to draw another label from"
            )
        if target.index is not None:
            return target.index
        return int(adapter.index(target.label, self.class_count))

    @cached_property
    def randomized_similarities(self) -> list[np.ndarray]:
        """For each map, its rank similarity to the same map after each layer is randomized.

        Raises:
            MmcamError: as `explain_samples` and `rank_similarity`.
        """
        originals = [signed_map(explanation) for explanation in self.maps]

        def similarities() -> list[float]:
            explanations = self.explain(self.task, self.targets)
            return [
                rank_similarity(original, signed_map(explanation))
                for original, explanation in zip(originals, explanations, strict=True)
            ]

        results = cascading_randomization(
            self.adapter.model, similarities, seed=seed_of(self.item.id)
        )
        table = np.asarray([row for layer, row in results.items() if layer is not None])
        return list(table.T)


def model_label(adapter: Adapter, label: str | int, class_count: int | None) -> str:
    """The name that the model has for a dataset label; the label if there is no such class."""
    classifier: Any = adapter
    index = model_index(adapter, label, class_count) if hasattr(adapter, "label") else None
    return str(label) if index is None else str(classifier.label(index))


def model_index(adapter: Adapter, label: str | int, class_count: int | None) -> int | None:
    """The number of the model's class for a dataset label; None if there is no such class."""
    classifier: Any = adapter
    if class_count is not None and hasattr(adapter, "index"):
        with suppress(LabelError):
            return int(classifier.index(label, class_count))
    return None


@cache
def _word_table() -> WordTable:
    return WordTable.load()
