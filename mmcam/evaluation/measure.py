"""From items to rows: one forward pass for all methods, then the values of all metrics.

Each row is for one item, target, method and layer. An item that cannot be read, explained or
evaluated becomes one row with its error, and the run continues.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mmcam.capture.model_state import autocast
from mmcam.datasets.items import Dataset, Item
from mmcam.engine.pictures import SampleResult, explain_samples
from mmcam.engine.rescoring import Rescorer
from mmcam.errors import MmcamError
from mmcam.evaluation.evaluated_item import EvaluatedItem, with_baselines
from mmcam.evaluation.metrics import METRIC_FUNCTIONS
from mmcam.evaluation.study import Study
from mmcam.results.explanation import Explanation
from mmcam.types import Adapter, Sample

Row = dict[str, Any]

PIXELS = 64 * 2**20
"""The maximum number of pixels of perturbed pictures in memory at once."""


@dataclass(frozen=True)
class LoadedItem:
    """One item as loaded from disk: its index, and the item with its sample or the error."""

    index: int
    id: str
    item: Item | None = None
    sample: Sample | None = None
    error: str | None = None


def load_item(data: Dataset, index: int, study: Study, adapter: Adapter) -> LoadedItem:
    """Load an item with its pixels; any exception becomes its error."""
    item_id = f"#{index}"
    try:
        item = data[index]
        item_id = item.id
        sample = replace(item.read(adapter.window), text=study.text_of(item))
    except Exception as error:  # a broken file must not stop the run, whatever its decoder raises
        return LoadedItem(index, item_id, error=error_line(error))
    return LoadedItem(index, item_id, item, sample)


def error_line(error: Exception) -> str:
    """An error in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def measure(adapter: Adapter, study: Study, items: Sequence[LoadedItem]) -> list[Row]:
    """The rows of a batch of items, in their order."""
    rows: dict[int, list[Row]] = {
        item.index: [error_row(item, item.error or "no sample was loaded")]
        for item in items
        if item.sample is None
    }
    loaded = [item for item in items if item.sample is not None]
    if loaded:
        rows |= _evaluate_group(adapter, study, loaded)
    return [row for item in items for row in rows[item.index]]


def error_row(loaded: LoadedItem, error: str) -> Row:
    """The single row of an item that failed."""
    return {"index": loaded.index, "item": loaded.id, "target": -1, "error": error}


def _evaluate_group(
    adapter: Adapter, study: Study, group: Sequence[LoadedItem]
) -> dict[int, list[Row]]:
    """Evaluate items in one forward pass; if it fails, in one per size, then one per item."""
    start = time.perf_counter()
    try:
        results = _explain_group(adapter, study, group)
    except Exception as error:  # one bad item must not fail the others
        if len(group) == 1:
            return {group[0].index: [error_row(group[0], error_line(error))]}
        by_size: dict[Any, list[LoadedItem]] = {}
        for loaded in group:
            assert loaded.sample is not None
            by_size.setdefault(loaded.sample.pixels.shape, []).append(loaded)
        singles = [[loaded] for loaded in group]
        parts = list(by_size.values()) if len(by_size) > 1 else singles
        return {
            index: rows
            for part in parts
            for index, rows in _evaluate_group(adapter, study, part).items()
        }
    seconds = (time.perf_counter() - start) / len(group)
    return {
        loaded.index: _evaluate_item(adapter, study, loaded, result, seconds)
        for loaded, result in zip(group, results, strict=True)
    }


def _explain_group(
    adapter: Adapter, study: Study, group: Sequence[LoadedItem]
) -> list[SampleResult]:
    samples = [loaded.sample for loaded in group if loaded.sample is not None]
    tasks = [study.task_of(loaded.item) for loaded in group if loaded.item is not None]
    with autocast(adapter.model, study.amp):
        return explain_samples(adapter, samples, tasks, study.full_plan, study.layers)


def _evaluate_item(
    adapter: Adapter,
    study: Study,
    loaded: LoadedItem,
    result: SampleResult,
    seconds: float,
) -> list[Row]:
    """The rows of one item; `seconds` is its share of the time taken to explain its group."""
    assert loaded.item is not None
    assert loaded.sample is not None
    generated = dict(result.text or {})
    text = str(generated.get("caption", loaded.sample.text))
    pixel_count = loaded.sample.pixels[..., 0].size
    evaluated = EvaluatedItem(
        item=loaded.item,
        sample=loaded.sample,
        study=study,
        adapter=adapter,
        rescorer=Rescorer(
            adapter=adapter,
            inputs=result.inputs,
            batch=max(1, min(study.batch or adapter.batch, PIXELS // pixel_count)),
            amp=study.amp,
        ),
        task=study.task_of(loaded.item),
        text=text,
        class_count=result.class_count,
        explanations=tuple(result.explanations),
        maps=with_baselines(result.explanations, study, loaded.item.id),
        words=tuple(_caption_words(generated)),
    )
    try:
        rows = [_row(evaluated, loaded, text, explanation) for explanation in evaluated.maps]
    except Exception as error:  # not reported by a metric: out of memory, a broken map file
        return [error_row(loaded, error_line(error))]
    for row in rows:
        row["seconds"] += seconds / len(rows)
    return rows or [error_row(loaded, "EvaluationError: the item has no targets to explain")]


def _caption_words(text: dict[str, Any]) -> Iterator[str]:
    """The words of a caption; none for a question, whose words have no maps."""
    for word in text.get("words", ()) if "caption" in text else ():
        yield str(word["text"])


def _row(evaluated: EvaluatedItem, loaded: LoadedItem, text: str, explanation: Explanation) -> Row:
    start = time.perf_counter()
    values: dict[str, Any] = {}
    reasons: dict[str, str] = {}
    for metric in evaluated.study.metrics:
        try:
            values |= METRIC_FUNCTIONS[metric](evaluated, explanation)
        except MmcamError as error:
            reasons[metric] = error_line(error)
    target, probability = explanation.target, explanation.probability
    target_indices = {id(candidate): i for i, candidate in enumerate(evaluated.targets)}
    return {
        "index": loaded.index,
        "item": loaded.id,
        "group": evaluated.item.group or loaded.id,
        "text": text,
        "target": target_indices[id(target)],
        "label": target.label,
        "kind": target.kind,
        "position": target.position,
        "method": explanation.method,
        "layer": explanation.layer,
        "score": explanation.score,
        "probability": probability,
        "log_prob": math.log(probability) if probability else None,
        "empty": explanation.empty,
        **values,
        "reasons": json.dumps(reasons, ensure_ascii=False) if reasons else None,
        "seconds": time.perf_counter() - start,
        "error": None,
    }
