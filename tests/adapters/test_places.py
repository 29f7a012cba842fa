"""Where the cells of every layer look that a family offers: measured at the pixels."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

import mmcam
from mmcam.capture.layout import Layout
from mmcam.capture.proof import follow_layers
from mmcam.types import Inputs, Sample
from tests.adapters import tiny, tiny_models
from tests.adapters.tiny import Tiny
from tests.capture.measuring import measure

LAYERS = 8
"""How many layers of each model are measured, evenly spaced."""


def proven(adapter: Any, space: tuple[int, ...]) -> tuple[Inputs, dict[str, Layout]]:
    """Inputs of this size, and the layouts of all layers with a grid of at least 2 x 2 cells."""
    pixels = np.random.default_rng(0).integers(0, 256, (*space, 3), dtype=np.uint8)
    inputs = adapter.prepare([Sample(pixels=pixels)], mmcam.Classes())
    proofs = follow_layers(adapter, inputs)
    return inputs, {k: v for k, v in proofs.items() if isinstance(v, Layout) and v.is_spatial}


@pytest.mark.parametrize("case", tiny_models.EVERY, ids=str)
def test_cells_answer_to_their_place_and_to_their_sample(case: Tiny) -> None:
    adapter = case.build(tiny.lively)
    inputs, layouts = proven(adapter, case.space)
    assert layouts
    names = list(layouts)[:: max(1, len(layouts) // LAYERS)]
    check(adapter, inputs, {name: layouts[name] for name in names}, 2)


@pytest.mark.parametrize("name", ["torchvision-resnet18", "torchvision-swin_t", "hf-hiera"])
def test_the_measure_finds_cells_in_a_wrong_order(name: str) -> None:
    (case,) = [case for case in tiny_models.EVERY if str(case) == name]
    adapter = case.build(tiny.lively)
    inputs, layouts = proven(adapter, case.space)
    order = torch.Generator().manual_seed(0)
    wrong = {}
    for layer in list(layouts)[:: max(1, len(layouts) // 4)]:
        cells = layouts[layer].cells.flatten()
        shuffled = cells[torch.randperm(len(cells), generator=order)]
        wrong[layer] = replace(layouts[layer], cells=shuffled.view(layouts[layer].grid))
    shares = [result.misplaced for result in measure(adapter, inputs, wrong).values()]
    # In late layers the cells' windows overlap, so that some lie near their place again.
    assert min(shares) > 0.15
    assert sum(shares) / len(shares) > 0.4


@pytest.mark.slow
@pytest.mark.parametrize("samples", [1, 2])
@pytest.mark.parametrize("case", tiny_models.EVERY, ids=str)
def test_cells_of_all_layers_answer_to_their_place(case: Tiny, samples: int) -> None:
    adapter = case.build(tiny.lively)
    check(adapter, *proven(adapter, case.space), samples)


def check(adapter: Any, inputs: Inputs, layouts: dict[str, Layout], samples: int) -> None:
    measured = measure(adapter, inputs, layouts, samples=samples)
    wrong = {
        layer: result
        for layer, result in measured.items()
        if result.misplaced > 0.34 or result.leaks
    }
    assert not wrong
