"""A batch of samples through a model, and every map asked for.

One forward serves all targets, layers and methods that take gradients; guided maps ask the same
graph again with another backward rule. Only re-scoring methods run the model further.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mmcam.batch import Batch, Made, contrasted
from mmcam.capture import ROWS, capture, resolve, untouched
from mmcam.errors import MethodError, ModelError, ScoreError
from mmcam.explanation import Explanation
from mmcam.plan import METHODS, Plan, split
from mmcam.probe import default_layer
from mmcam.types import Adapter, Inputs, Sample, Target

__all__ = ["METHODS", "Found", "Plan", "explain_samples"]


class Found(NamedTuple):
    """What came of one sample: its maps, and what was said of it, where something was."""

    explanations: list[Explanation]
    text: Mapping[str, Any] | None


def explain_samples(
    adapter: Adapter,
    samples: Sequence[Sample],
    task: Any,
    plan: Plan,
    layers: Sequence[str] | None = None,
    *,
    counterfactual: bool = False,
) -> list[Found]:
    """For each sample its explanations: targets in the adapter's order, each by method and layer.

    Args:
        adapter: the model.
        samples: one batch; their shapes after preprocessing must agree.
        task: what is asked, as the adapter understands it.
        plan: which maps to make.
        layers: patterns as `capture.resolve` takes them; the adapter's default when None.
        counterfactual: explain what speaks against each score (IJCV eq. 12).

    Raises:
        MmcamError: of any kind, with the value, the reason and the remedy.
    """
    if counterfactual:
        plan.check_counterfactual()
    # A text may have to be generated; other models do not run yet.
    speaks = adapter.encoder is not None
    with untouched(adapter.model) if speaks else torch.inference_mode(False):
        inputs = adapter.prepare(samples, task)
    if not plan.has_layers:
        layers = []
    elif layers is None:
        adapter.layers = layers = adapter.layers or [default_layer(adapter, inputs)]
    named = resolve(adapter.model, layers, adapter.name) if layers else []
    _check_tiles(adapter, plan, inputs)
    pixels = inputs.pixels if plan.needs("pixels") else None
    if pixels is not None or any(layer != adapter.encoder for layer in named):
        inputs = replace(inputs, seen=None)  # the graph begins below the encoder's output
    inputs = replace(inputs, attend=plan.needs("attention"))
    way = _way(adapter, plan, named, inputs)
    words = adapter.words if "words" in inputs.rest else None
    with capture(
        adapter.model,
        [*named, words] if words else named,
        pixels=pixels,
        copies=inputs.asked if way == "fan-out" else 1,
        folds={
            layer: partial(adapter.grid, layer, inputs=inputs) for layer in named if plan.pooled
        },
    ) as (recording, check):
        # A model may work on its input in place; the leaf must stay as it is.
        own = plan.needs("pixels") or plan.needs("rescore")
        output = _forward(adapter, inputs.copied() if own else inputs)
        check()
        rows = len(inputs.placements)
        targets = _targets(adapter, recording.block(output, 0, rows), task, rows)
        asked = [[t.negated() if counterfactual else t for t in row] for row in targets]
        scores = recording.scores(output, asked)
        batch = Batch(adapter, inputs, recording, named, plan, asked, counterfactual, way, words)
        slots = list(batch.maps(scores, output))
        read = batch.read() if words else None
        output = recording.block(output, 0, rows)
        scores = contrasted(scores.detach(), inputs.contrasts, 1) * (-1 if counterfactual else 1)
    _check_finite(adapter, scores, slots)
    probabilities = _probabilities(output, targets)
    with torch.no_grad():
        texts = adapter.text(output, inputs)
    targets = [*targets, *([_contrast(targets[a], targets[b])] for a, b in inputs.contrasts)]
    made: list[list[Explanation]] = [[] for _ in samples]
    for row, asked_of_one in enumerate(targets):
        like = row if row < rows else inputs.contrasts[row - rows][0]
        made[inputs.owners[like] if inputs.owners else like] += [
            Explanation(
                target=target,
                cam=cams[row],
                score=float(scores[slot, row]),
                probability=probabilities[row][slot] if row < rows else None,
                method=method,
                layer=layer,
                placement=inputs.placements[like],
                counterfactual=counterfactual,
                words=read[slot][row] if read else (),
            )
            for slot, target in enumerate(asked_of_one)
            for method, layer, cams in slots[slot]
        ]
    return [Found(*pair) for pair in zip(made, texts, strict=True)]


def _contrast(one: Sequence[Target], other: Sequence[Target]) -> Target:
    """The target of two rows' first ones: the score of the first minus that of the second."""
    return replace(
        one[0],
        label=f"{one[0].label} rather than {other[0].label}",
        kind="contrast",
        log_prob=None,
        attention=None,
    )


def _check_tiles(adapter: Adapter, plan: Plan, inputs: Inputs) -> None:
    """That no map is asked for in the pixels of a picture that the model sees in tiles.

    Raises:
        MethodError: one is.
    """
    tiled = adapter.window is None and inputs.pixels.ndim == 5
    for name in plan.names if tiled else ():
        if any(METHODS[part].needs in ("pixels", "rescore") for part in split(name) if part):
            raise MethodError(
                f"method '{name}' works on the pixels of the model's input, and {adapter.name} "
                "sees a picture as several tiles, which overlap on it; choose a method that takes "
                "gradients at a layer (mmcam list methods)"
            )


def _way(adapter: Adapter, plan: Plan, layers: Sequence[str], inputs: Inputs) -> str:
    """How gradients are taken: the adapter's way, where it is the fastest and memory allows it."""
    if adapter.way == "batched" and plan.needs("pixels"):
        return "loop"
    if adapter.way != "fan-out":
        return adapter.way
    at_encoder = not plan.needs("pixels") and list(layers) == [adapter.encoder]
    # Moments are those of all classes, of which there are more than targets.
    many = inputs.asked > 1 and not plan.needs("moments")
    return (
        "fan-out" if at_encoder and many and inputs.asked * len(inputs.pixels) <= ROWS else "loop"
    )


def _check_finite(adapter: Adapter, scores: Tensor, slots: Sequence[Sequence[Made]]) -> None:
    """That all scores and maps are numbers.

    Raises:
        ScoreError: a score is not.
        MethodError: a map is not.
    """
    if not scores.isfinite().all():
        raise ScoreError(
            f"{adapter.name} gives a score that is NaN or infinite; check its weights and the "
            "range of its input"
        )
    for method, layer, cams in itertools.chain.from_iterable(slots):
        if not cams.isfinite().all():
            raise MethodError(
                f"method '{method}' gives NaN or infinite values at '{layer}' of {adapter.name}; "
                "check the weights and the range of the input"
            )


def _forward(adapter: Adapter, inputs: Inputs) -> Any:
    """The model's output.

    Raises:
        ModelError: the model cannot run on such an input.
    """
    try:
        return adapter.forward(inputs)
    except RuntimeError as error:
        raise ModelError(
            f"{adapter.name} failed on an input of shape {tuple(inputs.pixels.shape)}: {error}; "
            "give it the size it was made for (preprocess), or another device if memory ran out"
        ) from error


def _targets(adapter: Adapter, output: Any, task: Any, samples: int) -> Sequence[Sequence[Target]]:
    """What the adapter makes of the task; somebody's own task is a list of targets already."""
    if isinstance(task, Target):
        task = [task]
    if isinstance(task, Sequence) and task and all(isinstance(item, Target) for item in task):
        return [list(task)] * samples
    return adapter.targets(output, task)


def _probabilities(output: Any, targets: Sequence[Sequence[Target]]) -> list[list[float | None]]:
    with torch.no_grad():
        return [
            [None if t.log_prob is None else float(t.log_prob(output)[row].exp()) for t in asked]
            for row, asked in enumerate(targets)
        ]
