"""Find the layers of a model that have a grid, and the one to explain by default."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from mmcam.capture.forward import run_model
from mmcam.capture.layers import map_tensor, recordable_layers, tapped, unrecordable
from mmcam.capture.model_state import untouched
from mmcam.errors import LayerError, MmcamError, ScoreError, reason_of
from mmcam.types import Adapter, Inputs, SpatialLayer

Score = Callable[[Any], Tensor]
"""A function from a model's output to one number with a gradient."""


def spatial_layers(adapter: Adapter, inputs: Inputs) -> Sequence[SpatialLayer]:
    """The layers with a grid of at least 2 x 2 cells, in the order in which they finish.

    A container comes directly after the last layer inside it. A module that runs more than once is
    listed by its last call. The model runs at least once.

    Raises:
        ModelError: the model fails on the inputs.
    """
    if adapter.layouts is not None and (proven := adapter.layouts.spatial(adapter, inputs)):
        return proven
    layers: dict[str, SpatialLayer] = {}
    names = {module: name for name, module in recordable_layers(adapter.model).items()}

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
            run_model(adapter, inputs.copied())
    finally:
        for handle in handles:
            handle.remove()
    return list(layers.values())


def default_layer(
    adapter: Adapter,
    inputs: Inputs,
    score: Score | None = None,
    layers: Sequence[SpatialLayer] | None = None,
    *,
    whole_batch: bool = False,
) -> str:
    """The layer to explain by default: the last block with a grid that the score depends on.

    Among the layers that finish together, the outermost is chosen (a stage rather than the ReLU at
    its end). Pooling, dropout, identity, flatten and linear layers are skipped. Dependence on the
    score is checked only if the adapter has `layouts`.

    Args:
        adapter: the model.
        inputs: inputs of any samples.
        score: the score to explain; the highest logit when None.
        layers: what `spatial_layers` returns for these inputs; found when None.
        whole_batch: run all rows for the score, not the first one alone.

    Raises:
        LayerError: no layer has a grid.
        ModelError: as `spatial_layers`, if `layers` is None.
    """
    skipped = ("Pool", "Dropout", "Identity", "Flatten", "Linear")
    names = []
    for layer in reversed(spatial_layers(adapter, inputs) if layers is None else layers):
        module = adapter.model.get_submodule(layer.name.partition("#")[0])
        if not any(word in type(module).__name__ for word in skipped):
            names.append(layer.name)
    if not names:
        if reason := unrecordable(adapter.model):
            raise LayerError(
                f"no layer of {adapter.name} can be explained, because a part of it {reason}"
            )
        raise LayerError(
            f"no layer of {adapter.name} has a grid over its input, so there is nothing to "
            "explain; name one with layers=[...] and give its grid with mmcam.wrap(..., grid=...)"
        )
    if adapter.layouts is None:
        return names[0]
    probed = inputs if whole_batch else inputs.row(0)
    return next(iter(_with_gradient(adapter, probed, names, score)), names[0])


def _with_gradient(
    adapter: Adapter, inputs: Inputs, names: Sequence[str], score: Score | None
) -> list[str]:
    """The layers on whose grid the score has a nonzero gradient, in order; empty on failure."""
    inputs = replace(inputs, pixels=inputs.pixels.detach().clone())
    outputs: dict[str, Tensor] = {}

    def keep(layer: str, tensor: Tensor) -> Tensor:
        # A copy: a container that returns a map beside its pooled values does not pool the copy.
        outputs[layer] = tensor.clone()
        return outputs[layer]

    try:
        with untouched(adapter.model), tapped(adapter.model, names, keep):
            inputs.pixels.requires_grad_(True)
            output = run_model(adapter, inputs)
            value = adapter.logits(output).amax(1).sum() if score is None else _value(score, output)
            ran = list(outputs)
            gradients = torch.autograd.grad(value, list(outputs.values()), allow_unused=True)
            with torch.no_grad():
                reached = {
                    layer
                    for layer, gradient in zip(ran, gradients, strict=True)
                    if gradient is not None and adapter.grid(layer, gradient, inputs).any()
                }
    except (RuntimeError, MmcamError):  # the later explanation reports the error
        return []
    return [name for name in names if name in reached]


def _value(score: Score, output: Any) -> Tensor:
    """The score.

    Raises:
        ScoreError: the score, which may be a user's function, fails.
    """
    try:
        return score(output)
    except Exception as error:
        raise ScoreError(f"the score fails ({reason_of(error)}); fix Target.score") from error
