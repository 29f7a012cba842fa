"""Guided backpropagation and deconvolution: other rules for the backward pass of a ReLU.

While `switchable_relus()` is on, every ReLU that runs becomes one whose backward rule can be chosen
later, so one forward serves the plain gradient, guided backpropagation (Springenberg et al. 2015)
and deconvolution (Zeiler and Fergus 2014). It catches the call, not the module, and so holds for
`nn.ReLU`, `F.relu`, `torch.relu`, `Tensor.relu`, their in-place forms, one module used many times,
and ReLU6. The model is not touched.

Both rules are defined for rectifiers alone. Smooth activations (GELU, SiLU, Mish, hard-swish) and
leaky ones keep their ordinary gradient; a model with no rectifier at all has no guided map.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from mmcam.types import Method

Gate = Callable[[Tensor], Tensor]
Rule = Callable[[Tensor, Gate], Tensor]

RULES: dict[str, Rule] = {
    "relu": lambda gradient, gate: gate(gradient),
    "guided": lambda gradient, gate: gate(gradient).relu_(),
    "deconv": lambda gradient, gate: gradient.relu(),
}
"""Name to (gradient from above, what closes it where the unit was shut) -> gradient passed on."""


class switchable_relus(TorchFunctionMode):  # noqa: N801 - used like a function
    """A context in which ReLUs are recorded so that `rule(name)` sets how they backpropagate.

    The rule is looked up when the backward runs. Outside `rule(...)` it is the ordinary one.
    `count` is the number of ReLUs that ran.
    """

    def __init__(self) -> None:
        super().__init__()
        self.count = 0
        self.current = RULES["relu"]

    @contextmanager
    def rule(self, name: str) -> Iterator[None]:
        """Backward passes inside follow the rule `name` of `RULES`."""
        self.current = RULES[name]
        try:
            yield
        finally:
            self.current = RULES["relu"]

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        read = _RECTIFIERS.get(func)
        bounds = read(*args, **kwargs) if read else None
        self.count += bounds is not None
        if bounds is None or not (torch.is_grad_enabled() and bounds[0].requires_grad):
            return func(*args, **kwargs)
        return _Rectify.apply(*bounds, self)


class _Rectify(torch.autograd.Function):
    """min(max(x, 0), ceiling), whose backward asks the mode for its rule."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, ceiling: float | None, in_place: bool, mode: switchable_relus
    ) -> Tensor:
        if in_place:
            ctx.mark_dirty(x)
            y = x.clamp_(0, ceiling)
        else:
            y = x.clamp(0, ceiling)
        ctx.save_for_backward(y)
        ctx.ceiling, ctx.mode = ceiling, mode
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (y,) = ctx.saved_tensors

        def gate(gradient: Tensor) -> Tensor:
            # torch's own kernels: one pass, where a product with a mask takes three.
            aten, high = torch.ops.aten, ctx.ceiling
            shut: Tensor = (
                aten.threshold_backward(gradient, y, 0)
                if high is None
                else aten.hardtanh_backward(gradient, y, 0, high)
            )
            return shut

        return ctx.mode.current(gradients[0], gate), None, None, None


Bounds = tuple[Tensor, float | None, bool]


def _relu(input: Tensor, inplace: bool = False) -> Bounds:
    return input, None, inplace


def _relu_(input: Tensor) -> Bounds:
    return input, None, True


def _relu6(input: Tensor, inplace: bool = False) -> Bounds:
    return input, 6.0, inplace


def _hardtanh(
    input: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False
) -> Bounds | None:
    return (input, max_val, inplace) if min_val == 0 else None


def _hardtanh_(input: Tensor, min_val: float = -1.0, max_val: float = 1.0) -> Bounds | None:
    return _hardtanh(input, min_val, max_val, inplace=True)


_RECTIFIERS: dict[Any, Callable[..., Bounds | None]] = {
    F.relu: _relu,
    torch.relu: _relu,
    Tensor.relu: _relu,
    torch.relu_: _relu_,
    Tensor.relu_: _relu_,
    F.relu6: _relu6,
    F.hardtanh: _hardtanh,
    F.hardtanh_: _hardtanh_,
}
"""Every way torch has to write a rectifier -> (input, ceiling, in place); None if it is none."""


def as_it_is(gradient: Tensor) -> Tensor:
    """The gradient at the input is the map."""
    return gradient


PIXELS: dict[str, Method] = {
    "gradient": Method(
        compute=as_it_is,
        summary="gradient of the score at the input pixels",
        source="Simonyan et al. 2014",
        needs="pixels",
    ),
    "guided": Method(
        compute=as_it_is,
        summary="guided backpropagation; 'guided-NAME' is its product with the map NAME",
        source="Springenberg et al. 2015; Selvaraju et al. 2020, section 3.2",
        needs="pixels",
        rule="guided",
    ),
    "deconv": Method(
        compute=as_it_is,
        summary="deconvolution; 'deconv-NAME' is its product with the map NAME",
        source="Zeiler and Fergus 2014",
        needs="pixels",
        rule="deconv",
    ),
}
