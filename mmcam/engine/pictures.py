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

from mmcam.capture.layers import resolve
from mmcam.capture.model_state import untouched
from mmcam.capture.probe import default_layer
from mmcam.capture.recording import capture
from mmcam.engine.maps import Batch, Made, with_contrasts
from mmcam.errors import LabelError, MethodError, ModelError, ScoreError
from mmcam.methods import METHODS
from mmcam.methods.plan import Plan, split
from mmcam.results.explanation import Explanation
from mmcam.tasks import Classes
from mmcam.types import Adapter, Inputs, Sample, Target


class SampleResult(NamedTuple):
    """The maps of one sample, and its text (caption, or question and answers) if there is one.

    `inputs` is the sample's row of the model's input, `classes` the number of classes in the
    output; None if the model has no classes.
    """

    explanations: list[Explanation]
    text: Mapping[str, Any] | None
    inputs: Inputs
    classes: int | None


def explain_samples(
    adapter: Adapter,
    samples: Sequence[Sample],
    task: Any,
    plan: Plan,
    layers: Sequence[str] | None = None,
    *,
    counterfactual: bool = False,
    targets: Sequence[Target] | None = None,
) -> list[SampleResult]:
    """For each sample its explanations: targets in the adapter's order, each by method and layer.

    Args:
        adapter: the model.
        samples: one batch; their shapes after preprocessing must agree.
        task: what is asked, as the adapter understands it; a list of tasks has one per sample.
        plan: which maps to make.
        layers: patterns as `capture.resolve` takes them; the adapter's default when None.
        counterfactual: explain what speaks against each score (IJCV eq. 12).
        targets: explain these for every sample, instead of what the adapter makes of the task.

    Raises:
        MmcamError: of any kind, with the value, the reason and the remedy.
    """
    tasks = tasks_of(task, len(samples))
    results: list[SampleResult | None] = [None] * len(samples)
    for rows in _batches(tasks):
        batch = _explain_batch(
            adapter,
            [samples[row] for row in rows],
            [tasks[row] for row in rows],
            plan,
            layers,
            counterfactual,
            targets,
        )
        for row, result in zip(rows, batch, strict=True):
            results[row] = result
    return [result for result in results if result is not None]


def tasks_of(task: Any, samples: int) -> list[Any]:
    """One task for each sample; a list of targets is one task for all.

    Raises:
        LabelError: a list of tasks of another length.
    """
    if isinstance(task, Target):
        return [[task]] * samples
    if not isinstance(task, (list, tuple)) or not task or _is_targets(task):
        return [task] * samples
    if len(task) != samples:
        raise LabelError(
            f"{len(task)} tasks for {samples} samples; give one task for all, or one for each"
        )
    return [[one] if isinstance(one, Target) else one for one in task]


def _is_targets(task: Any) -> bool:
    """Whether a task is the user's own: a list of targets."""
    return (
        isinstance(task, (list, tuple))
        and bool(task)
        and all(isinstance(target, Target) for target in task)
    )


def _batches(tasks: Sequence[Any]) -> list[list[int]]:
    """Which samples run together: those of one task, and all whose classes are asked for."""
    groups: list[tuple[Any, list[int]]] = []
    for row, task in enumerate(tasks):
        for first, rows in groups:
            if task == first or (isinstance(task, Classes) and isinstance(first, Classes)):
                rows.append(row)
                break
        else:
            groups.append((task, [row]))
    return [rows for _, rows in groups]


def _explain_batch(
    adapter: Adapter,
    samples: Sequence[Sample],
    tasks: Sequence[Any],
    plan: Plan,
    layers: Sequence[str] | None,
    counterfactual: bool,
    given: Sequence[Target] | None,
) -> list[SampleResult]:
    """The results of samples that run together."""
    if counterfactual:
        plan.check_counterfactual()
    # A text may have to be generated; other models do not run yet.
    speaks = adapter.encoder is not None
    with untouched(adapter.model) if speaks else torch.inference_mode(False):
        inputs = adapter.prepare(samples, tasks[0])
    if not plan.has_layers:
        layers = []
    elif layers is None:
        adapter.layers = layers = adapter.layers or [default_layer(adapter, inputs)]
    named = resolve(adapter.model, layers, adapter.name) if layers else []
    _check_tiles(adapter, plan, inputs)
    pixels = inputs.pixels if plan.needs("pixels") else None
    if pixels is not None or any(layer != adapter.encoder for layer in named):
        inputs = replace(inputs, encoder_output=None)  # the graph begins below the encoder's output
    inputs = replace(inputs, output_attentions=plan.needs("attention"))
    at_pixels = plan.needs("pixels")
    strategy = "loop" if at_pixels else adapter.gradient_strategy
    words = adapter.words if "words" in inputs.rest else None
    with capture(
        adapter.model,
        [*named, words] if words else named,
        pixels=pixels,
        to_grid={
            layer: partial(adapter.grid, layer, inputs=inputs) for layer in named if plan.pooled
        },
    ) as (recording, check):
        # A model may work on its input in place; the leaf must stay as it is.
        own = plan.needs("pixels") or plan.needs("rescore")
        output = _forward(adapter, inputs.copied() if own else inputs)
        check()
        rows = len(inputs.placements)
        targets = [given] * rows if given is not None else _targets(adapter, output, tasks, rows)
        asked = [[t.negated() if counterfactual else t for t in row] for row in targets]
        scores = recording.scores(output, asked)
        batch = Batch(
            adapter, inputs, recording, named, plan, asked, counterfactual, strategy, words
        )
        slots = list(batch.maps(scores, output))
        read = batch.read() if words else None
        scores = with_contrasts(scores.detach(), inputs.contrasts, 1) * (
            -1 if counterfactual else 1
        )
    _check_finite(adapter, scores, slots)
    probabilities = _probabilities(output, targets)
    with torch.no_grad():
        texts = adapter.text(output, inputs)
    targets = [*targets, *([_contrast(targets[a], targets[b])] for a, b in inputs.contrasts)]
    made: list[list[Explanation]] = [[] for _ in samples]
    for row, asked_of_one in enumerate(targets):
        like = row if row < rows else inputs.contrasts[row - rows][0]
        made[inputs.sample_index[like] if inputs.sample_index else like] += [
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
    classes = _class_count(adapter, output)
    return [
        SampleResult(
            explanations,
            text,
            inputs.row(inputs.sample_index.index(i) if inputs.sample_index else i),
            classes,
        )
        for i, (explanations, text) in enumerate(zip(made, texts, strict=True))
    ]


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


def _targets(
    adapter: Adapter, output: Any, tasks: Sequence[Any], rows: int
) -> Sequence[Sequence[Target]]:
    """The targets of each row of the output; a task of the user's own is a list of targets."""
    if _is_targets(tasks[0]):
        return [list(tasks[0])] * rows
    if all(task == tasks[0] for task in tasks):
        return adapter.targets(output, tasks[0])
    known: list[tuple[Any, Sequence[Sequence[Target]]]] = []
    targets = []
    for row, task in enumerate(tasks):
        of_task = next((made for other, made in known if other == task), None)
        if of_task is None:
            of_task = adapter.targets(output, task)
            known.append((task, of_task))
        targets.append(of_task[row])
    return targets


def _class_count(adapter: Adapter, output: Any) -> int | None:
    """The number of classes in an output; None if the model has no classes."""
    try:
        return adapter.logits(output).shape[1]
    except ModelError:
        return None


def _probabilities(output: Any, targets: Sequence[Sequence[Target]]) -> list[list[float | None]]:
    with torch.no_grad():
        return [
            [None if t.log_prob is None else float(t.log_prob(output)[row].exp()) for t in asked]
            for row, asked in enumerate(targets)
        ]
