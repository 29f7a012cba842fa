"""A classifier cut in two: the part that makes a map of a picture, and the part that pools it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx, nn

from mmcam.errors import ModelError


def halves(model: nn.Module, layer: str, name: str) -> tuple[nn.Module, nn.Module]:
    """A classifier cut at `layer`: pictures to maps, and maps to the vector that it classifies.

    The vector is what the last linear layer is given: pooled features (ResNet, Inception), or fc7
    (AlexNet, VGG), as NeuralTalk2 and Lu et al. 2015 use them. Both parts share the model's own
    weights. timm's models say themselves where they are to be cut.

    Args:
        model: an image classifier of torchvision or timm.
        layer: the layer to cut at; it must be the only way from the picture to the score.
        name: what errors call the model.

    Raises:
        ModelError: the model cannot be cut there.
    """
    model.eval()
    if hasattr(model, "forward_features") and hasattr(model, "forward_head"):
        return _Features(model), _PreLogits(model)
    linears = [path for path, module in model.named_modules() if isinstance(module, nn.Linear)]
    try:
        nodes = list(_Tracer(layer, *linears[-1:]).trace(model).nodes)
    except Exception as error:
        raise ModelError(
            f"{name} cannot be taken apart ({error}); choose a convolutional network of "
            "torchvision or timm as the cnn"
        ) from error
    called = {str(node.target): i for i, node in enumerate(nodes) if node.op == "call_module"}
    cut, last = called.get(layer), called.get(linears[-1]) if linears else None
    if cut is None or last is None or last < cut:
        raise ModelError(
            f"{name} has no linear layer behind '{layer}', so nothing can be pooled for a "
            "captioner; choose another cnn or layer"
        )
    trunk = _part(model, nodes[: cut + 1], None, nodes[cut])
    head = _part(model, nodes[cut + 1 : last], nodes[cut], nodes[last].args[0])
    return trunk, head


class _Tracer(fx.Tracer):
    """Sees modules as wholes, but for those that hold one of `paths` inside."""

    def __init__(self, *paths: str) -> None:
        super().__init__()
        self.opened = {path[:i] for path in paths for i, c in enumerate(path) if c == "."}

    def is_leaf_module(self, module: nn.Module, path: str) -> bool:
        return path not in self.opened


def _part(
    model: nn.Module, nodes: list[fx.Node], begins: fx.Node | None, ends: Any
) -> fx.GraphModule:
    """The part of a traced model that `nodes` make, from `begins` (the input if None) to `ends`.

    Raises:
        ModelError: it needs something from before.
    """
    graph = fx.Graph()
    known: dict[fx.Node, fx.Node] = {}
    if begins is not None:
        known[begins] = graph.placeholder("maps")
    try:
        for node in nodes:
            known[node] = graph.node_copy(node, lambda old: known[old])
    except KeyError as error:
        raise ModelError(
            f"layer '{begins}' is not the only way to the score ('{error.args[0]}' leads past it); "
            "choose a later layer"
        ) from error
    graph.output(known[ends])
    part = fx.GraphModule(model, graph)
    part.graph.eliminate_dead_code()
    part.delete_all_unused_submodules()
    part.recompile()
    return part


class _Features(nn.Module):
    """timm's own features: the map before the pooling."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, pixels: Tensor) -> Tensor:
        features: Tensor = self.net.forward_features(pixels)  # type: ignore[operator]
        return features


class _PreLogits(nn.Module):
    """timm's own head up to the classifier. It owns no weights: they are those of the features."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self._net = (net,)

    def forward(self, maps: Tensor) -> Tensor:
        vector: Tensor = self._net[0].forward_head(maps, pre_logits=True)  # type: ignore[operator]
        return vector


def width(trunk: nn.Module, head: nn.Module, side: int) -> tuple[int, int]:
    """How many channels the map of a picture of `side` pixels has, and how long its vector is.

    The parts are in evaluation mode, as `halves` leaves them.
    """
    with torch.no_grad():
        parameter = next(trunk.parameters())
        maps = trunk(parameter.new_zeros(1, 3, side, side))
        return maps.shape[1], head(maps).shape[1]
