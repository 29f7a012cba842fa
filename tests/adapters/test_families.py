"""Every family's grid lies over its input, and its default layer gives a map."""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping

import pytest
import torch
from torch import Tensor

from mmcam.adapters.base.classifier import Classifier
from mmcam.adapters.transformers.classifiers import CLASSIFIER_TYPES
from mmcam.capture.layers import resolve
from mmcam.capture.recording import capture
from mmcam.types import Inputs
from tests.adapters import tiny_models
from tests.adapters.tiny import Tiny

PATCHES = 8
"""How many patches of a grid are lit, one at a time."""


def grids(adapter: Classifier, layers: list[str], pixels: Tensor) -> Mapping[str, Tensor]:
    """The layers' outputs for these pixels, as the adapter's grids."""
    inputs = Inputs(pixels=pixels, placements=())
    with capture(adapter.model, layers) as (recording, check):
        adapter.forward(inputs)
        check()
    return {layer: adapter.grid(layer, recording.activation(layer), inputs) for layer in layers}


def light_patch(pixels: Tensor, cell: tuple[int, ...], grid: tuple[int, ...]) -> Tensor:
    """The pixels, brighter in the patch under one cell."""
    patch = [
        slice(index * side // cells, (index + 1) * side // cells)
        for index, side, cells in zip(cell, pixels.shape[2:], grid, strict=True)
    ]
    changed = pixels.clone()
    changed[(slice(None), slice(None), *patch)] += 3
    return changed


@pytest.mark.parametrize("case", tiny_models.EVERY, ids=str)
def test_a_lit_patch_changes_its_own_cell_most(case: Tiny) -> None:
    adapter = case.build()
    layers = resolve(adapter.model, [case.layer] if case.layer else adapter.layers)
    torch.manual_seed(1)
    pixels = torch.randn(1, 3, *case.space)
    for layer, dark in grids(adapter, layers, pixels).items():
        grid = tuple(dark.shape[2:])
        assert len(grid) == len(case.space)
        assert min(grid[-2:]) > 1 + case.slack
        cells = list(itertools.product(*map(range, grid)))
        cells = random.Random(0).sample(cells, min(PATCHES, len(cells)))
        bright = grids(
            adapter, layers, torch.cat([light_patch(pixels, cell, grid) for cell in cells])
        )
        change = (bright[layer] - dark).abs().sum(1)
        for cell, changed in zip(cells, change, strict=True):
            strongest = torch.unravel_index(changed.argmax(), grid)
            distance = max(abs(int(a) - b) for a, b in zip(strongest, cell, strict=True))
            assert distance <= case.slack, (
                f"patch {cell} lights {tuple(map(int, strongest))} of {grid}"
            )


def test_every_known_type_of_transformers_is_probed() -> None:
    assert set(CLASSIFIER_TYPES) <= {case.name for case in tiny_models.EVERY if case.family == "hf"}
