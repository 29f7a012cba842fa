"""A classifier split in two: a trunk that computes maps, and a head that pools them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx, nn

from mmcam.errors import ModelError


def split_cnn(model: nn.Module, layer: str | None, name: str) -> tuple[nn.Module, nn.Module]:
    """Split a classifier after `layer`: a trunk from pictures to maps, a head from maps to vectors.

    A vector is the input of the last linear layer: pooled features (ResNet, Inception), or fc7
    (AlexNet, VGG), as NeuralTalk2 and Lu et al. 2015 use them. Both parts share the model's
    weights, and the model is put in evaluation mode. timm's models are split by their own methods,
    `forward_features` and `forward_head`.

    Args:
        model: an image classifier of torchvision or timm.
        layer: the layer to split after; every path from the picture to the score contains it. Not
            used for timm's models; None if the model has no default layer.
        name: the model's name in errors.

    Raises:
        ModelError: the model cannot be split there.
    """
    model.eval()
    if hasattr(model, "forward_features") and hasattr(model, "forward_head"):
        return _Features(model), _PreLogits(model)
    if layer is None:
        raise ModelError(
            f"{name} has no default layer to split it after; choose a convolutional network of "
            'torchvision or timm as the cnn, or name its "layer" in mmcam.json'
        )
    linears = [path for path, module in model.named_modules() if isinstance(module, nn.Linear)]
    try:
        nodes = list(_Tracer(layer, *linears[-1:]).trace(model).nodes)
    except Exception as error:
        raise ModelError(
            f"{name} cannot be split ({error}); choose a convolutional network of torchvision or "
            "timm as the cnn"
        ) from error
    calls = {str(node.target): i for i, node in enumerate(nodes) if node.op == "call_module"}
    split, last = calls.get(layer), calls.get(linears[-1]) if linears else None
    if split is None or last is None or last < split:
        raise ModelError(
            f"{name} has no linear layer after '{layer}', so there is no pooled vector for a "
            "captioner; choose another cnn or layer"
        )
    trunk = _subgraph(model, nodes[: split + 1], None, nodes[split])
    head = _subgraph(model, nodes[split + 1 : last], nodes[split], nodes[last].args[0])
    return trunk, head


class _Tracer(fx.Tracer):
    """Traces modules as leaves, except those that contain one of `paths`."""

    def __init__(self, *paths: str) -> None:
        super().__init__()
        self.parents = {path[:i] for path in paths for i, c in enumerate(path) if c == "."}

    def is_leaf_module(self, module: nn.Module, path: str) -> bool:
        return path not in self.parents


def _subgraph(
    model: nn.Module, nodes: list[fx.Node], start: fx.Node | None, end: Any
) -> fx.GraphModule:
    """The part of a traced model given by `nodes`, from `start` (None: the input) to `end`.

    Raises:
        ModelError: the part depends on a node before `start`.
    """
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    if start is not None:
        copies[start] = graph.placeholder("maps")
    try:
        for node in nodes:
            copies[node] = graph.node_copy(node, lambda original: copies[original])
    except KeyError as error:
        raise ModelError(
            f"layer '{start}' is not on every path to the score ('{error.args[0]}' bypasses it); "
            "choose a later layer"
        ) from error
    graph.output(copies[end])
    part = fx.GraphModule(model, graph)
    part.graph.eliminate_dead_code()
    part.delete_all_unused_submodules()
    part.recompile()
    return part


class _Features(nn.Module):
    """`forward_features` of a timm model: the map before the pooling."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, pixels: Tensor) -> Tensor:
        features: Tensor = self.net.forward_features(pixels)  # type: ignore[operator]
        return features


class _PreLogits(nn.Module):
    """`forward_head` of a timm model without the classifier; `_Features` owns the weights."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self._net = (net,)

    def forward(self, maps: Tensor) -> Tensor:
        vector: Tensor = self._net[0].forward_head(maps, pre_logits=True)  # type: ignore[operator]
        return vector


def feature_sizes(trunk: nn.Module, head: nn.Module, side: int) -> tuple[int, int]:
    """The number of channels of the map, and the length of the vector, for `side` x `side` pixels.

    Both parts must be in evaluation mode, as `split_cnn` returns them.
    """
    with torch.no_grad():
        parameter = next(trunk.parameters())
        maps = trunk(parameter.new_zeros(1, 3, side, side))
        return maps.shape[1], head(maps).shape[1]
