"""Which layers of a model have a grid, found by running it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from mmcam.capture.layers import map_tensor
from mmcam.capture.model_state import untouched
from mmcam.errors import LayerError, MmcamError
from mmcam.types import Adapter, Inputs


class SpatialLayer(NamedTuple):
    """A layer that still has a grid over the input."""

    name: str
    channels: int
    grid: tuple[int, ...]


def spatial_layers(adapter: Adapter, inputs: Inputs) -> list[SpatialLayer]:
    """The layers with a grid of at least 2 x 2 cells, in the order in which they finish.

    A container stands right behind the last layer inside it. Modules that run more than once are
    listed by their last call. Costs one forward.
    """
    found: dict[str, SpatialLayer] = {}
    names = {module: name for name, module in adapter.model.named_modules() if name}

    def look(module: nn.Module, args: object, output: object) -> None:
        def note(tensor: Tensor) -> Tensor:
            try:
                folded = adapter.grid(names[module], tensor, inputs)
            except MmcamError:
                return tensor
            if min(folded.shape[-2:]) > 1:
                found.pop(names[module], None)
                found[names[module]] = SpatialLayer(
                    names[module], folded.shape[1], tuple(folded.shape[2:])
                )
            return tensor

        map_tensor(output, note)

    handles = [module.register_forward_hook(look) for module in names]
    try:
        with untouched(adapter.model), torch.no_grad():
            adapter.forward(inputs.copied())
    finally:
        for handle in handles:
            handle.remove()
    return list(found.values())


def default_layer(adapter: Adapter, inputs: Inputs) -> str:
    """The layer to explain where nobody named one: the last with a grid, as a whole block.

    Of the layers that finish with the last grid the outermost is taken (a stage rather than the
    ReLU that ends it), but neither pooling nor dropout.

    Raises:
        LayerError: no layer has a grid.
    """
    layers = spatial_layers(adapter, inputs)
    skipped = ("Pool", "Dropout", "Identity", "Flatten")
    for layer in reversed(layers):
        kind = type(adapter.model.get_submodule(layer.name)).__name__
        if not any(word in kind for word in skipped):
            return layer.name
    raise LayerError(
        f"no layer of {adapter.name} has a grid over its input, so there is nothing to explain; "
        "name one with layers=[...] and give its grid with mmcam.wrap(..., grid=...)"
    )
