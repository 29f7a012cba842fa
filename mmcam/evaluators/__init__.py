"""Protocols that measure how good an explanation is: one file each, and the table of them.

A map is `[h w]`, or `[t h w]` for a clip, on the pixels of the original, with NaN where the model
did not see: what `Explanation.heatmap` gives, or any raw map placed there, with its signs. Every
function takes one sample and gives its number; `mmcam.evaluation` makes a data set's from them.
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
    """One row of the table of evaluators: how it is computed, and where it comes from.

    `needs` says what `function` is given:

    - ``"mask"``: the map and a region, `[h w]` or as the map.
    - ``"boxes"``: the map, or labels with maps, and boxes (left, top, right, bottom).
    - ``"human map"``: the map and what people marked.
    - ``"map"``: the map and another of the same sample.
    - ``"probabilities"``: the model's on the whole sample and on the explanation map alone.
    - ``"rescore"``: the sample's pixels, the map, and a function that scores changed pixels.
    - ``"explain"``: a function that explains the sample again.

    `gives` says what it returns: a ``"number"``, of which a dataset has a mean; ``"truth"``, of
    which it has a share; a ``"curve"`` (`faithfulness.Curve`), of which it has a mean of its points
    or areas; or, for each layer, whatever was made (``"layers"``).
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
        summary="is the map's maximum on the object, or at most 15 pixels from it",
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
        summary="is the maximum of a word's map on a segment of the word's COCO category",
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
        summary="rank correlation with where people looked, on 14 x 14 cells",
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
        summary="no predicted label is right with a box that overlaps the object by half",
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
        summary="confidence lost when only the explanation is shown, in percent",
        source="Chattopadhyay et al. 2018, section 4.1",
        needs="probabilities",
        higher_is_better=False,
    ),
    "increase": Evaluator(
        function=faithfulness.increase,
        summary="confidence rises when only the explanation is shown",
        source="Chattopadhyay et al. 2018, section 4.1",
        needs="probabilities",
        gives="truth",
    ),
    "win": Evaluator(
        function=faithfulness.win,
        summary="less confidence is lost than with another method's explanation",
        source="Chattopadhyay et al. 2018, section 4.1",
        needs="probabilities",
        gives="truth",
    ),
    "quantile-curve": Evaluator(
        function=faithfulness.quantile_curve,
        summary="confidence left, in percent, above each quantile of the map",
        source="Chattopadhyay et al. 2018, section 7.2",
        needs="rescore",
        gives="curve",
    ),
    "deletion": Evaluator(
        function=faithfulness.deletion,
        summary="score while the most important pixels are taken away",
        source="Petsiuk et al. 2018, section 4.2",
        needs="rescore",
        gives="curve",
        higher_is_better=False,
    ),
    "insertion": Evaluator(
        function=faithfulness.insertion,
        summary="score while the most important pixels are put back",
        source="Petsiuk et al. 2018, section 4.2",
        needs="rescore",
        gives="curve",
    ),
    "model-randomization": Evaluator(
        function=sanity.cascading_randomization,
        summary="maps of the model with its layers drawn anew from the top down",
        source="Adebayo et al. 2018, section 3",
        needs="explain",
        gives="layers",
        higher_is_better=False,
    ),
    "label-randomization": Evaluator(
        function=sanity.random_label_similarity,
        summary="how alike the maps of a label and of another one are",
        source="Sixt et al. 2020",
        needs="explain",
        higher_is_better=False,
    ),
}
"""Every evaluator by name."""
