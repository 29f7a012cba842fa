"""How each evaluator is fed from a subject: one small function a metric, and the table of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from mmcam.errors import EvaluationError
from mmcam.evaluation.cases import Subject, seed_of, signed
from mmcam.evaluators import faithfulness, localization, pointing, sanity
from mmcam.evaluators.densecap import in_out_ratio
from mmcam.evaluators.human_attention import human_correlation
from mmcam.evaluators.maps import Map
from mmcam.evaluators.occlusion import occlusion_correlation
from mmcam.results.explanation import Explanation

Values = Mapping[str, Any]
"""Numbers by column; a metric that says nothing of a target leaves its columns out."""

Measure = Callable[[Subject, Explanation], Values]


def _over_region(name: str, function: Callable[..., Any]) -> Measure:
    """A metric of the map and the region that its target is about."""

    def measure(subject: Subject, one: Explanation) -> Values:
        key = subject.key(one.target)
        if key is None:
            return {}
        return {name: float(function(subject.heatmap(one), subject.mask(key)))}

    return measure


def _word_pointing(subject: Subject, one: Explanation) -> Values:
    key = subject.key(one.target)
    if one.target.kind != "word" or key is None:
        return {}
    regions = {key: subject.mask(key)}
    return {"word-pointing": float(pointing.word_pointing(subject.heatmap(one), regions, key))}


def _pointing_or_rejecting(subject: Subject, one: Explanation) -> Values:
    if not subject.regions:
        raise EvaluationError(f"'{subject.item.id}' has no regions to compare with")
    assert subject.study.threshold is not None
    present = one.target.label in subject.regions
    right = pointing.pointing_or_rejecting(
        subject.heatmap(one),
        subject.mask(one.target.label) if present else None,
        subject.study.threshold,
        maximum=one.maximum,
    )
    return {"pointing-or-rejecting": float(right)}


def _human_attention(subject: Subject, one: Explanation) -> Values:
    people = subject.item.people()
    return {"human-attention": human_correlation(subject.heatmap(one), people)}


def _occlusion_correlation(subject: Subject, one: Explanation) -> Values:
    other = subject.occlusion(one)
    reference, heatmap = signed(other), signed(one)
    seen = ~np.isnan(reference)
    axes = range(seen.ndim)
    lines = [np.flatnonzero(seen.any(tuple(a for a in axes if a != axis))) for axis in axes]
    inside = tuple(slice(line[0], line[-1] + 1) for line in lines)
    cells = tuple(other.saliency.shape)
    value = occlusion_correlation(heatmap[inside], reference[inside], cells)
    return {"occlusion-correlation": value}


def _localization_error(subject: Subject, one: Explanation) -> Values:
    """The item's: it stands in the rows of its first prediction alone."""
    if one.target is not subject.maps[0].target:
        return {}
    if not subject.item.labels:
        raise EvaluationError(f"'{subject.item.id}' has no label to compare predictions with")
    true = subject.model_name(subject.item.labels[0])
    boxes = (
        subject.boxes(next((k for k in (true, "") if k in subject.regions), true))
        if (subject.regions)
        else ()
    )
    predictions: list[tuple[object, Map]] = [
        (other.target.label, subject.heatmap(other))
        for other in subject.maps
        if (other.method, other.layer) == (one.method, one.layer)
    ]
    wrong = localization.localization_error(predictions, true, boxes)
    return {"localization-error": float(wrong)}


def _loc(subject: Subject, one: Explanation) -> Values:
    key = subject.key(one.target)
    if key is None:
        return {}
    boxes = subject.boxes(key)
    return {
        f"loc@{threshold:g}": localization.loc(subject.heatmap(one), boxes, threshold)
        for threshold in localization.LOC_THRESHOLDS
    }


def _average_drop(subject: Subject, one: Explanation) -> Values:
    return {"average-drop": faithfulness.drop(_full(subject, one), subject.explained[id(one)])}


def _increase(subject: Subject, one: Explanation) -> Values:
    full, explained = _full(subject, one), subject.explained[id(one)]
    return {"increase": float(faithfulness.increase(full, explained))}


def _win(subject: Subject, one: Explanation) -> Values:
    full, explained = _full(subject, one), subject.explained
    return {
        f"win over {name}": float(faithfulness.win(full, explained[id(one)], explained[id(rival)]))
        for name, rival in subject.rivals(one).items()
    }


def _full(subject: Subject, one: Explanation) -> float:
    """The probability on the whole sample; `explained` has checked that there is one."""
    assert subject.explained
    assert one.probability is not None
    return min(one.probability, 1.0)


def _curve(name: str, function: Callable[..., faithfulness.Curve], steps: bool) -> Measure:
    """A curve over changed samples: its area, and its points."""

    def measure(subject: Subject, one: Explanation) -> Values:
        def score(pictures: np.ndarray) -> np.ndarray:
            return subject.probabilities(list(pictures), [one.target] * len(pictures))

        options = {"steps": subject.study.steps} if steps else {}
        curve = function(
            subject.sample.pixels,
            subject.heatmap(one),
            score,
            chunk=subject.rescorer.batch,
            **options,
        )
        return {name: curve.area, f"{name}.curve": curve.y.tolist()}

    return measure


def _model_randomization(subject: Subject, one: Explanation) -> Values:
    number = next(n for n, other in enumerate(subject.maps) if other is one)
    curve = subject.randomized[number]
    name = "model-randomization"
    return {name: float(curve.mean()), f"{name}.curve": curve.tolist()}


def _label_randomization(subject: Subject, one: Explanation) -> Values:
    label = subject.class_index(one.target)
    assert subject.classes is not None
    value = sanity.random_label_similarity(
        lambda number: signed(one) if number == label else subject.of_label(one, number),
        label,
        subject.classes,
        seed=seed_of(subject.item.id),
    )
    return {"label-randomization": value}


MEASURES: dict[str, Measure] = {
    "pointing": _over_region("pointing", pointing.pointing_game),
    "pointing-or-rejecting": _pointing_or_rejecting,
    "word-pointing": _word_pointing,
    "energy-inside": _over_region("energy-inside", pointing.energy_inside),
    "densecap-ratio": _over_region("densecap-ratio", in_out_ratio),
    "human-attention": _human_attention,
    "occlusion-correlation": _occlusion_correlation,
    "localization-error": _localization_error,
    "loc": _loc,
    "segmentation-iou": _over_region("segmentation-iou", localization.segmentation_iou),
    "average-drop": _average_drop,
    "increase": _increase,
    "win": _win,
    "quantile-curve": _curve("quantile-curve", faithfulness.quantile_curve, steps=False),
    "deletion": _curve("deletion", faithfulness.deletion, steps=True),
    "insertion": _curve("insertion", faithfulness.insertion, steps=True),
    "model-randomization": _model_randomization,
    "label-randomization": _label_randomization,
}
"""How every row of `EVALUATORS` is computed for one map of an item."""
