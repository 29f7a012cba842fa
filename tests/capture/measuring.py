"""Measure where the cells of a layer look, by gradients at the pixels; nothing is followed."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mmcam.capture.layers import tapped
from mmcam.capture.layout import Layout
from mmcam.capture.model_state import untouched
from mmcam.types import Adapter, Inputs


class Measured(NamedTuple):
    """How some cells of a layer answer to the place that is claimed for each.

    `answers` are the cells' answers near their places, as shares of the strongest answer anywhere;
    NaN for a cell that answers to nothing, as behind a scale that starts at 0. `leaks` says whether
    a cell depends on another sample of the batch.
    """

    answers: Tensor
    leaks: bool

    @property
    def misplaced(self) -> float:
        """The share of cells that answer at least 50 times less near their place than elsewhere.

        The output of attention, before the residual is added, answers to many places, and to which
        of them most is by chance.
        """
        return float((self.answers < 0.02).double().mean())


def measure(
    adapter: Adapter,
    inputs: Inputs,
    layouts: dict[str, Layout],
    *,
    samples: int = 2,
    fields: int = 2,
    cells: int = 6,
) -> dict[str, Measured]:
    """How cells drawn by lot answer to their places, for each of these layers.

    The answer of a patch is the squared gradient of a random projection of the cell, summed over
    the patch's pixels, in the last sample of the batch.

    Args:
        adapter: the model.
        inputs: inputs of which the first row's size and text are used.
        layouts: the layouts of the layers.
        samples: the number of samples in the batch.
        fields: the number of smooth random inputs.
        cells: the number of cells.
    """
    generator = torch.Generator().manual_seed(0)
    energies: dict[str, list[Tensor]] = {layer: [] for layer in layouts}
    chosen = {layer: _choose(layout.grid, cells, generator) for layer, layout in layouts.items()}
    leaks = dict.fromkeys(layouts, False)
    shape = inputs.pixels.shape[1:]
    for _ in range(fields):
        pixels = torch.stack([_field(shape, generator) for _ in range(samples)])
        batch = inputs.row(0).repeated(pixels.to(inputs.pixels.dtype))
        leaf = batch.pixels.requires_grad_(True)
        outputs: dict[str, Tensor] = {}

        def keep(layer: str, tensor: Tensor, outputs: dict[str, Tensor] = outputs) -> Tensor:
            outputs[layer] = tensor
            return tensor.clone()

        with untouched(adapter.model), tapped(adapter.model, list(layouts), keep):
            adapter.forward(batch)
        for layer, layout in layouts.items():
            grid = layout.to_grid(outputs[layer])
            rows = []
            for cell in chosen[layer]:
                values = grid[(-1, slice(None), *cell)]
                weights = torch.randn(values.shape, generator=generator, dtype=values.dtype)
                (gradient,) = torch.autograd.grad((values * weights).sum(), leaf, retain_graph=True)
                leaks[layer] |= bool(gradient[:-1].any())
                rows.append(gradient[-1].double().square().sum(0))
            energies[layer].append(_pooled(torch.stack(rows), layout))
    return {
        layer: Measured(_answers(torch.stack(energies[layer]).mean(0), chosen[layer]), leaks[layer])
        for layer, layout in layouts.items()
    }


def _choose(grid: Sequence[int], count: int, generator: torch.Generator) -> list[tuple[int, ...]]:
    """Some cells of a grid, drawn by lot without repetition."""
    every = list(itertools.product(*map(range, grid)))
    order = torch.randperm(len(every), generator=generator).tolist()
    return [every[number] for number in order[:count]]


def _field(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Noise at several scales, `[3, *space]`."""
    space = shape[1:]
    mode = "trilinear" if len(space) == 3 else "bilinear"
    field = torch.randn(1, *shape, generator=generator)
    for side in (4, 16):
        coarse = torch.randn(1, 3, *(min(side, n) for n in space), generator=generator)
        field = field + F.interpolate(coarse, size=tuple(space), mode=mode)
    return field[0] / 3**0.5


def _pooled(energy: Tensor, layout: Layout) -> Tensor:
    """The answers `[cell, *space]`, summed over the patches under the cells; their sum is 1."""
    for axis, (cells, (first, last)) in enumerate(zip(layout.grid, layout.extent, strict=True), 1):
        length = energy.shape[axis]
        centres = (torch.arange(length) + 0.5) / length
        number = ((centres - first) / (last - first) * cells).floor().long()
        patches = F.one_hot(number.clamp(0, cells - 1), cells).double()
        energy = (energy.movedim(axis, -1) @ patches).movedim(-1, axis)
    total = energy.flatten(1).sum(1).view(-1, *[1] * (energy.ndim - 1))
    return energy / total.clamp(min=torch.finfo(energy.dtype).tiny)


def _answers(shares: Tensor, cells: Sequence[tuple[int, ...]]) -> Tensor:
    """Each cell's strongest answer within a cell of its place (or 8 % of the grid), and anywhere.

    What all cells have in common (a global gate, a class token) is removed.
    """
    own = shares - shares.mean(0) if len(cells) > 1 else shares
    answers = []
    for row, cell, answered in zip(own, cells, shares.flatten(1).any(1), strict=True):
        near = row
        for axis, (place, length) in enumerate(zip(cell, row.shape, strict=True)):
            slack = max(1, round(0.08 * length))
            near = near.narrow(axis, *_interval(place - slack, place + slack + 1, length))
        answers.append(near.max() / row.max() if answered else row.new_tensor(torch.nan))
    return torch.stack(answers)


def _interval(first: int, last: int, length: int) -> tuple[int, int]:
    """The start and the length of the part of an interval that lies in [0, length)."""
    first, last = max(first, 0), min(last, length)
    return first, last - first
