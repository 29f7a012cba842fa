"""Protocols that measure the quality of an explanation: one file each, and a table of them.

A map is `[h w]`, or `[t h w]` for a clip, on the pixels of the original, with NaN outside the
model's input: the result of `Explanation.heatmap`, or a raw map with its signs on that grid. Every
function evaluates one sample; `mmcam.evaluation` computes the means over a dataset.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mmcam.evaluators import (
    densecap,
    faithfulness,
    human_attention,
    localization,
    occlusion,
    pointing,
    sanity,
)


@dataclass(frozen=True, kw_only=True)
class Evaluator:
    """One row of the table of evaluators: its function, and its source.

    `needs` names the inputs of `function`:

    - ``"mask"``: the map and a region, `[h w]` or in the map's shape.
    - ``"boxes"``: the map, or labels with maps, and boxes (left, top, right, bottom).
    - ``"human map"``: the map and the maps of human attention.
    - ``"map"``: the map and another map of the same sample.
    - ``"probabilities"``: those of the label on the whole sample and on the explanation map.
    - ``"rescore"``: the sample's pixels, the map, and a function that scores changed pixels.
    - ``"explain"``: a function that explains the sample again.

    `gives` names the result: a ``"number"``, averaged over a dataset; a ``"truth"``, counted over a
    dataset; a ``"curve"`` (`faithfulness.Curve`), whose points or areas are averaged; or one result
    of `explain` per layer (``"layers"``).
    """

    function: Callable[..., Any]
    summary: str
    source: str
    needs: str
    gives: str = "number"
    higher_is_better: bool = True


EVALUATORS: dict[str, Evaluator] = {
    "pointing": Evaluator(
        function=pointing.pointing_game,
        summary="whether the map's maximum is on the object, or at most 15 pixels from it",
        source="Zhang et al. 2016, section 4.1; Selvaraju et al. 2020, section 4.3",
        needs="mask",
        gives="truth",
    ),
    "pointing-or-rejecting": Evaluator(
        function=pointing.pointing_or_rejecting,
        summary="pointing for predictions that may be wrong: a weak map rejects its label",
        source="Selvaraju et al. 2020, section 4.3 and appendix D",
        needs="mask",
        gives="truth",
    ),
    "word-pointing": Evaluator(
        function=pointing.word_pointing,
        summary="whether the maximum of a word's map is on a segment of the word's COCO category",
        source="Selvaraju et al. 2020, section 8.1.1",
        needs="mask",
        gives="truth",
    ),
    "energy-inside": Evaluator(
        function=pointing.energy_inside,
        summary="the share of the map's positive values that lies on the object",
        source="Wang et al. 2020, section 4.3",
        needs="mask",
    ),
    "densecap-ratio": Evaluator(
        function=densecap.in_out_ratio,
        summary="mean activation inside a described region over that outside; 1 is uniform",
        source="Selvaraju et al. 2017, section 7.1",
        needs="mask",
    ),
    "human-attention": Evaluator(
        function=human_attention.human_correlation,
        summary="rank correlation with human attention, on 14 x 14 cells",
        source="Selvaraju et al. 2017, section 7.2; Das et al. 2016",
        needs="human map",
    ),
    "occlusion-correlation": Evaluator(
        function=occlusion.occlusion_correlation,
        summary="rank correlation with an occlusion map",
        source="Selvaraju et al. 2017, section 5.3",
        needs="map",
    ),
    "localization-error": Evaluator(
        function=localization.localization_error,
        summary="whether no prediction has the right label and a box with an IoU of 0.5 or more",
        source="Selvaraju et al. 2017, section 4.1; ILSVRC",
        needs="boxes",
        gives="truth",
        higher_is_better=False,
    ),
    "loc": Evaluator(
        function=localization.loc,
        summary="overlap of the thresholded map with the object's boxes",
        source="Chattopadhyay et al. 2018, eq. 26",
        needs="boxes",
    ),
    "segmentation-iou": Evaluator(
        function=localization.segmentation_iou,
        summary="overlap of the thresholded map with the object's segmentation",
        source="Selvaraju et al. 2017, section 4.1 (threshold)",
        needs="mask",
    ),
    "average-drop": Evaluator(
        function=faithfulness.drop,
        summary="drop of the confidence on the explanation map alone, in percent",
        source="Chattopadhyay et al. 2018, section 4.1",
        needs="probabilities",
        higher_is_better=False,
    ),
    "increase": Evaluator(
        function=faithfulness.increase,
        summary="whether the confidence is higher on the explanation map alone",
        source="Chattopadhyay et al. 2018, section 4.1",
        needs="probabilities",
        gives="truth",
    ),
    "win": Evaluator(
        function=faithfulness.win,
        summary="whether the drop is smaller than that of another method's explanation",
        source="Chattopadhyay et al. 2018, section 4.1",
        needs="probabilities",
        gives="truth",
    ),
    "quantile-curve": Evaluator(
        function=faithfulness.quantile_curve,
        summary="remaining confidence, in percent, on the pixels above each quantile of the map",
        source="Chattopadhyay et al. 2018, section 7.2",
        needs="rescore",
        gives="curve",
    ),
    "deletion": Evaluator(
        function=faithfulness.deletion,
        summary="score while the most important pixels are deleted",
        source="Petsiuk et al. 2018, section 4.2",
        needs="rescore",
        gives="curve",
        higher_is_better=False,
    ),
    "insertion": Evaluator(
        function=faithfulness.insertion,
        summary="score while the most important pixels are inserted",
        source="Petsiuk et al. 2018, section 4.2",
        needs="rescore",
        gives="curve",
    ),
    "model-randomization": Evaluator(
        function=sanity.cascading_randomization,
        summary="maps of the model with its layers randomized from the top down",
        source="Adebayo et al. 2018, section 3",
        needs="explain",
        gives="layers",
        higher_is_better=False,
    ),
    "label-randomization": Evaluator(
        function=sanity.random_label_similarity,
        summary="similarity of the maps of a label and of a random other label",
        source="Sixt et al. 2020",
        needs="explain",
        higher_is_better=False,
    ),
}
"""Every evaluator by name."""
