"""From items to rows: one forward for all methods, then the numbers of all metrics.

A row is an item x target x method (x layer). An item that cannot be read, explained or judged is
one row with its error, and what comes after it goes on.
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
from mmcam.evaluation.cases import Subject, with_baselines
from mmcam.evaluation.metrics import MEASURES
from mmcam.evaluation.study import Study
from mmcam.results.explanation import Explanation
from mmcam.types import Adapter, Sample

Row = dict[str, Any]

PIXELS = 64 * 2**20
"""How many pixels of changed pictures are held at once, at most."""


@dataclass(frozen=True)
class Read:
    """One item as it came from the disk: its number, and the item with its sample or the error."""

    index: int
    id: str
    item: Item | None = None
    sample: Sample | None = None
    error: str | None = None


def read(data: Dataset, index: int, study: Study, adapter: Adapter) -> Read:
    """An item with its pixels; whatever goes wrong becomes its error."""
    name = f"#{index}"
    try:
        item = data[index]
        name = item.id
        sample = replace(item.read(adapter.window), text=study.text_of(item))
    except Exception as error:  # whatever a file does to a decoder, the others go on
        return Read(index, name, error=said(error))
    return Read(index, name, item, sample)


def said(error: Exception) -> str:
    """An error in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def measure(adapter: Adapter, study: Study, items: Sequence[Read]) -> list[Row]:
    """The rows of a batch of items, in their order."""
    rows: dict[int, list[Row]] = {
        one.index: [error_row(one, one.error or "nothing was read")]
        for one in items
        if one.sample is None
    }
    known = [one for one in items if one.sample is not None]
    if known:
        rows |= _measured(adapter, study, known)
    return [row for one in items for row in rows[one.index]]


def error_row(one: Read, error: str) -> Row:
    """The one row of an item that failed."""
    return {"index": one.index, "item": one.id, "target": -1, "error": error}


def _measured(adapter: Adapter, study: Study, group: Sequence[Read]) -> dict[int, list[Row]]:
    """The rows of items that go through the model together, or else by size, or one by one."""
    begun = time.perf_counter()
    try:
        results = _explained(adapter, study, group)
    except Exception as error:  # one bad item must not take the others with it
        if len(group) == 1:
            return {group[0].index: [error_row(group[0], said(error))]}
        parts: dict[Any, list[Read]] = {}
        for one in group:
            assert one.sample is not None
            parts.setdefault(one.sample.pixels.shape, []).append(one)
        singles = [[one] for one in group]
        again = list(parts.values()) if len(parts) > 1 else singles
        return {k: v for part in again for k, v in _measured(adapter, study, part).items()}
    each = (time.perf_counter() - begun) / len(group)
    return {
        one.index: _judged(adapter, study, one, results[row], each) for row, one in enumerate(group)
    }


def _explained(adapter: Adapter, study: Study, group: Sequence[Read]) -> list[SampleResult]:
    samples = [one.sample for one in group if one.sample is not None]
    tasks = [study.task_of(one.item) for one in group if one.item is not None]
    with autocast(adapter.model, study.amp):
        return explain_samples(adapter, samples, tasks, study.full_plan, study.layers)


def _judged(
    adapter: Adapter,
    study: Study,
    one: Read,
    result: SampleResult,
    seconds: float,
) -> list[Row]:
    """The rows of one item; `seconds` is its share of the forward."""
    assert one.item is not None
    assert one.sample is not None
    text = dict(result.text or {})
    said_text = str(text.get("caption", one.sample.text))
    subject = Subject(
        item=one.item,
        sample=one.sample,
        study=study,
        adapter=adapter,
        rescorer=Rescorer(
            adapter=adapter,
            inputs=result.inputs,
            batch=max(
                1, min(study.batch or adapter.batch, PIXELS // one.sample.pixels[..., 0].size)
            ),
            amp=study.amp,
        ),
        task=study.task_of(one.item),
        text=said_text,
        classes=result.classes,
        found=tuple(result.explanations),
        maps=with_baselines(result.explanations, study, one.item.id),
        words=tuple(_words(text)),
    )
    try:
        rows = [_row(subject, one, said_text, explanation) for explanation in subject.maps]
    except Exception as error:  # not of a metric's own making: memory, a broken map file
        return [error_row(one, said(error))]
    for made in rows:
        made["seconds"] += seconds / len(rows)
    return rows or [error_row(one, "EvaluationError: the model says nothing of it to explain")]


def _words(text: dict[str, Any]) -> Iterator[str]:
    """The words of a caption; a question's words have no maps."""
    for word in text.get("words", ()) if "caption" in text else ():
        yield str(word["text"])


def _row(subject: Subject, one: Read, text: str, explanation: Explanation) -> Row:
    begun = time.perf_counter()
    values: dict[str, Any] = {}
    reasons: dict[str, str] = {}
    for metric in subject.study.metrics:
        try:
            values |= MEASURES[metric](subject, explanation)
        except MmcamError as error:
            reasons[metric] = said(error)
    target, share = explanation.target, explanation.probability
    numbers = {id(known): number for number, known in enumerate(subject.targets)}
    return {
        "index": one.index,
        "item": one.id,
        "group": subject.item.group or one.id,
        "text": text,
        "target": numbers[id(target)],
        "label": target.label,
        "kind": target.kind,
        "position": target.position,
        "method": explanation.method,
        "layer": explanation.layer,
        "score": explanation.score,
        "probability": share,
        "log_prob": math.log(share) if share else None,
        "empty": explanation.empty,
        **values,
        "reasons": json.dumps(reasons, ensure_ascii=False) if reasons else None,
        "seconds": time.perf_counter() - begun,
        "error": None,
    }
