"""The mean of a gradient over a grid, without computing the gradient in every cell.

Grad-CAM weights a channel by its mean gradient (Selvaraju et al. 2020, eq. 1). Two kinds of linear
layers that read a map give that mean at a lower cost:

- A layer whose input is the map itself, y = W x + b in each cell. The gradient at x is W^T times
  the gradient at y, so the mean over the cells is W^T times the mean at y: one matrix-vector
  product instead of one in every cell. A decoder that attends to a picture's tokens has two such
  layers (keys, values) in each of its layers, and most of its backward pass is spent in them.
- A layer whose input is all cells flattened into one vector, possibly of a pooled map, as in
  AlexNet, VGG and C3D. Its W holds nearly all parameters of the network. Pooling preserves the sum
  of a channel's gradient: max pooling passes it to one cell, average pooling divides it among
  several. So the sum at x is W summed over the cells, times the gradient at y. W is read once,
  however many scores there are.

Each such layer is cut off from the map: its output becomes a start of the graph, and the layer a
"reader" of the map. All other uses of the map are differentiated as usual.
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
"""From a layer's output `[row, *layout]` to a grid `[row, channel, *grid]`, as a view."""

VIEWS = ("ViewBackward0", "UnsafeViewBackward0", "CloneBackward0")
"""Autograd nodes of operations that keep the order of the elements."""

POOLINGS = {
    f"{kind}{axes}D{suffix}Backward0": axes + 2
    for kind, suffix in (
        ("MaxPool", "WithIndices"),
        ("AdaptiveMaxPool", ""),
        ("AdaptiveAvgPool", ""),
    )
    for axes in (2, 3)
}
"""Autograd nodes of pooling that preserves the sum of a channel's gradient -> rank of its input."""


class Start(NamedTuple):
    """A map `[row, *layout]` at which the graph starts, with its number of channels and layout."""

    layer: str
    tensor: Tensor
    channels: int
    channels_first: bool


@dataclass
class Reader:
    """A linear layer that reads a map: the map, the layer's weight and its output.

    `flattened` says that the input is all cells as one vector instead of the map itself.
    """

    start: Start
    weight: Tensor
    output: Tensor
    flattened: bool

    @cached_property
    def pooled_weight(self) -> Tensor:
        """The matrix `[output, channel]` from the gradient at the output to the mean at the map."""
        dtype = torch.promote_types(self.weight.dtype, torch.float32)
        if not self.flattened:
            return self.weight.to(dtype)
        cells = self.start.tensor[0, 0].numel()
        columns: Tensor = self.weight.unflatten(1, (self.start.channels, -1))
        return columns.sum(2, dtype=dtype) / cells


@dataclass
class PooledGradients:
    """The layers that need only the mean gradient over their grid, and the readers of their maps.

    `to_grid` has the layers as keys. `inner_nodes` are the autograd nodes of recorded maps inside
    the graph.
    """

    to_grid: Mapping[str, ToGrid]
    readers: list[Reader] = field(default_factory=list)
    starts: list[Start] = field(default_factory=list)
    inner_nodes: list[Any] = field(default_factory=list)

    def add_map(self, layer: str, tensor: Tensor) -> None:
        """Register a layer's map, so that its readers can be found.

        A map inside the graph needs a gradient of its own, so a layer after it is never cut off as
        a reader of an earlier map.

        Raises:
            LayerError: the map has no grid, and the layer is one of `to_grid`.
        """
        if not tensor.is_leaf:
            self.inner_nodes.append(tensor.grad_fn)
        elif layer in self.to_grid:
            grid = self.to_grid[layer](tensor.detach())
            channels_first = grid.shape == tensor.shape and grid.stride() == tensor.stride()
            self.starts.append(Start(layer, tensor, grid.shape[1], channels_first))

    @contextmanager
    def watch_linear_layers(self, model: nn.Module) -> Iterator[None]:
        """In this context, collect readers as they run; skip layers with a patched `forward`."""
        # This hook runs before a layer's other hooks, so that they get the new start.
        hooks = [
            module.register_forward_hook(self._on_forward, prepend=True)
            for module in model.modules()
            if type(module) is nn.Linear and "forward" not in vars(module)
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _on_forward(self, module: nn.Linear, args: Any, output: Tensor) -> Tensor | None:
        source = self._source(args[0]) if args else None
        if source is None:
            return None
        start, flattened = source
        leaf = output.detach().requires_grad_(True)
        self.readers.append(Reader(start, module.weight, leaf, flattened=flattened))
        return leaf.clone()  # the next layer may work in place

    def _source(self, tensor: Tensor) -> tuple[Start, bool] | None:
        """The map that a linear layer's input consists of, and whether it is flattened, if any."""
        node, poolings = tensor.grad_fn, []
        while node is not None and node not in self.inner_nodes:
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
                    is_batch_of_vectors = tensor.ndim == 2 and len(tensor) == len(leaf)
                    return (start, True) if is_batch_of_vectors else None
                is_map = tensor.shape == leaf.shape and leaf.shape[-1] == start.channels
                return (start, False) if is_map and not poolings else None
        return None

    def mean(
        self,
        layer: str,
        map_gradient: Tensor | None,
        reader_gradients: Sequence[Tensor | None],
    ) -> Tensor | None:
        """A layer's mean gradient `[slot, row, channel]`, from gradients `[slot, row, *layout]`.

        None if the score depends neither on the map nor on one of its readers.

        Args:
            layer: the layer's name.
            map_gradient: the gradient at the layer's map, without the readers' share; None if the
                score does not depend on the map.
            reader_gradients: the gradient at the output of each of `readers`; None if the
                score does not depend on it.

        Raises:
            ScoreError: the score depends on the layer, but on no cell of its grid.
        """
        to_grid = self.to_grid[layer]
        per_cell = [] if map_gradient is None else [map_gradient]
        means = [] if map_gradient is None else [_mean(to_grid, map_gradient)]
        for reader, gradient in zip(self.readers, reader_gradients, strict=True):
            if reader.start.layer != layer or gradient is None:
                continue
            if reader.flattened:
                means.append(gradient.to(reader.pooled_weight.dtype) @ reader.pooled_weight)
            else:
                per_cell.append(gradient)
                means.append(_mean(to_grid, gradient) @ reader.pooled_weight)
        if not means:
            return None
        mean = torch.stack(means).sum(0)
        for slot in (~mean.flatten(1).any(1)).nonzero().flatten().tolist():
            nonzero = [gradients[slot] for gradients in per_cell if gradients[slot].any()]
            if nonzero and not any(to_grid(gradient).any() for gradient in nonzero):
                raise off_grid_error(layer)
        return mean


def _mean(to_grid: ToGrid, gradients: Tensor) -> Tensor:
    """The means `[slot, row, channel]` over the grid of gradients `[slot, row, *layout]`."""
    dtype = torch.promote_types(gradients.dtype, torch.float32)
    return torch.stack([to_grid(rows).flatten(2).mean(2, dtype=dtype) for rows in gradients])


def off_grid_error(layer: str) -> ScoreError:
    """The error for a score that depends on a layer, but on no cell of its grid."""
    return ScoreError(
        f"the score depends on layer '{layer}' through its class token alone, so its grid has no "
        "gradient; explain an earlier layer, such as the norm before the last attention"
    )
