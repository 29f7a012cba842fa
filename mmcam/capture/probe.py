"""Find the layers of a model that have a grid, by one forward."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from mmcam.capture.layers import map_tensor
from mmcam.capture.model_state import untouched
from mmcam.errors import LayerError, MmcamError
from mmcam.types import Adapter, Inputs


class SpatialLayer(NamedTuple):
    """A layer whose output has a grid over the input."""

    name: str
    channels: int
    grid: tuple[int, ...]


def spatial_layers(adapter: Adapter, inputs: Inputs) -> list[SpatialLayer]:
    """The layers with a grid of at least 2 x 2 cells, in the order in which they finish.

    A container comes directly after the last layer inside it. A module that runs more than once is
    listed by its last call. Costs one forward.
    """
    layers: dict[str, SpatialLayer] = {}
    names = {module: name for name, module in adapter.model.named_modules() if name}

    def hook(module: nn.Module, args: object, output: object) -> None:
        name = names[module]

        def add(tensor: Tensor) -> Tensor:
            try:
                grid = adapter.grid(name, tensor, inputs)
            except MmcamError:
                return tensor
            if min(grid.shape[-2:]) > 1:
                layers.pop(name, None)  # the last call decides the order
                layers[name] = SpatialLayer(name, grid.shape[1], tuple(grid.shape[2:]))
            return tensor

        map_tensor(output, add)

    handles = [module.register_forward_hook(hook) for module in names]
    try:
        with untouched(adapter.model), torch.no_grad():
            adapter.forward(inputs.copied())
    finally:
        for handle in handles:
            handle.remove()
    return list(layers.values())


def default_layer(adapter: Adapter, inputs: Inputs) -> str:
    """The layer to explain by default: the last block with a grid.

    Of the layers that finish with the last grid, the outermost is taken (a stage rather than the
    ReLU at its end), except pooling and dropout.

    Raises:
        LayerError: no layer has a grid.
    """
    layers = spatial_layers(adapter, inputs)
    skipped = ("Pool", "Dropout", "Identity", "Flatten")
    for layer in reversed(layers):
        class_name = type(adapter.model.get_submodule(layer.name)).__name__
        if not any(word in class_name for word in skipped):
            return layer.name
    raise LayerError(
        f"no layer of {adapter.name} has a grid over its input, so there is nothing to explain; "
        "name one with layers=[...] and give its grid with mmcam.wrap(..., grid=...)"
    )
