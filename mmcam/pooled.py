"""The mean of a gradient over a grid, without the gradient in every cell of it.

Grad-CAM weighs a channel by its mean gradient (Selvaraju et al. 2020, eq. 1). Where a map goes
straight into a linear layer, y = W x + b in each cell, the gradient at x is W^T times that at y, so
the mean over the cells is W^T times the mean at y: one product of a vector instead of one in every
cell. A decoder that attends to a picture's tokens has two such layers (keys, values) in each of
its layers, and most of its backward pass is spent in them.

So each linear layer that is given the map itself is cut off from it: its output becomes a start of
the graph, a "reader" of the map. Whatever else is done with the map is differentiated as ever.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mmcam.errors import ScoreError

Pool = Callable[[Tensor], Tensor]
"""What a layer gives `[row, *layout]` -> its mean over the grid `[row, channel]`."""


class Reader(NamedTuple):
    """A linear layer that is given a map: which map, the layer's weight, and what it gave."""

    layer: str
    weight: Tensor
    output: Tensor


@dataclass
class Pooled:
    """Layers whose gradient is asked for as its mean over the grid, and what reads their maps."""

    pools: Mapping[str, Pool]
    readers: list[Reader] = field(default_factory=list)
    handed: list[tuple[str, Tensor]] = field(default_factory=list)

    def hand(self, layer: str, tensor: Tensor) -> Tensor:
        """The start of the graph as it goes on from its layer, to be known again in a reader."""
        if layer in self.pools:
            self.handed.append((layer, tensor))
        return tensor

    @contextmanager
    def watched(self, model: nn.Module) -> Iterator[None]:
        """Inside, linear layers are looked at as they run; those changed by somebody are not."""
        # First of a layer's hooks: the others see the new start of the graph.
        hooks = [
            module.register_forward_hook(self._seen, prepend=True)
            for module in model.modules()
            if type(module) is nn.Linear and "forward" not in vars(module)
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _seen(self, module: nn.Linear, args: Any, output: Tensor) -> Tensor | None:
        for layer, tensor in self.handed:
            if args and args[0] is tensor and not tensor._version:  # not written on meanwhile
                start = output.detach().requires_grad_(True)
                self.readers.append(Reader(layer, module.weight, start))
                return start.clone()  # what comes next may work in place
        return None

    def mean(self, layer: str, own: Tensor | None, read: Sequence[Tensor | None]) -> Tensor | None:
        """A layer's mean gradient `[slot, row, channel]`, of gradients `[slot, row, *layout]`.

        Args:
            layer: the layer.
            own: the gradient at its map, past the readers; None where nothing leads there.
            read: the gradient at each reader of `readers`, likewise.

        Raises:
            ScoreError: the score reaches the layer, but no cell of its grid.
        """
        found: list[tuple[Tensor, Tensor | None]] = [] if own is None else [(own, None)]
        found += [
            (gradient, reader.weight)
            for reader, gradient in zip(self.readers, read, strict=True)
            if reader.layer == layer and gradient is not None
        ]
        if not found:
            return None
        parts = []
        for gradient, weight in found:
            pooled = torch.stack([self.pools[layer](one) for one in gradient])
            parts.append(pooled if weight is None else pooled @ weight.to(pooled.dtype))
        mean = torch.stack(parts).sum(0)
        empty = ~mean.flatten(1).any(1)
        if any(gradient[empty].any() for gradient, _ in found):
            raise off_grid(layer)
        return mean


def off_grid(layer: str) -> ScoreError:
    """What is said where the score reaches a layer, but no cell of its grid."""
    return ScoreError(
        f"the score reaches layer '{layer}' through its class token alone, so its grid has no "
        "gradient; explain an earlier layer, such as the norm before the last attention"
    )
