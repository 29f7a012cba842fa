"""The adapter for a module that is given its own input: tensors, without preprocessing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from mmcam.adapters.base.classifier import Classifier, ToGrid
from mmcam.adapters.base.preprocess import Preprocess
from mmcam.errors import InputError
from mmcam.tasks import Classes
from mmcam.types import Inputs, Layouts, Placement, Target


@dataclass
class Arguments:
    """The arguments of a module, with the place of the tensor that maps are maps of.

    Args:
        inputs: the module's argument, if it is a tensor; a tuple of its arguments; or a mapping of
            its keyword arguments.

    Raises:
        InputError: none of the arguments is a tensor `[batch, channel, *space]`.
    """

    inputs: Any
    _values: dict[str | int, Any] = field(init=False)
    _main: str | int = field(init=False)

    def __post_init__(self) -> None:
        if isinstance(self.inputs, Mapping):
            self._values = dict(self.inputs)
        else:
            given = self.inputs if isinstance(self.inputs, (tuple, list)) else (self.inputs,)
            self._values = dict(enumerate(given))
        # The picture or clip: of the floating tensors, the first with the most axes.
        ranks = {
            key: (value.is_floating_point(), value.ndim)
            for key, value in self._values.items()
            if isinstance(value, Tensor) and 3 <= value.ndim <= 5 and len(value)
        }
        if not ranks:
            shapes = [
                tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
                for value in self._values.values()
            ]
            raise InputError(
                f"the inputs {shapes} hold no tensor [batch, channel, *space]; give the module's "
                "own input: a tensor, a tuple of its arguments, or a dict of its keyword arguments"
            )
        self._main = max(ranks, key=lambda key: ranks[key])

    def as_inputs(self, detached: bool) -> Inputs:
        """The arguments as the input of a `TensorModel`; those with a row per sample as `rest`.

        Args:
            detached: leave the graph of the picture or clip behind.
        """
        main: Tensor = self._values[self._main]
        space = tuple(main.shape[2:])
        height, width = space[-2:] if len(space) > 1 else (1, space[0])
        placement = Placement(
            size=(height, width),
            box=(0.0, 0.0, float(width), float(height)),
            spans=((0.0, float(space[0])),) if len(space) == 3 else (),
        )
        rest = {
            str(key): value
            for key, value in self._values.items()
            if key != self._main
            and ((isinstance(value, Tensor) and value.ndim) or isinstance(value, (list, tuple)))
            and len(value) == len(main)
        }
        pixels = main.detach() if detached or not main.requires_grad else main
        if pixels.is_inference():
            pixels = pixels.clone()  # autograd cannot work with tensors of inference mode
        return Inputs(pixels=pixels, placements=(placement,) * len(main), rest=rest)

    def call(self, module: nn.Module, inputs: Inputs) -> Any:
        """The output of a module for these arguments with the tensors of `inputs`."""
        values = {key: inputs.rest.get(str(key), value) for key, value in self._values.items()}
        values[self._main] = inputs.pixels
        if isinstance(self.inputs, Mapping):
            return module(**{str(key): value for key, value in values.items()})
        return module(*values.values())


class TensorModel(Classifier):
    """A module and its arguments, ready to be explained."""

    def __init__(
        self, module: nn.Module, arguments: Arguments, layouts: Layouts, to_grid: ToGrid
    ) -> None:
        super().__init__(
            type(module).__name__, module, Preprocess(), layouts=layouts, to_grid=to_grid
        )
        self.arguments = arguments

    def forward(self, inputs: Inputs) -> Any:
        """The module's own output, of any type."""
        return self.arguments.call(self.model, inputs)

    def class_target(self, index: int) -> Target:
        """The logit of one class as a target."""
        return self._target(index, Classes())
