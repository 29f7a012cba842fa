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

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from mmcam.types import Method

Rule = Callable[[Tensor, Tensor], Tensor]

RULES: dict[str, Rule] = {
    "relu": lambda gated, gradient: gated,
    "guided": lambda gated, gradient: gated.relu_(),
    "deconv": lambda gated, gradient: gradient.relu(),
}
"""Name to (the ordinary gradient, which may be written on; the one from above) -> what goes on."""


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
        x, ceiling, in_place = bounds
        # A view that is changed in place has the graph of its base; there the ReLU cannot be seen.
        apart = in_place and x._is_view()
        y = _rectified(x, ceiling, in_place and not apart)
        assert y.grad_fn is not None
        y.grad_fn.register_hook(self._behind)  # cheaper than a Function: no Python in the forward
        return x.copy_(y) if apart else y

    def _behind(self, passed: Sequence[Tensor], above: Sequence[Tensor]) -> tuple[Tensor] | None:
        """What a ReLU passes on, made what the rule says."""
        ordinary = self.current is RULES["relu"]
        return None if ordinary else (self.current(passed[0], above[0]),)


def _rectified(x: Tensor, ceiling: float | None, in_place: bool) -> Tensor:
    """min(max(x, 0), ceiling) as one node of the graph."""
    if ceiling is None:
        return x.relu_() if in_place else x.relu()
    return F.hardtanh(x, 0.0, ceiling, in_place)


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
