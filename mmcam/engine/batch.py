"""Run a model once on a batch of inputs, and compute all maps of a plan.

One forward pass serves all targets, all layers and all gradient methods; guided maps use the same
graph with another backward rule. Only re-scoring methods run the model again.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

from torch import Tensor

from mmcam.capture.forward import run_model
from mmcam.capture.recording import capture
from mmcam.engine.maps import MethodMap, RecordedBatch, with_contrasts
from mmcam.errors import MethodError, ScoreError
from mmcam.methods.plan import Plan
from mmcam.types import Adapter, Inputs, Target

Targets = Sequence[Sequence[Target]]
"""The targets of each row of a model's input."""


class BatchMaps(NamedTuple):
    """The maps of a batch.

    `slots` holds, for each position in the rows' lists of targets, the maps of all rows. `scores`
    `[slot, row]` are those of the targets themselves, also of counterfactual maps; the rows of the
    contrasts come last. `attributions` are those of the words of each row's question.
    """

    output: Any
    targets: Targets
    scores: Tensor
    slots: Sequence[Sequence[MethodMap]]
    attributions: Sequence[Sequence[tuple[tuple[str, float], ...]]] | None


def explain_batch(
    adapter: Adapter,
    inputs: Inputs,
    layers: Sequence[str],
    plan: Plan,
    targets_of: Callable[[Any], Targets],
    *,
    counterfactual: bool = False,
    differentiable: bool = False,
) -> BatchMaps:
    """The maps of all rows of a model's input.

    Args:
        adapter: the model; the layouts of the layers are proven.
        inputs: the model's input.
        layers: names as `capture.layers.resolve` returns them.
        plan: the maps to compute.
        targets_of: the targets of each row, given the model's output.
        counterfactual: explain the evidence against each target (Grad-CAM, IJCV 2020, eq. 12).
        differentiable: the maps stay in the graph, up to the parameters that require gradients.

    Raises:
        MmcamError: the model fails, or a layer, method or target does not fit it.
    """
    at_pixels = plan.needs("pixels")
    if at_pixels or any(layer != adapter.encoder for layer in layers):
        inputs = replace(inputs, encoder_output=None)  # gradients must pass through the encoder
    inputs = replace(inputs, output_attentions=plan.needs("attention"))
    word_embedding = adapter.word_embedding if "words" in inputs.rest else None
    with capture(
        adapter.model,
        [*layers, word_embedding] if word_embedding else layers,
        pixels=inputs.pixels if at_pixels else None,
        to_grid={
            layer: partial(adapter.grid, layer, inputs=inputs)
            for layer in layers
            if plan.pooled and not differentiable
        },
        differentiable=differentiable,
    ) as (recording, check):
        # A model may modify its input in place; pixel gradients and re-scoring need it unchanged.
        needs_copy = at_pixels or plan.needs("rescore")
        output = run_model(adapter, inputs.copied() if needs_copy else inputs)
        check()
        targets = targets_of(output)
        signed_targets = [[t.negated() if counterfactual else t for t in row] for row in targets]
        scores = recording.scores(output, signed_targets)
        batch = RecordedBatch(
            adapter,
            inputs,
            recording,
            list(layers),
            plan,
            signed_targets,
            counterfactual,
            "loop" if at_pixels else adapter.gradient_strategy,
            word_embedding,
        )
        slots = list(batch.maps(scores, output))
        attributions = batch.word_attributions() if word_embedding else None
        sign = -1 if counterfactual else 1
        scores = sign * with_contrasts(scores.detach(), inputs.contrasts, 1)
    _check_finite(adapter, scores, slots)
    return BatchMaps(output, targets, scores, slots, attributions)


def _check_finite(adapter: Adapter, scores: Tensor, slots: Sequence[Sequence[MethodMap]]) -> None:
    """Check that all scores and maps are finite.

    Raises:
        ScoreError: a score is NaN or infinite.
        MethodError: a map has NaN or infinite values.
    """
    if not scores.isfinite().all():
        raise ScoreError(
            f"{adapter.name} gives a score that is NaN or infinite; check its weights and the "
            "range of its input"
        )
    for method, layer, cams, _ in itertools.chain.from_iterable(slots):
        if not cams.isfinite().all():
            raise MethodError(
                f"method '{method}' gives NaN or infinite values at '{layer}' of {adapter.name}; "
                "check the weights and the range of the input"
            )
