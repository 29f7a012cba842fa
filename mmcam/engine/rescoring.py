"""Scores of perturbed versions of one sample, for re-scoring methods and for evaluators."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mmcam.capture.forward import run_model
from mmcam.capture.layers import tapped
from mmcam.capture.model_state import autocast, untouched
from mmcam.errors import ModelError
from mmcam.methods.perturbation import Rescoring
from mmcam.types import Adapter, Inputs, Pixels, Sample, Target


@dataclass(frozen=True, kw_only=True)
class Rescorer:
    """Scores perturbed versions of one sample, `batch` rows at a time.

    `inputs` is the sample's row of the first forward, with its question or caption. With `amp` the
    model runs in bfloat16 where autocast allows it.
    """

    adapter: Adapter
    inputs: Inputs
    batch: int = 16
    amp: bool = False

    def rescoring(self, target: Target, layer: str, channels: int) -> Rescoring:
        """The input of a re-scoring method for one target at one layer."""
        return Rescoring(
            pixels=self.inputs.pixels[0],
            score=lambda perturbed: self.scores(perturbed, target),
            ablated_scores=lambda: self.ablated_scores(layer, channels, target),
        )

    def scores(self, perturbed: Float[Tensor, "n 3 *space"], target: Target) -> Float[Tensor, " n"]:
        """The target's score for each perturbed input of the model."""
        try:
            outputs = (self._output(rows) for rows in perturbed.split(self.batch))
            return torch.cat([target.score(output).float() for output in outputs])
        except ModelError:
            if len(perturbed) == 1 or self.batch == 1:
                raise
            # Some models, such as exported programs, take only one sample.
            return replace(self, batch=1).scores(perturbed, target)

    def ablated_scores(
        self, layer: str, channels: int, target: Target
    ) -> Float[Tensor, " channel"]:
        """The score with each channel of `layer` set to zero on its whole grid."""
        scores = []
        for chunk in torch.arange(channels).split(self.batch):

            def ablate(_: str, tensor: Tensor, chunk: Tensor = chunk) -> Tensor:
                cells = self._cells(layer, tensor)
                ablated = tensor.repeat(len(chunk), *[1] * (tensor.ndim - 1))
                for row, channel in enumerate(chunk.tolist()):
                    ablated[row].view(-1)[cells[channel]] = 0
                return ablated

            with tapped(self.adapter.model, [layer], ablate):
                output = self._output(self.inputs.pixels)
            scores.append(target.score(output).float())
        return torch.cat(scores)

    def probabilities(
        self, pictures: Iterable[Pixels], targets: Iterable[Target], task: Any, text: str
    ) -> Float[np.ndarray, " n"]:
        """The probability of each target for its picture; the score if there is no probability.

        Args:
            pictures: perturbed versions of the original picture or clip, before preprocessing.
            targets: one for each picture.
            task: the task of the first forward.
            text: the sample's question or caption.
        """
        pairs = iter(zip(pictures, targets, strict=True))
        values: list[float] = []
        while rows := list(islice(pairs, self.batch)):
            samples = [Sample(pixels=pixels, text=text) for pixels, _ in rows]
            with untouched(self.adapter.model), torch.no_grad():
                perturbed = self.adapter.prepare(samples, task).pixels
                output = self._output(perturbed)
                by_target = {id(target): _values(target, output) for _, target in rows}
            values += [by_target[id(target)][row] for row, (_, target) in enumerate(rows)]
        return np.asarray(values, dtype=np.float64)

    def _output(self, pixels: Tensor) -> Any:
        """The model's output for perturbed inputs."""
        inputs = self.inputs.repeated(pixels).copied()
        model = self.adapter.model
        with untouched(model), torch.no_grad(), autocast(model, self.amp):
            return run_model(self.adapter, inputs)

    def _cells(self, layer: str, tensor: Tensor) -> Tensor:
        """For each channel, the indices of its cells in one flattened row of `tensor`."""
        indices = torch.arange(tensor[0].numel(), dtype=torch.float64)
        grid = self.adapter.grid(layer, indices.view(1, *tensor.shape[1:]), self.inputs)
        return grid[0].flatten(1).long().to(tensor.device)


def _values(target: Target, output: Any) -> Sequence[float]:
    """The target's probability in each row; the score if there is no probability."""
    if target.log_prob is None:
        scores: list[float] = target.score(output).float().tolist()
        return scores
    probabilities: list[float] = target.log_prob(output).float().exp().clamp(max=1).tolist()
    return probabilities
