"""Explain a batch of samples: prepare the model's input, and make explanations of its maps."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mmcam.capture.layers import resolve
from mmcam.capture.model_state import untouched
from mmcam.capture.probe import default_layer
from mmcam.capture.recording import log_prob_of
from mmcam.engine.batch import explain_batch
from mmcam.errors import LabelError, MethodError, ModelError, UnequalInputsError
from mmcam.methods import METHODS
from mmcam.methods.plan import Plan, split
from mmcam.results.explanation import Explanation
from mmcam.tasks import Classes
from mmcam.types import Adapter, Inputs, Sample, Target


class SampleResult(NamedTuple):
    """The maps of one sample, and its text, if any: a caption, or a question and its answers.

    `inputs` is the sample's row of the model's input. `class_count` is the number of classes in the
    output, or None if the model has no classes.
    """

    explanations: list[Explanation]
    text: Mapping[str, Any] | None
    inputs: Inputs
    class_count: int | None


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
    """The result of each sample: its explanations by target, then by method, then by layer.

    The targets are in the adapter's order.

    Args:
        adapter: the model.
        samples: one batch; if their shapes after preprocessing differ, one batch for each shape.
        task: one task for all samples, or a list with one task for each sample.
        plan: the maps to compute.
        layers: patterns for `capture.layers.resolve`; the adapter's default when None.
        counterfactual: explain the evidence against each target (Grad-CAM, IJCV 2020, eq. 12).
        targets: explain these for every sample, instead of the adapter's targets for the task.

    Raises:
        MmcamError: any subclass; the message has the bad value, the reason and the remedy.
    """
    tasks = tasks_of(task, len(samples))
    results: list[SampleResult | None] = [None] * len(samples)
    batches = deque(_batches(tasks))
    while batches:
        rows = batches.popleft()
        try:
            batch = _explain_batch(
                adapter,
                [samples[row] for row in rows],
                [tasks[row] for row in rows],
                plan,
                layers,
                counterfactual,
                targets,
            )
        except UnequalInputsError as error:
            kinds = list(dict.fromkeys(error.kinds))
            batches += [
                [row for row, other in zip(rows, error.kinds, strict=True) if other == kind]
                for kind in kinds
            ]
            continue
        for row, result in zip(rows, batch, strict=True):
            results[row] = result
    return [result for result in results if result is not None]


def tasks_of(task: Any, sample_count: int) -> list[Any]:
    """One task for each sample; a single task is repeated, and a list of targets is a single task.

    Raises:
        LabelError: the number of tasks differs from the number of samples.
    """
    if isinstance(task, Target):
        return [[task]] * sample_count
    if not isinstance(task, (list, tuple)) or not task or is_target_list(task):
        return [task] * sample_count
    if len(task) != sample_count:
        raise LabelError(
            f"{len(task)} tasks for {sample_count} samples; give one task for all, or one for each"
        )
    return [[item] if isinstance(item, Target) else item for item in task]


def is_target_list(task: Any) -> bool:
    """Whether a task is a list of the user's own targets."""
    return (
        isinstance(task, (list, tuple))
        and bool(task)
        and all(isinstance(target, Target) for target in task)
    )


def _batches(tasks: Sequence[Any]) -> list[list[int]]:
    """The rows of each batch: samples with equal tasks, or all samples with `Classes` tasks."""
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
    given_targets: Sequence[Target] | None,
) -> list[SampleResult]:
    """The results of samples that run together."""
    if counterfactual:
        plan.check_counterfactual()
    # `prepare` runs no model for classes; for another task, the model may generate a text.
    is_classes = isinstance(tasks[0], Classes) or is_target_list(tasks[0])
    may_generate = adapter.encoder is not None or not is_classes
    with untouched(adapter.model) if may_generate else torch.inference_mode(False):
        inputs = adapter.prepare(samples, tasks[0])
    if not plan.needs_layers:
        layers = []
    elif layers is None:
        if not adapter.layers:
            score = partial(_first_score, adapter, tasks, given_targets)
            adapter.layers = [default_layer(adapter, inputs, score)]
        layers = adapter.layers
    layer_names = resolve(adapter.model, layers, adapter.name) if layers else []
    if adapter.layouts is not None:
        adapter.layouts.prove(adapter, inputs, layer_names)
    _check_tiles(adapter, plan, inputs)

    def targets_of(output: Any) -> Sequence[Sequence[Target]]:
        rows = len(inputs.placements)
        if given_targets is not None:
            return [given_targets] * rows
        return _targets(adapter, output, tasks, rows)

    output, targets, scores, slots, attributions = explain_batch(
        adapter, inputs, layer_names, plan, targets_of, counterfactual=counterfactual
    )
    rows = len(inputs.placements)
    probabilities = _probabilities(output, targets)
    with torch.no_grad():
        texts = adapter.text(output, inputs)
    targets = [*targets, *([_contrast(targets[a], targets[b])] for a, b in inputs.contrasts)]
    explanations: list[list[Explanation]] = [[] for _ in samples]
    for row, row_targets in enumerate(targets):
        input_row = row if row < rows else inputs.contrasts[row - rows][0]
        sample = inputs.sample_index[input_row] if inputs.sample_index else input_row
        explanations[sample] += [
            Explanation(
                target=target,
                cam=cams[row],
                score=float(scores[slot, row]),
                probability=probabilities[row][slot] if row < rows else None,
                method=method,
                layer=layer,
                placement=replace(inputs.placements[input_row], extent=extent),
                counterfactual=counterfactual,
                words=attributions[slot][row] if attributions else (),
            )
            for slot, target in enumerate(row_targets)
            for method, layer, cams, extent in slots[slot]
        ]
    class_count = _class_count(adapter, output)
    return [
        SampleResult(
            sample_explanations,
            text,
            inputs.row(inputs.sample_index.index(i) if inputs.sample_index else i),
            class_count,
        )
        for i, (sample_explanations, text) in enumerate(zip(explanations, texts, strict=True))
    ]


def _contrast(first: Sequence[Target], second: Sequence[Target]) -> Target:
    """The target for the difference of two rows: the first one's score minus the second one's."""
    return replace(
        first[0],
        label=f"{first[0].label} rather than {second[0].label}",
        kind="contrast",
        log_prob=None,
        attention=None,
    )


def _check_tiles(adapter: Adapter, plan: Plan, inputs: Inputs) -> None:
    """Check that no method of the plan works on the pixels if the model's input is in tiles.

    Raises:
        MethodError: a method of the plan works on the pixels of tiles.
    """
    tiled = adapter.window is None and inputs.pixels.ndim == 5
    for name in plan.names if tiled else ():
        if any(METHODS[part].needs in ("pixels", "rescore") for part in split(name) if part):
            raise MethodError(
                f"method '{name}' works on the pixels of the model's input, but {adapter.name} "
                "splits a picture into overlapping tiles; choose a method that takes "
                "gradients at a layer (mmcam list methods)"
            )


def _targets(
    adapter: Adapter, output: Any, tasks: Sequence[Any], rows: int
) -> Sequence[Sequence[Target]]:
    """The targets of each row of the output: the user's own, or the adapter's for the task."""
    if is_target_list(tasks[0]):
        return [list(tasks[0])] * rows
    if all(task == tasks[0] for task in tasks):
        return adapter.targets(output, tasks[0])
    computed: list[tuple[Any, Sequence[Sequence[Target]]]] = []  # tasks may not be hashable
    targets = []
    for row, task in enumerate(tasks):
        task_targets = next((found for known, found in computed if known == task), None)
        if task_targets is None:
            task_targets = adapter.targets(output, task)
            computed.append((task, task_targets))
        targets.append(task_targets[row])
    return targets


def _first_score(
    adapter: Adapter, tasks: Sequence[Any], given_targets: Sequence[Target] | None, output: Any
) -> Tensor:
    """The score of the first sample's first target, summed over the batch.

    `given_targets` take precedence over those of the tasks.
    """
    targets = given_targets or _targets(adapter, output, tasks[:1], 1)[0]
    return targets[0].score(output).sum()


def _class_count(adapter: Adapter, output: Any) -> int | None:
    """The number of classes in an output; None if the model has no classes."""
    try:
        return adapter.logits(output).shape[1]
    except ModelError:
        return None


def _probabilities(output: Any, targets: Sequence[Sequence[Target]]) -> list[list[float | None]]:
    """The probability of each target of each row, if it has one.

    Raises:
        ScoreError: as `log_prob_of`.
    """
    values: dict[int, list[float] | None] = {}  # rows may share their targets
    with torch.no_grad():
        for target in itertools.chain.from_iterable(targets):
            if id(target) not in values:
                log_probs = log_prob_of(target, output, len(targets))
                values[id(target)] = (
                    None if log_probs is None else log_probs.double().exp().tolist()
                )
    of_targets = [[values[id(target)] for target in row_targets] for row_targets in targets]
    return [
        [None if rows is None else rows[row] for rows in row_values]
        for row, row_values in enumerate(of_targets)
    ]
