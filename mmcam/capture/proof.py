"""The layout of a layer, proven by tracing one forward pass, and cached.

A layout is found once per model, layer and input size. The pass runs without gradients on two
copies of a sample, so that layouts in which samples and cells share an axis are recognised. If the
model fails on two samples, the pass runs on one copy.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils._python_dispatch import _disable_current_modes

from mmcam.capture.forward import run_model
from mmcam.capture.layers import map_tensor, recordable_layers
from mmcam.capture.layout import Layout, layout_of
from mmcam.capture.model_state import untouched
from mmcam.capture.places import FollowPlaces
from mmcam.errors import LayerError
from mmcam.types import Adapter, Extent, Inputs, SpatialLayer

ToGrid = Callable[[str, Tensor, Sequence[int]], Tensor]
"""A function of a layer's name, its output and the input's size that returns a grid."""

Size = tuple[int | tuple[str | int, ...], ...]
"""The shape of one sample's pixels, then the names and shapes of its other inputs."""

Proof = Layout | LayerError
"""The layout of a layer's output, or the reason why it has none."""


@dataclass
class ProvenLayouts:
    """The layouts of one model's layers, found when they are first needed."""

    proofs: dict[tuple[str, Size], Proof | None] = field(default_factory=dict)
    """Layer and input size -> its proof; None if the pass could not be traced."""

    neighbours: dict[str, str] = field(default_factory=dict)
    """Layer without a layout -> the layer with a grid that runs nearest to it."""

    def prove(self, adapter: Adapter, inputs: Inputs, layers: Sequence[str]) -> None:
        """Find the layouts of these layers for inputs of this size, if this was not tried yet.

        If the forward pass cannot be traced, the layouts remain unknown.

        Raises:
            ModelError: the model itself fails on the inputs.
        """
        size = size_of(inputs)
        missing = [layer for layer in layers if (layer, size) not in self.proofs]
        if missing:
            proofs = self._add(adapter, inputs, missing)
            self._find_neighbours(
                adapter, inputs, [name for name in proofs if isinstance(proofs[name], LayerError)]
            )

    def _find_neighbours(self, adapter: Adapter, inputs: Inputs, refused: Sequence[str]) -> None:
        """Find the neighbours of layers without a layout, for their error messages."""
        if not refused:
            return
        proofs = self._add(adapter, inputs, None)
        numbers = {layer.partition("#")[0]: number for number, layer in enumerate(proofs)}
        spatial = [
            layer
            for layer, proof in proofs.items()
            if isinstance(proof, Layout) and proof.is_spatial
        ]
        for layer in refused:
            number = numbers.get(layer.partition("#")[0])
            if spatial and number is not None:
                distances = [abs(numbers[other.partition("#")[0]] - number) for other in spatial]
                self.neighbours[layer] = spatial[distances.index(min(distances))]

    def spatial(self, adapter: Adapter, inputs: Inputs) -> Sequence[SpatialLayer]:
        """All layers with a grid of at least 2 x 2 cells, in the order in which they run.

        Empty if the forward pass cannot be traced.

        Raises:
            ModelError: the model itself fails on the inputs.
        """
        return [
            SpatialLayer(name, proof.channel_count, proof.grid)
            for name, proof in self._add(adapter, inputs, None).items()
            if isinstance(proof, Layout) and proof.is_spatial
        ]

    def _add(
        self, adapter: Adapter, inputs: Inputs, layers: Sequence[str] | None
    ) -> dict[str, Proof]:
        size = size_of(inputs)
        try:
            proofs = follow_layers(adapter, inputs, layers)
        except Exception:
            with untouched(adapter.model), torch.no_grad():
                run_model(adapter, inputs.row(0).copied())  # raises the model's own error, if any
            self.proofs |= {(layer, size): None for layer in layers or ()}
            return {}
        self.proofs |= {(layer, size): proof for layer, proof in proofs.items()}
        return proofs

    def knows(self, layer: str, inputs: Inputs) -> bool:
        """Whether a layer's output has been traced for inputs of this size."""
        return self.proofs.get((layer, size_of(inputs))) is not None

    def extent(self, layer: str, inputs: Inputs) -> Extent:
        """Where the cells of a layer's grid lie on the input; empty if the layer is unknown."""
        proof = self.proofs.get((layer, size_of(inputs)))
        return proof.extent if isinstance(proof, Layout) else ()

    def grid(
        self, layer: str, tensor: Tensor, inputs: Inputs
    ) -> Float[Tensor, "batch channel *grid"]:
        """An output of a layer that `knows` accepts, or its gradient, as a grid over the input.

        Raises:
            LayerError: the layer has no layout, or the output does not fit it.
        """
        proof = self.proofs[layer, size_of(inputs)]
        assert proof is not None  # `knows` is checked first
        if isinstance(proof, LayerError):
            near = self.neighbours.get(layer)
            other = f"'{near}', the nearest layer with a grid," if near else "another layer"
            raise LayerError(
                f"{proof}; explain {other} (mmcam list layers), or give its grid with "
                "mmcam.wrap(..., grid=...)"
            )
        grid = proof.to_grid(tensor)
        if len(grid) != len(inputs.pixels):
            raise LayerError(
                f"its output of shape {tuple(tensor.shape)} for {len(inputs.pixels)} inputs is not "
                "what it was when its places were found; the model has changed: wrap it anew"
            )
        return grid


@dataclass(kw_only=True)
class GivenGrids(ProvenLayouts):
    """A user's function decides how outputs become grids; it is compared with the traced layouts.

    `function` is the argument `grid` of `mmcam.wrap`. Where it differs from the layout of a layer,
    or the layer has none, a warning says so, once.
    """

    function: ToGrid
    compared: set[tuple[str, Size]] = field(default_factory=set)
    """The layers and input sizes for which the function was compared."""

    def prove(self, adapter: Adapter, inputs: Inputs, layers: Sequence[str]) -> None:
        """As `ProvenLayouts.prove`, then compare the function with the new layouts."""
        size = size_of(inputs)
        missing = [layer for layer in layers if (layer, size) not in self.compared]
        if missing:
            super().prove(adapter, inputs, missing)
        for layer in missing:
            self.compared.add((layer, size))
            if difference := self._difference(layer, self.proofs.get((layer, size)), inputs):
                message = f"layer '{layer}': the given grid is used, but {difference}"
                warnings.warn(message, stacklevel=2)

    def _difference(self, layer: str, proof: Proof | None, inputs: Inputs) -> str | None:
        """How the function differs from the traced layout.

        None if it does not, or if they cannot be compared.
        """
        if proof is None:
            return None
        if isinstance(proof, LayerError):
            return f"tracing the input through the model found none: {proof}"
        entries = torch.arange(math.prod(proof.shape), dtype=torch.float32).view(proof.shape)
        traced = proof.to_grid(entries)
        try:
            given = self.function(layer, entries, inputs.pixels.shape[2:])
        except Exception:  # the explanation itself reports it
            return None
        if given.shape == traced.shape and torch.equal(given, traced):
            return None
        sizes = [" x ".join(map(str, grid.shape[2:])) for grid in (given, traced)]
        if sizes[0] != sizes[1]:
            return f"it has {sizes[0]} cells where tracing finds {sizes[1]}"
        return "its entries are in another order than the places that they stem from"

    def spatial(self, adapter: Adapter, inputs: Inputs) -> Sequence[SpatialLayer]:
        """None: the function, not the traced layouts, decides which layers have a grid."""
        return []

    def knows(self, layer: str, inputs: Inputs) -> bool:
        """False: the function gives the grids."""
        return False

    def extent(self, layer: str, inputs: Inputs) -> Extent:
        """Empty: the cells of a given grid cover the input evenly."""
        return ()


@dataclass
class KeptModule:
    """What earlier calls found about a bare module with these parts; nothing in it keeps it alive.

    `default_layers` holds the default layer for each size of the input, and `compared`, for the
    code of each function `grid`, what `GivenGrids.compared` holds.
    """

    parts: tuple[int, ...]
    layouts: ProvenLayouts = field(default_factory=ProvenLayouts)
    default_layers: dict[Size, str] = field(default_factory=dict)
    compared: dict[Any, set[tuple[str, Size]]] = field(default_factory=dict)

    def layouts_for(self, grid: ToGrid | None) -> ProvenLayouts:
        """The module's layouts, or those of a user's function `grid`."""
        if grid is None:
            return self.layouts
        code = getattr(grid, "__code__", type(grid))  # the function may refer to the module
        return GivenGrids(function=grid, compared=self.compared.setdefault(code, set()))


_KEPT: WeakKeyDictionary[nn.Module, KeptModule] = WeakKeyDictionary()


def kept(module: nn.Module) -> KeptModule:
    """What earlier calls found about a bare module; nothing if parts of it were replaced."""
    parts = tuple(map(id, module.modules()))
    kept_module = _KEPT.get(module)
    if kept_module is None or kept_module.parts != parts:
        kept_module = _KEPT[module] = KeptModule(parts)
    return kept_module


def size_of(inputs: Inputs) -> Size:
    """The shapes of one sample's inputs, also of its text, which may share an axis with pixels."""
    rest = (
        (key, *value.shape[1:]) for key, value in inputs.rest.items() if isinstance(value, Tensor)
    )
    return (*inputs.pixels.shape[1:], *rest)


def follow_layers(
    adapter: Adapter, inputs: Inputs, layers: Sequence[str] | None = None
) -> dict[str, Proof]:
    """The layout of each layer's output, or the reason why it has none, in the order they ran.

    Args:
        adapter: the model.
        inputs: inputs of any samples; the first one is used.
        layers: names as `capture.resolve` returns them; when None, all modules by their last call.

    Raises:
        ModelError: the model fails on the inputs, or an operation fails while it is traced.
    """
    first = inputs.row(0)
    try:
        return _follow(adapter, first, 2, layers)
    except Exception:  # some models take only one sample
        return _follow(adapter, first, 1, layers)


def _follow(
    adapter: Adapter, first: Inputs, copies: int, layers: Sequence[str] | None
) -> dict[str, Proof]:
    inputs = first.repeated(first.pixels.repeat(copies, *[1] * (first.pixels.ndim - 1))).copied()
    space = tuple(inputs.pixels.shape[2:])
    proofs: dict[str, Proof] = {}
    mode = FollowPlaces(inputs.pixels)

    def add(layer: str, tensor: Tensor) -> None:
        proofs.pop(layer, None)  # the last call decides the order
        try:
            proofs[layer] = layout_of(tensor.shape, mode.places(tensor), copies, space)
        except LayerError as error:
            proofs[layer] = error.with_traceback(None)  # which would keep the model alive

    with ExitStack() as stack:
        stack.enter_context(untouched(adapter.model))
        stack.enter_context(torch.no_grad())
        stack.enter_context(_no_fused_transformer())
        counts = stack.enter_context(_watch(adapter.model, layers, add))
        stack.enter_context(mode)
        run_model(adapter, inputs)
    if layers is None:  # a module that runs several times is named with its last call
        proofs = {
            f"{layer}#{counts[layer] - 1}" if counts[layer] > 1 else layer: proof
            for layer, proof in proofs.items()
        }
    return proofs


@contextmanager
def _watch(
    model: nn.Module, layers: Sequence[str] | None, add: Callable[[str, Tensor], None]
) -> Iterator[dict[str, int]]:
    """In this context, `add(layer, map)` is called with each layer's map after the layer has run.

    Yields the number of times that each module has run.
    """
    names = recordable_layers(model) if layers is None else layers
    calls: dict[str, set[str]] = {}
    for name in names:
        stem, _, call = name.partition("#")
        calls.setdefault(stem, set()).add(call)
    counts = dict.fromkeys(calls, 0)

    def hook_for(stem: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: object, output: object) -> None:
            number = str(counts[stem])
            counts[stem] += 1
            with _disable_current_modes():
                for call in calls[stem] & {"", number}:
                    layer = f"{stem}#{call}" if call else stem

                    def keep(tensor: Tensor, layer: str = layer) -> Tensor:
                        add(layer, tensor)
                        return tensor

                    map_tensor(output, keep)

        return hook

    handles = [model.get_submodule(s).register_forward_hook(hook_for(s)) for s in calls]
    try:
        yield counts
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _no_fused_transformer() -> Iterator[None]:
    """In this context, torch's transformer layers run unfused, so that they can be traced."""
    was_enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(was_enabled)
