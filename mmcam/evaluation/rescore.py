"""Asking a model again: each sample of a batch for its own labels, and changed pictures."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import nn

from mmcam.capture import untouched
from mmcam.errors import LabelError, ModelError
from mmcam.types import Adapter, Inputs, Pixels, Sample, Target


@dataclass
class Heard:
    """What the adapter was given and how many classes its output had, of the last forward."""

    inputs: Inputs | None = None
    classes: int | None = None


def asking(
    adapter: Adapter, tasks: Sequence[Any] = (), targets: Sequence[Target] | None = None
) -> tuple[Adapter, Heard]:
    """The adapter, asked differently, and what it hears.

    Args:
        adapter: left as it is; the model is shared.
        tasks: one for each sample of the batch; what the engine asks when there are none.
        targets: what every sample is asked instead.
    """
    heard, own = Heard(), copy.copy(adapter)

    def prepare(samples: Sequence[Sample], task: Any) -> Inputs:
        heard.inputs = adapter.prepare(samples, task)
        return heard.inputs

    def ask(output: Any, task: Any) -> Sequence[Sequence[Target]]:
        with suppress(ModelError):  # a model of words has no classes
            heard.classes = adapter.logits(output).shape[1]
        if targets is not None:
            return [targets] * (1 if heard.inputs is None else len(heard.inputs.placements))
        if not tasks:
            return adapter.targets(output, task)
        known = {repr(one): one for one in tasks}  # labels may be a list, which has no hash
        made = {key: adapter.targets(output, one) for key, one in known.items()}
        return [made[repr(one)][row] for row, one in enumerate(tasks)]

    vars(own).update(prepare=prepare, targets=ask)
    return own, heard


def autocast(model: nn.Module, amp: bool) -> AbstractContextManager[Any]:
    """Mixed precision in bfloat16, if asked for."""
    if not amp:
        return nullcontext()
    parameter = next(model.parameters(), torch.zeros(()))
    return torch.autocast(parameter.device.type, dtype=torch.bfloat16)


def model_label(adapter: Adapter, label: str | int, classes: int | None) -> str:
    """What the model calls a label of the data; the label itself where it cannot tell."""
    known: Any = adapter
    if classes is not None and hasattr(adapter, "index") and hasattr(adapter, "label"):
        with suppress(LabelError):
            return str(known.label(known.index(label, classes)))
    return str(label)


@dataclass(frozen=True)
class Again:
    """Scores changed versions of one item's picture or clip, `batch` at a time.

    `inputs` is the item's own row of the first forward: question and caption are as they were then.
    `text` is what goes with a picture when it is preprocessed.
    """

    adapter: Adapter
    inputs: Inputs
    task: Any
    text: str
    batch: int
    amp: bool

    def scores(
        self, pictures: Iterable[Pixels], targets: Iterable[Target]
    ) -> Float[np.ndarray, " n"]:
        """The score of each picture for its target: the probability, where the target has one."""
        pairs = iter(zip(pictures, targets, strict=True))
        found: list[float] = []
        while some := list(islice(pairs, self.batch)):
            found += self._run([pixels for pixels, _ in some], [target for _, target in some])
        return np.asarray(found, dtype=np.float64)

    def _run(self, pictures: Sequence[Pixels], targets: Sequence[Target]) -> Iterator[float]:
        model = self.adapter.model
        samples = [Sample(pixels=pixels, text=self.text) for pixels in pictures]
        with untouched(model), torch.no_grad(), autocast(model, self.amp):
            changed = self.adapter.prepare(samples, self.task).pixels
            output = self.adapter.forward(self.inputs.repeated(changed).copied())
            asked = {id(target): target for target in targets}
            values = {key: _value(target, output) for key, target in asked.items()}
        return (values[id(target)][row] for row, target in enumerate(targets))


def _value(target: Target, output: Any) -> list[float]:
    if target.log_prob is None:
        return [float(value) for value in target.score(output).float().tolist()]
    return [float(value) for value in target.log_prob(output).float().exp().clamp(max=1).tolist()]
