"""The mean of a gradient over a grid, without the gradient in every cell of it.

Grad-CAM weighs a channel by its mean gradient (Selvaraju et al. 2020, eq. 1). Two kinds of linear
layers behind a map give that mean for less:

- One that is given the map itself, y = W x + b in each cell. The gradient at x is W^T times that
  at y, so the mean over the cells is W^T times the mean at y: one product of a vector instead of
  one in every cell. A decoder that attends to a picture's tokens has two such layers (keys,
  values) in each of its layers, and most of its backward pass is spent in them.
- One that is given all cells as one vector, maybe of a pooled map, as in AlexNet, VGG and C3D. Its
  W is nearly the whole network. Pooling leaves the sum of a channel's gradient as it is, for a
  maximum hands it on to one cell and an average shares it out; so the sum at x is that over the
  cells of W, times the gradient at y. W is read once, however many scores there are.

So each such layer is cut off from the map: its output becomes a start of the graph, a "reader" of
the map. Whatever else is done with the map is differentiated as ever.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mmcam.errors import ScoreError

ToGrid = Callable[[Tensor], Tensor]
"""What a layer gives `[row, *layout]` -> as a grid `[row, channel, *grid]`, a view of it."""

VIEWS = ("ViewBackward0", "UnsafeViewBackward0", "CloneBackward0")
"""Steps that keep the order of the numbers, by the names that autograd has for them."""

POOLINGS = {
    f"{kind}{axes}D{rest}Backward0": axes + 2
    for kind, rest in (("MaxPool", "WithIndices"), ("AdaptiveMaxPool", ""), ("AdaptiveAvgPool", ""))
    for axes in (2, 3)
}
"""Steps that keep the sum of a channel's gradient -> how many axes their maps have."""


class Start(NamedTuple):
    """A map at which the graph starts, `[row, *layout]`; how many channels, and where they are."""

    layer: str
    tensor: Tensor
    channels: int
    channels_first: bool


@dataclass
class Reader:
    """A linear layer that is given a map: its weight, what it gave, and what it was given.

    `whole` says that it is all cells as one vector, instead of the map itself.
    """

    start: Start
    weight: Tensor
    output: Tensor
    whole: bool

    @cached_property
    def summed(self) -> Tensor:
        """The weight that stands for `weight` where gradients are means: `[output, channel]`."""
        wide = torch.promote_types(self.weight.dtype, torch.float32)
        if not self.whole:
            return self.weight.to(wide)
        cells = self.start.tensor[0, 0].numel()
        columns: Tensor = self.weight.unflatten(1, (self.start.channels, -1))
        return columns.sum(2, dtype=wide) / cells


@dataclass
class PooledGradients:
    """Layers whose gradient is asked for as its mean over the grid, and what reads their maps."""

    to_grid: Mapping[str, ToGrid]
    readers: list[Reader] = field(default_factory=list)
    starts: list[Start] = field(default_factory=list)
    between: list[Any] = field(default_factory=list)

    def note(self, layer: str, tensor: Tensor) -> None:
        """Take note of a layer's map.

        Readers of it are known by it. A map that is no start of the graph must keep its gradient,
        so what lies behind it reads no other.
        """
        if not tensor.is_leaf:
            self.between.append(tensor.grad_fn)
        elif layer in self.to_grid:
            grid = self.to_grid[layer](tensor.detach())
            first = grid.shape == tensor.shape and grid.stride() == tensor.stride()
            self.starts.append(Start(layer, tensor, grid.shape[1], first))

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
        origin = self._origin(args[0]) if args else None
        if origin is None:
            return None
        start = output.detach().requires_grad_(True)
        self.readers.append(Reader(origin[0], module.weight, start, whole=origin[1]))
        return start.clone()  # what comes next may work in place

    def _origin(self, tensor: Tensor) -> tuple[Start, bool] | None:
        """The map that `tensor` is, and whether it is all cells as one vector; None if neither."""
        node, poolings = tensor.grad_fn, []
        while node is not None and node not in self.between:
            name = node.name()
            if name in POOLINGS:
                poolings.append(POOLINGS[name])
            elif name not in VIEWS or (poolings and name != "CloneBackward0"):
                break
            node = node.next_functions[0][0]
        leaf = getattr(node, "variable", None)
        for start in self.starts:
            if start.tensor is leaf and set(poolings) <= {leaf.ndim}:
                if start.channels_first:
                    vectors = tensor.ndim == 2 and len(tensor) == len(leaf)
                    return (start, True) if vectors else None
                same = tensor.shape == leaf.shape and leaf.shape[-1] == start.channels
                return (start, False) if same and not poolings else None
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
        to_grid = self.to_grid[layer]
        in_cells = [] if own is None else [own]
        means = [] if own is None else [_mean(to_grid, own)]
        for reader, gradient in zip(self.readers, read, strict=True):
            if reader.start.layer != layer or gradient is None:
                continue
            if reader.whole:
                means.append(gradient.to(reader.summed.dtype) @ reader.summed)
            else:
                in_cells.append(gradient)
                means.append(_mean(to_grid, gradient) @ reader.summed)
        if not means:
            return None
        mean = torch.stack(means).sum(0)
        for slot in (~mean.flatten(1).any(1)).nonzero().flatten().tolist():
            lost = [one[slot] for one in in_cells if one[slot].any()]
            if lost and not any(to_grid(one).any() for one in lost):
                raise off_grid_error(layer)
        return mean


def _mean(to_grid: ToGrid, gradients: Tensor) -> Tensor:
    """The means over the grid `[slot, row, channel]` of gradients `[slot, row, *layout]`."""
    wide = torch.promote_types(gradients.dtype, torch.float32)
    return torch.stack([to_grid(one).flatten(2).mean(2, dtype=wide) for one in gradients])


def off_grid_error(layer: str) -> ScoreError:
    """What is said where the score reaches a layer, but no cell of its grid."""
    return ScoreError(
        f"the score reaches layer '{layer}' through its class token alone, so its grid has no "
        "gradient; explain an earlier layer, such as the norm before the last attention"
    )
