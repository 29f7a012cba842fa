"""Scores of changed versions of one sample: for methods by re-scoring, and for evaluators."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mmcam.capture.layers import tapped
from mmcam.capture.model_state import autocast, untouched
from mmcam.methods.perturbation import Rescoring
from mmcam.types import Adapter, Inputs, Pixels, Sample, Target


@dataclass(frozen=True, kw_only=True)
class Rescorer:
    """Scores changed versions of one sample, `batch` rows at a time.

    `inputs` is the sample's own row of the first forward: question and caption are as they were
    then. With `amp` the model runs in bfloat16 where autocast allows it.
    """

    adapter: Adapter
    inputs: Inputs
    batch: int = 16
    amp: bool = False

    def rescoring(self, target: Target, layer: str, channels: int) -> Rescoring:
        """What a method by re-scoring is given for one target at one layer."""
        return Rescoring(
            pixels=self.inputs.pixels[0],
            score=lambda changed: self.scores(changed, target),
            score_without=lambda: self.scores_without(layer, channels, target),
        )

    def scores(self, changed: Float[Tensor, "n 3 *space"], target: Target) -> Float[Tensor, " n"]:
        """The target's score of each changed input of the model."""
        outputs = (self._output(rows) for rows in changed.split(self.batch))
        return torch.cat([target.score(output).float() for output in outputs])

    def scores_without(
        self, layer: str, channels: int, target: Target
    ) -> Float[Tensor, " channel"]:
        """The score with each channel of `layer` set to zero, all cells of its grid at once."""
        scores = []
        for rows in torch.arange(channels).split(self.batch):

            def drop(_: str, tensor: Tensor, rows: Tensor = rows) -> Tensor:
                cells = self._cells(layer, tensor)
                changed = tensor.repeat(len(rows), *[1] * (tensor.ndim - 1))
                for row, channel in enumerate(rows.tolist()):
                    changed[row].view(-1)[cells[channel]] = 0
                return changed

            with tapped(self.adapter.model, [layer], drop):
                output = self._output(self.inputs.pixels)
            scores.append(target.score(output).float())
        return torch.cat(scores)

    def probabilities(
        self, pictures: Iterable[Pixels], targets: Iterable[Target], task: Any, text: str
    ) -> Float[np.ndarray, " n"]:
        """The probability of each target on its picture; its score if it has no probability.

        Args:
            pictures: changed versions of the original picture or clip, before preprocessing.
            targets: one for each picture.
            task: what the first forward was asked.
            text: the sample's question or caption.
        """
        pairs = iter(zip(pictures, targets, strict=True))
        values: list[float] = []
        while rows := list(islice(pairs, self.batch)):
            samples = [Sample(pixels=pixels, text=text) for pixels, _ in rows]
            with untouched(self.adapter.model), torch.no_grad():
                changed = self.adapter.prepare(samples, task).pixels
                output = self._output(changed)
                known = {id(target): _values(target, output) for _, target in rows}
            values += [known[id(target)][row] for row, (_, target) in enumerate(rows)]
        return np.asarray(values, dtype=np.float64)

    def _output(self, pixels: Tensor) -> Any:
        """The model's output for changed inputs."""
        inputs = self.inputs.repeated(pixels).copied()
        model = self.adapter.model
        with untouched(model), torch.no_grad(), autocast(model, self.amp):
            return self.adapter.forward(inputs)

    def _cells(self, layer: str, tensor: Tensor) -> Tensor:
        """Where each channel's cells lie in the flattened row of the layer's own layout."""
        numbers = torch.arange(tensor[0].numel(), dtype=torch.float64)
        grid = self.adapter.grid(layer, numbers.view(1, *tensor.shape[1:]), self.inputs)
        return grid[0].flatten(1).long().to(tensor.device)


def _values(target: Target, output: Any) -> Sequence[float]:
    if target.log_prob is None:
        scores: list[float] = target.score(output).float().tolist()
        return scores
    shares: list[float] = target.log_prob(output).float().exp().clamp(max=1).tolist()
    return shares
