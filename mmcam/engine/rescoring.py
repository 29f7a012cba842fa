"""Scores of perturbed versions of one sample, for re-scoring methods and for evaluators."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mmcam.capture.forward import run_model
from mmcam.capture.layers import tapped
from mmcam.capture.model_state import autocast, untouched
from mmcam.capture.recording import score_of
from mmcam.errors import MethodError
from mmcam.methods.perturbation import Rescoring
from mmcam.types import Adapter, Extent, Inputs, Pixels, Sample, Target


def extent_of(adapter: Adapter, layer: str, inputs: Inputs) -> Extent:
    """Where the cells of a layer's grid lie on the input; empty if they are spread evenly."""
    return () if adapter.layouts is None else adapter.layouts.extent(layer, inputs)


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
            extent=extent_of(self.adapter, layer, self.inputs),
            score=lambda perturbed: self.scores(perturbed, target),
            ablated_scores=lambda: self.ablated_scores(layer, channels, target),
        )

    def scores(
        self, perturbed: Float[Tensor, "n channel *space"], target: Target
    ) -> Float[Tensor, " n"]:
        """The target's score for each perturbed input of the model.

        Raises:
            ModelError: the model fails on a perturbed input.
            ScoreError: as `score_of`.
        """

        def score(rows: Tensor) -> Tensor:
            return self._score(perturbed[rows], target, len(rows))

        return self._score_rows(len(perturbed), score)

    def ablated_scores(
        self, layer: str, channels: int, target: Target
    ) -> Float[Tensor, " channel"]:
        """The score with each channel of `layer` set to zero on its whole grid.

        Raises:
            MethodError: a cell of the grid is not one entry of the layer's output.
            ModelError: the model fails when it runs again.
            ScoreError: as `score_of`.
        """
        cells = self._cells(layer)
        assert len(cells) == channels
        copies = self._copies(layer, torch.cat(cells), target)

        def score(rows: Tensor) -> Tensor:
            zeroed = [cells[row] for row in rows.tolist()]
            return self._score_zeroed(layer, zeroed, copies or len(rows), target)

        return self._score_rows(channels, score, 1 if copies is None else self.batch)

    def _copies(self, layer: str, every_cell: Tensor, target: Target) -> int | None:
        """How many copies of the input a pass over several changes of `layer` needs.

        1 if the layer's output can be repeated in place, which is the cheapest; 0 for one copy for
        each change, if something beside the layer (a question, another pathway) has a row for each
        input; None if the model must take one input at a time. The values 1 and 0 are tried on two
        changes, no cell and every cell, because a model may mix repeated rows without an error.
        """
        changes = [every_cell[:0], every_cell]
        expected = torch.cat([self._score_zeroed(layer, [c], 1, target) for c in changes])
        tolerance = 0.01 * (expected[0] - expected[1]).abs() + 1e-5 * expected.abs().max()
        for copies in (1, 0):
            with suppress(Exception):  # a model may raise anything for rows that do not fit
                actual = self._score_zeroed(layer, changes, copies or len(changes), target)
                if (
                    actual.shape == expected.shape
                    and ((actual - expected).abs() <= tolerance).all()
                ):
                    return copies
        return None

    def _score_zeroed(
        self, layer: str, zeroed: Sequence[Tensor], copies: int, target: Target
    ) -> Float[Tensor, " change"]:
        """The score for each change, with these entries of the layer's output for one input zero.

        `copies` is the number of inputs: 1, or one for each change.
        """

        def ablate(_: str, tensor: Tensor) -> Tensor:
            repeats = len(zeroed) // copies
            ablated = tensor.repeat(repeats, *[1] * (tensor.ndim - 1)).contiguous()
            for row, entries in zip(ablated.view(len(zeroed), -1), zeroed, strict=True):
                row[entries.to(tensor.device)] = 0
            return ablated

        pixels = self.inputs.pixels
        with tapped(self.adapter.model, [layer], ablate):
            repeated = pixels.repeat(copies, *[1] * (pixels.ndim - 1))
            return self._score(repeated, target, len(zeroed))

    def _score_rows(
        self, count: int, score: Callable[[Tensor], Tensor], batch: int | None = None
    ) -> Float[Tensor, " count"]:
        """The scores of `count` rows by their indices, `batch` at a time.

        Some models take one input at a time (a traced graph, a second input of one row).
        """
        batch, scores, done = batch or self.batch, [], 0
        while done < count:
            rows = torch.arange(done, min(done + batch, count))
            try:
                row_scores = score(rows)
            except Exception:  # a model may raise anything for rows that do not fit
                if len(rows) == 1:
                    raise
                batch = 1
                continue
            scores.append(row_scores)
            done += len(rows)
        return torch.cat(scores)

    def _score(self, pixels: Tensor, target: Target, rows: int) -> Float[Tensor, " row"]:
        return score_of(target, self._output(pixels), rows).float()

    def probabilities(
        self, pictures: Iterable[Pixels], targets: Iterable[Target], task: Any, text: str
    ) -> Float[np.ndarray, " n"]:
        """The probability of each target for its picture; the score if there is no probability.

        Args:
            pictures: perturbed versions of the original picture or clip, before preprocessing.
            targets: one for each picture.
            task: the task of the first forward.
            text: the sample's question or caption.

        Raises:
            ModelError: the preprocessing or the model fails on a perturbed picture.
            ScoreError: as `score_of`.
        """
        pairs = iter(zip(pictures, targets, strict=True))
        values: list[float] = []
        while rows := list(islice(pairs, self.batch)):
            samples = [Sample(pixels=pixels, text=text) for pixels, _ in rows]
            with untouched(self.adapter.model), torch.no_grad():
                perturbed = self.adapter.prepare(samples, task).pixels
                output = self._output(perturbed)
                by_target = {
                    id(target): _values(target, output, len(perturbed)) for _, target in rows
                }
            values += [by_target[id(target)][row] for row, (_, target) in enumerate(rows)]
        return np.asarray(values, dtype=np.float64)

    def _output(self, pixels: Tensor) -> Any:
        """The model's output for perturbed inputs."""
        inputs = self.inputs.repeated(pixels).copied()
        model = self.adapter.model
        with untouched(model), torch.no_grad(), autocast(model, self.amp):
            return run_model(self.adapter, inputs)

    def _cells(self, layer: str) -> list[Tensor]:
        """For each channel, the indices of its cells in the flattened output of `layer`.

        Raises:
            MethodError: a cell of the grid is not one entry of the output.
        """
        shapes = []

        def record(_: str, tensor: Tensor) -> Tensor:
            shapes.append(tensor.shape)
            return tensor

        with tapped(self.adapter.model, [layer], record):
            self._output(self.inputs.pixels)
        size = shapes[0].numel()
        # Numbered from 1: a grid may have cells that are no entry, which are 0.
        numbers = torch.arange(1, size + 1, dtype=torch.float64)
        values = torch.rand(size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        cells, expected = (
            self.adapter.grid(layer, entries.view(shapes[0]), self.inputs)[0].flatten(1)
            for entries in (numbers, values)
        )
        cells = cells.round().long().clamp(0, size)
        if not torch.equal(torch.cat([values.new_zeros(1), values])[cells], expected):
            raise MethodError(
                f"the grid of layer '{layer}' combines several entries of its output in one cell, "
                "so no channel can be set to zero; choose another method or another layer"
            )
        return [channel[channel > 0] - 1 for channel in cells]


def _values(target: Target, output: Any, rows: int) -> Sequence[float]:
    """The target's probability in each row; the score if there is no probability."""
    if target.log_prob is None:
        scores: list[float] = score_of(target, output, rows).float().tolist()
        return scores
    probabilities: list[float] = target.log_prob(output).float().exp().clamp(max=1).tolist()
    return probabilities
