"""Captioners of transformers: their image inputs, and the grids over them."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mmcam.adapters.transformers.generation import GenerativeAdapter
from mmcam.capture.recording import capture
from mmcam.tasks import Caption
from mmcam.types import Sample
from tests.adapters.tiny_generative import (
    CASES,
    GIVEN,
    TinyModel,
    adapter_of,
    case_of,
    picture,
    prepared,
    reference_arguments,
)

all_cases = pytest.mark.parametrize("case", CASES, ids=str)


def quiet(adapter: GenerativeAdapter) -> GenerativeAdapter:
    """The adapter with a model that hardly mixes the positions of the picture."""
    model = copy.deepcopy(adapter.model)
    for vision_module in adapter.model_type.vision_modules:
        for name, parameter in model.get_submodule(vision_module).named_parameters():
            if any(word in name for word in ("attn", "attention", "conv1", "conv2")):
                parameter.data *= 0.03
    return replace(adapter, model=model)


def lit(sample: Sample, cell: tuple[int, int], grid: Sequence[int], box: Any) -> Sample:
    """The picture with one cell of a grid over `box` in white."""
    left, top, right, bottom = box
    height, width = (bottom - top) / grid[0], (right - left) / grid[1]
    rows = slice(max(round(top + cell[0] * height), 0), round(top + (cell[0] + 1) * height))
    columns = slice(max(round(left + cell[1] * width), 0), round(left + (cell[1] + 1) * width))
    pixels = sample.pixels.copy()
    pixels[rows, columns] = 255
    assert rows.stop - rows.start > 2
    return Sample(pixels=pixels)


def dim(size: tuple[int, int]) -> Sample:
    return Sample(pixels=picture(size).pixels // 4)


@pytest.mark.parametrize("transposed", [False, True])
@all_cases
def test_a_lit_patch_lights_its_own_cell(case: TinyModel, transposed: bool) -> None:
    """On the picture's own pixels, through the processor: cells, tiles and placement at once."""
    adapter = quiet(adapter_of(case))
    height, width = (3 * side for side in case.size)
    sample = dim((width, height) if transposed else (height, width))
    for layer in (case.layer, adapter.layers[0]):

        def layer_grid(picture_sample: Sample, layer: str = layer) -> tuple[Tensor, Any]:
            inputs = prepared(adapter, picture_sample, Caption(GIVEN))
            with capture(adapter.model, [layer]) as (recording, check):
                adapter.forward(inputs)
                check()
            return adapter.grid(layer, recording.activation(layer), inputs)[0], inputs

        dark, inputs = layer_grid(sample)
        grid = tuple(dark.shape[1:])
        assert min(grid) > 1
        cells = [(0, 0), (grid[0] - 1, 1), (1, grid[1] - 1), (grid[0] // 2, grid[1] // 2 - 1)]
        tiling = inputs.rest.get("tile_layout", [None])[0]
        parts = 2 if tiling is not None and tiling.global_view is not None else 1
        for cell in cells:
            if tiling is not None and _is_padding(cell, grid, inputs.placements[0]):
                continue
            bright, _ = layer_grid(lit(sample, cell, grid, inputs.placements[0].box))
            for part in (bright - dark).chunk(parts):
                change = part.abs().sum(0)
                assert _near(change, cell, case.slack) >= 0.99 * change.max(), (layer, cell, change)


def _near(change: Tensor, cell: tuple[int, int], slack: int) -> Tensor:
    """The largest change at most `slack` cells off."""
    rows, columns = (slice(max(index - slack, 0), index + slack + 1) for index in cell)
    return change[rows, columns].max()


def _is_padding(cell: tuple[int, int], grid: Sequence[int], placement: Any) -> bool:
    """Whether less than half of a cell lies on the picture."""
    left, top, right, bottom = placement.box
    height, width = (bottom - top) / grid[0], (right - left) / grid[1]
    y, x = top + (cell[0] + 0.5) * height, left + (cell[1] + 0.5) * width
    return not (0 < y < placement.size[0] and 0 < x < placement.size[1])


@pytest.mark.parametrize("case", [case for case in CASES if case.has_attention], ids=str)
def test_tokens_that_the_text_attends_to_lie_on_their_place(case: TinyModel) -> None:
    """Of the tokens that the text attends to, the one of a lit patch changes most."""
    adapter = quiet(adapter_of(case))
    sample = dim((3 * case.size[0], 3 * case.size[1]))

    def image_tokens(picture_sample: Sample) -> tuple[Tensor, Any]:
        inputs = prepared(adapter, picture_sample, Caption(GIVEN))
        model: Any = adapter.model
        with torch.no_grad():
            if adapter.model_type.feed == "interleaved":
                features = model.get_image_features(**adapter.images.model_arguments(inputs))
                return next(iter(features.pooler_output)), inputs
            return adapter._encoder(**adapter.images.model_arguments(inputs))[0][0], inputs

    dark, inputs = image_tokens(sample)

    def token_grid(tokens: Tensor) -> Tensor:
        grid: Tensor = adapter.images.attention_to_grid(
            tokens[None, :, None], inputs, adapter.model_type.attended_prefix
        )
        return grid[0]

    shares = torch.softmax(torch.randn(len(dark)), 0)
    grid = token_grid(shares)
    assert 0.3 < grid.sum() <= 1 + 1e-5
    tiling = inputs.rest.get("tile_layout", [None])[0]
    for cell in [(0, 0), (1, grid.shape[1] - 1), (grid.shape[0] - 1, 1)]:
        if tiling is not None and _is_padding(cell, grid.shape, inputs.placements[0]):
            continue
        bright, _ = image_tokens(lit(sample, cell, grid.shape, inputs.placements[0].box))
        change = token_grid((bright - dark).abs().sum(1))
        assert _near(change, cell, case.slack) >= 0.99 * change.max(), (cell, change)


@all_cases
def test_the_model_gets_the_picture_as_the_processor_makes_it(case: TinyModel) -> None:
    adapter, sample = adapter_of(case), picture((3 * case.size[0], 2 * case.size[1]))
    inputs = prepared(adapter, sample, Caption(GIVEN))
    arguments = adapter.images.model_arguments(inputs)
    expected = reference_arguments(adapter, sample)
    for key in ("pixel_values", "image_sizes", "image_grid_thw"):
        assert (key in arguments) == (key in expected)
        if key in arguments:
            torch.testing.assert_close(arguments[key], expected[key])
    assert inputs.pixels.shape[:2] == (1, 3)
    pixels = inputs.pixels.double().requires_grad_(True)
    again = adapter.images.model_arguments(replace(inputs, pixels=pixels))["pixel_values"]
    (gradient,) = torch.autograd.grad(again.sum(), pixels)
    assert (gradient > 0).all()


@pytest.mark.parametrize("size", [(200, 100), (100, 200), (97, 131), (64, 64), (50, 260)])
@pytest.mark.parametrize("name", ["git", "llava_next", "qwen2_vl", "idefics3", "paligemma"])
def test_the_input_lies_where_its_placement_says(name: str, size: tuple[int, int]) -> None:
    """Ramps through the processor: the pixel values of a cell encode its position."""
    adapter = adapter_of(case_of(name))
    height, width = size
    y, x = np.mgrid[:height, :width]
    ramps = np.stack([255 * (y + 0.5) / height, 255 * (x + 0.5) / width, 0 * x], -1)
    inputs = prepared(adapter, Sample(pixels=ramps.round().astype(np.uint8)), Caption(GIVEN))
    image_processor = adapter.processor.image_processor
    mean, std = (torch.tensor(getattr(image_processor, key)) for key in ("image_mean", "image_std"))
    pixels = inputs.pixels[0]
    flat = pixels.flatten(1) * std[:, None] + mean[:, None]
    values = flat.view_as(pixels)[:2]
    tiling = inputs.rest.get("tile_layout", [None])[0]
    left, top, right, bottom = inputs.placements[0].box
    if tiling is not None and tiling.global_view is not None:
        tiles = values[:, [i for i in range(values.shape[1]) if i != tiling.global_view]]
        tiles = tiles.unflatten(1, (tiling.rows, tiling.columns)).permute(0, 1, 3, 2, 4)
        values = tiles.flatten(1, 2).flatten(2, 3)
        row_slice, column_slice = tiling.unpadded(values.shape[1] // 8, values.shape[2] // 8)
        values = values[
            :,
            8 * row_slice.start : 8 * row_slice.stop,
            8 * column_slice.start : 8 * column_slice.stop,
        ]
    elif tiling is not None:
        values = values[:, 0]
    rows, columns = values.shape[1:]
    middle = slice(columns // 2 - 2, columns // 2 + 2)
    measured = values[0, :, middle].mean(1) * height
    expected = top + (torch.arange(rows) + 0.5) / rows * (bottom - top)
    inner = (expected > 0.1 * height) & (expected < 0.9 * height)
    assert inner.sum() > 4
    assert (measured - expected)[inner].abs().max() < max(1.5, 0.02 * height)
    middle = slice(rows // 2 - 2, rows // 2 + 2)
    measured = values[1, middle].mean(0) * width
    expected = left + (torch.arange(columns) + 0.5) / columns * (right - left)
    inner = (expected > 0.1 * width) & (expected < 0.9 * width)
    assert inner.sum() > 4
    assert (measured - expected)[inner].abs().max() < max(1.5, 0.02 * width)


@pytest.mark.parametrize("name", ["idefics3", "llava_next"])
def test_a_map_of_views_is_the_sum_of_theirs(name: str) -> None:
    """Grad-CAM of the tiles and of the whole picture, each with all cells of the grid."""
    case = case_of(name)
    adapter = adapter_of(case)
    inputs = prepared(adapter, picture((64, 64)), Caption(GIVEN))
    layer = adapter.layers[0]
    with capture(adapter.model, [layer]) as (recording, check):
        output = adapter.forward(inputs)
        check()
        (targets,) = adapter.targets(output, Caption(GIVEN, words=[]))
        (gradient,) = (g[layer] for g in recording.gradients(targets[0].score(output)[None]))
    activation = recording.activation(layer)
    tiling = inputs.rest["tile_layout"][0]
    tiles = [i for i in range(5) if i != tiling.global_view]
    maps, gradient_grid = [], adapter.grid(layer, gradient, inputs)
    for views in (tiles, [tiling.global_view]):
        weights = gradient[views].sum((0, 1)) / (gradient_grid.shape[-2] * gradient_grid.shape[-1])
        maps.append((activation[views] @ weights).view(len(views), 4, 4))
    canvas = maps[0].view(2, 2, 4, 4).permute(0, 2, 1, 3).reshape(8, 8)
    expected = canvas + maps[1][0].repeat_interleave(2, 0).repeat_interleave(2, 1)
    weights = gradient_grid.mean((2, 3))
    cam = torch.einsum("bc,bchw->bhw", weights, adapter.grid(layer, activation, inputs))
    torch.testing.assert_close(cam[0], expected)
