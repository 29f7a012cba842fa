"""Guided backpropagation and deconvolution: other rules for the backward pass of a ReLU.

Each run of a ReLU leaves a node in the graph of the scores: `nn.ReLU`, `nn.ReLU6`, `F.relu`,
`torch.relu`, `Tensor.relu`, `F.threshold` and `clamp` at 0, and their in-place forms.
`torch.maximum` and `torch.where` are not recognised. A hook on each such node replaces the
gradient at the ReLU's input by that of guided backpropagation (Springenberg et al. 2015) or
deconvolution (Zeiler and Fergus 2014). So one unmodified forward serves the plain gradient and
both rules.

Both rules are defined for ReLUs alone. Smooth activations (GELU, SiLU, Mish, hard-swish) and leaky
ones keep their ordinary gradient; a model without any ReLU has no guided map.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

Rule = Callable[[Tensor, Tensor], Tensor]

RULES: dict[str, Rule] = {
    "guided": lambda gated, gradient: gated.relu_(),
    "deconv": lambda gated, gradient: gradient.relu(),
}
"""Name -> function of two gradients: at the ReLU's input and at its output.

The first (`gated`) is zero where the ReLU is off, and may be overwritten.
"""

RELU_NODES: dict[str, Callable[[Any], bool]] = {
    "ReluBackward": lambda node: True,
    "ThresholdBackward": lambda node: node._saved_threshold == 0,
    "HardtanhBackward": lambda node: node._saved_min_val == 0,
    "ClampBackward": lambda node: _is_zero(node._saved_min),
    "ClampMinBackward": lambda node: _is_zero(node._saved_min),
}
"""Autograd nodes that a ReLU may leave in the graph -> whether a given node is a ReLU's."""

RELU_OPERATORS = (
    torch.ops.aten.threshold_backward.default,
    torch.ops.aten.hardtanh_backward.default,
)
"""The operators of these nodes: (gradient at the output, input, lower bound: 0 for a ReLU).

A clamp has no operator of its own, so a clamp in place on a part of a tensor stays hidden.
"""

FUSED = ("DifferentiableGraphBackward", "CompiledFunctionBackward")
"""Parts of the names of nodes that hide fused operations, of TorchScript and `torch.compile`."""

NON_RELUS = ("Gelu", "Silu", "Mish", "Hardswish", "LeakyRelu", "Elu", "Celu", "Tanh", "Hardtanh")
"""Activations to which no rule applies: the names of their nodes without "Backward"."""


class ReluRule:
    """A backward rule for the ReLUs between some scores and the starts of their graph.

    `has_relus` says whether there are any ReLUs; if `may_hide_relus`, it is final only after a
    backward pass. `has_other_activations` says whether there are activations of other kinds, and
    `is_fused` whether fused operations may hide some ReLUs.
    """

    def __init__(self, scores: Tensor, rule: str) -> None:
        self.rule, self.is_active = RULES[rule], False
        self.has_relus = self.has_other_activations = self.may_hide_relus = False
        self.is_fused = False
        for node in _nodes(scores.grad_fn):
            kind = node.name().rstrip("0123456789")
            if kind in RELU_NODES and RELU_NODES[kind](node):
                node.register_hook(self._hook)
                self.has_relus = True
            elif kind.removesuffix("Backward") in NON_RELUS:
                self.has_other_activations = True
            self.is_fused |= any(part in kind for part in FUSED)
            # CopySlices hides the node of an in-place operation on a view.
            self.may_hide_relus |= kind.endswith("CopySlices")

    @contextmanager
    def active(self) -> Iterator[None]:
        """In this context, backward passes follow the rule."""
        self.is_active = True
        try:
            # The dispatch mode is slow, so it is used only if there may be hidden ReLUs. Both rules
            # are idempotent, so a ReLU that also has a hook gets the same gradient.
            with _HiddenRelus(self) if self.may_hide_relus else nullcontext():
                yield
        finally:
            self.is_active = False

    def _hook(
        self, at_inputs: Sequence[Tensor | None], at_outputs: Sequence[Tensor | None]
    ) -> tuple[Tensor | None, ...] | None:
        """Apply the rule to the gradient of a ReLU; None leaves the gradient unchanged."""
        gated, gradient = at_inputs[0], at_outputs[0]
        if not self.is_active or gated is None or gradient is None:  # a custom backward gave None
            return None
        return (self.rule(gated, gradient), *at_inputs[1:])


class _HiddenRelus(TorchDispatchMode):
    """In this context, ReLUs are recognised by the operators of their backward pass."""

    def __init__(self, relu_rule: ReluRule) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.relu_rule = relu_rule

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        if func not in RELU_OPERATORS or args[2] != 0:
            return output
        self.relu_rule.has_relus = True
        return self.relu_rule.rule(output, args[0])


def _is_zero(bound: Any) -> bool:
    """Whether the lower bound of a clamp is 0; the bound is a number, a tensor or None."""
    return bound is not None and not torch.as_tensor(bound).any()


def _nodes(end: Any) -> Iterator[Any]:
    """Every node of the graph that leads to `end`, each once."""
    visited, pending = {end}, [end]
    while pending:
        node = pending.pop()
        yield node
        for parent, _ in node.next_functions:
            if parent is not None and parent not in visited:
                visited.add(parent)
                pending.append(parent)


def has_relu_modules(model: nn.Module) -> bool:
    """Whether any module of the model is a ReLU; functional ReLUs are not detected."""
    return any(isinstance(module, (nn.ReLU, nn.ReLU6)) for module in model.modules())
