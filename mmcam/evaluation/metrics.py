"""Functions that call the evaluators for an evaluated item: one per metric, and a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from mmcam.datasets.items import WHOLE
from mmcam.errors import EvaluationError
from mmcam.evaluation.evaluated_item import EvaluatedItem, seed_of, signed_map
from mmcam.evaluators import faithfulness, localization, pointing, sanity
from mmcam.evaluators.densecap import in_out_ratio
from mmcam.evaluators.human_attention import human_correlation
from mmcam.evaluators.maps import Map
from mmcam.evaluators.occlusion import occlusion_correlation
from mmcam.results.explanation import Explanation
from mmcam.types import Target

Values = Mapping[str, Any]
"""Values by column; a metric that does not apply to a target returns no columns."""

MetricFunction = Callable[[EvaluatedItem, Explanation], Values]


def _region_metric(name: str, function: Callable[..., Any]) -> MetricFunction:
    """A metric computed from the map and the region of its target."""

    def compute(evaluated: EvaluatedItem, explanation: Explanation) -> Values:
        key = evaluated.region_key(explanation.target)
        if key is None:
            return {}
        return {name: float(function(evaluated.heatmap(explanation), evaluated.mask(key)))}

    return compute


def _word_pointing(evaluated: EvaluatedItem, explanation: Explanation) -> Values:
    key = evaluated.region_key(explanation.target)
    if explanation.target.kind != "word" or key is None:
        return {}
    heatmap, regions = evaluated.heatmap(explanation), {key: evaluated.mask(key)}
    return {"word-pointing": float(pointing.word_pointing(heatmap, regions, key))}


def _pointing_or_rejecting(evaluated: EvaluatedItem, explanation: Explanation) -> Values:
    assert evaluated.study.threshold is not None
    key = evaluated.region_key(explanation.target) if _is_present(evaluated, explanation) else None
    hit = pointing.pointing_or_rejecting(
        evaluated.heatmap(explanation),
        None if key is None else evaluated.mask(key),
        evaluated.study.threshold,
        maximum=explanation.maximum,
    )
    return {"pointing-or-rejecting": float(hit)}


def _is_present(evaluated: EvaluatedItem, explanation: Explanation) -> bool:
    """Whether the explained class is in the item's ground truth: a label, or a region's label.

    Raises:
        EvaluationError: the item has no regions, or no labels and a region that fits any target.
    """
    item, label = evaluated.item, explanation.target.label
    if not evaluated.regions:
        raise EvaluationError(
            f"'{item.id}' has no regions to compare with; give one for each label"
        )
    if label in evaluated.regions or label in map(evaluated.model_name, item.labels):
        return True
    if WHOLE in evaluated.regions and not item.labels:
        raise EvaluationError(
            f"'{item.id}' has a region without a label and no labels, so whether '{label}' is "
            "present is unknown; give the item's labels, or a label for each region"
        )
    return False


def _human_attention(evaluated: EvaluatedItem, explanation: Explanation) -> Values:
    human_maps = evaluated.item.read_human_maps()
    return {"human-attention": human_correlation(evaluated.heatmap(explanation), human_maps)}


def _occlusion_correlation(evaluated: EvaluatedItem, explanation: Explanation) -> Values:
    occlusion = evaluated.occlusion(explanation)
    reference, heatmap = signed_map(occlusion), signed_map(explanation)
    visible = ~np.isnan(reference)
    axes = range(visible.ndim)
    ranges = [np.flatnonzero(visible.any(tuple(a for a in axes if a != axis))) for axis in axes]
    bounds = tuple(slice(indices[0], indices[-1] + 1) for indices in ranges)
    cells = tuple(occlusion.saliency.shape)
    value = occlusion_correlation(heatmap[bounds], reference[bounds], cells)
    return {"occlusion-correlation": value}


def _localization_error(evaluated: EvaluatedItem, explanation: Explanation) -> Values:
    """The error of the item, reported only in the rows of its first prediction."""
    if explanation.target is not evaluated.maps[0].target:
        return {}
    if not evaluated.item.labels:
        raise EvaluationError(f"'{evaluated.item.id}' has no label to compare predictions with")
    label = evaluated.model_name(evaluated.item.labels[0])
    index = evaluated.model_index(evaluated.item.labels[0])

    def is_right(target: Target) -> bool:
        if index is None or target.index is None:
            return target.label == label
        return target.index == index  # two classes may have the same name

    boxes = (
        evaluated.boxes(next((key for key in (label, WHOLE) if key in evaluated.regions), label))
        if evaluated.regions
        else ()
    )
    predictions: list[tuple[object, Map]] = [
        (is_right(prediction.target), evaluated.heatmap(prediction))
        for prediction in evaluated.maps
        if (prediction.method, prediction.layer) == (explanation.method, explanation.layer)
    ]
    error = localization.localization_error(predictions, True, boxes)
    return {"localization-error": float(error)}


def _loc(evaluated: EvaluatedItem, explanation: Explanation) -> Values:
    key = evaluated.region_key(explanation.target)
    if key is None:
        return {}
    boxes = evaluated.boxes(key)
    return {
        f"loc@{threshold:g}": localization.loc(evaluated.heatmap(explanation), boxes, threshold)
        for threshold in localization.LOC_THRESHOLDS
    }


def _average_drop(evaluated: EvaluatedItem, explanation: Explanation) -> Values:
    full, masked = _full_probability(evaluated, explanation), evaluated.masked_probabilities
    return {"average-drop": faithfulness.drop(full, masked[id(explanation)])}


def _increase(evaluated: EvaluatedItem, explanation: Explanation) -> Values:
    full, masked = _full_probability(evaluated, explanation), evaluated.masked_probabilities
    return {"increase": float(faithfulness.increase(full, masked[id(explanation)]))}


def _win(evaluated: EvaluatedItem, explanation: Explanation) -> Values:
    full, masked = _full_probability(evaluated, explanation), evaluated.masked_probabilities
    return {
        f"win over {name}": float(
            faithfulness.win(full, masked[id(explanation)], masked[id(rival)])
        )
        for name, rival in evaluated.other_methods(explanation).items()
    }


def _full_probability(evaluated: EvaluatedItem, explanation: Explanation) -> float:
    """The probability on the whole sample; `masked_probabilities` raises if there is none."""
    assert evaluated.masked_probabilities
    assert explanation.probability is not None
    return min(explanation.probability, 1.0)


def _curve(
    name: str, function: Callable[..., faithfulness.Curve], has_steps: bool
) -> MetricFunction:
    """A curve of scores of perturbed samples: its area, and its points."""

    def compute(evaluated: EvaluatedItem, explanation: Explanation) -> Values:
        def score(pictures: np.ndarray) -> np.ndarray:
            return evaluated.probabilities(list(pictures), [explanation.target] * len(pictures))

        options = {"steps": evaluated.study.steps} if has_steps else {}
        curve = function(
            evaluated.sample.pixels,
            evaluated.heatmap(explanation),
            score,
            chunk=evaluated.rescorer.batch,
            **options,
        )
        return {name: curve.area, f"{name}.curve": curve.y.tolist()}

    return compute


def _model_randomization(evaluated: EvaluatedItem, explanation: Explanation) -> Values:
    index = next(i for i, candidate in enumerate(evaluated.maps) if candidate is explanation)
    curve = evaluated.randomized_similarities[index]
    name = "model-randomization"
    return {name: float(curve.mean()), f"{name}.curve": curve.tolist()}


def _label_randomization(evaluated: EvaluatedItem, explanation: Explanation) -> Values:
    label = evaluated.class_index(explanation.target)
    assert evaluated.class_count is not None

    def explain(index: int) -> Map:
        if index == label:
            return signed_map(explanation)
        return evaluated.map_of_label(explanation, index)

    value = sanity.random_label_similarity(
        explain, label, evaluated.class_count, seed=seed_of(evaluated.item.id)
    )
    return {"label-randomization": value}


METRIC_FUNCTIONS: dict[str, MetricFunction] = {
    "pointing": _region_metric("pointing", pointing.pointing_game),
    "pointing-or-rejecting": _pointing_or_rejecting,
    "word-pointing": _word_pointing,
    "energy-inside": _region_metric("energy-inside", pointing.energy_inside),
    "densecap-ratio": _region_metric("densecap-ratio", in_out_ratio),
    "human-attention": _human_attention,
    "occlusion-correlation": _occlusion_correlation,
    "localization-error": _localization_error,
    "loc": _loc,
    "segmentation-iou": _region_metric("segmentation-iou", localization.segmentation_iou),
    "average-drop": _average_drop,
    "increase": _increase,
    "win": _win,
    "quantile-curve": _curve("quantile-curve", faithfulness.quantile_curve, has_steps=False),
    "deletion": _curve("deletion", faithfulness.deletion, has_steps=True),
    "insertion": _curve("insertion", faithfulness.insertion, has_steps=True),
    "model-randomization": _model_randomization,
    "label-randomization": _label_randomization,
}
"""The function that computes each row of `EVALUATORS` for one map of an item."""
