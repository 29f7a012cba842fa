"""Guided backpropagation and deconvolution: other rules for the backward pass of a ReLU.

A ReLU leaves a node in the graph of the scores, however it was written: `nn.ReLU`, `F.relu`,
`torch.relu`, `Tensor.relu`, `F.threshold` at 0, their in-place forms, one module used many times,
ReLU6. A hook behind each such node makes of what it passes on what guided backpropagation
(Springenberg et al. 2015) or deconvolution (Zeiler and Fergus 2014) says. So one forward, which is
the model's own, serves the plain gradient and both rules.

Both rules are defined for rectifiers alone. Smooth activations (GELU, SiLU, Mish, hard-swish) and
leaky ones keep their ordinary gradient; a model with no rectifier at all has no guided map.
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
"""Name to (the ordinary gradient, which may be written on; the one from above) -> what goes on."""

NODES: dict[str, Callable[[Any], bool]] = {
    "ReluBackward": lambda node: True,
    "ThresholdBackward": lambda node: node._saved_threshold == 0,
    "HardtanhBackward": lambda node: node._saved_min_val == 0,
}
"""Nodes that a rectifier leaves in the graph -> whether one of them is a rectifier."""

OPERATORS = (
    torch.ops.aten.threshold_backward.default,
    torch.ops.aten.hardtanh_backward.default,
)
"""What these nodes run, given (the gradient from above, x, the lower bound: 0 of a rectifier)."""

OTHERS = ("Gelu", "Silu", "Mish", "Hardswish", "LeakyRelu", "Elu", "Celu", "Tanh", "Hardtanh")
"""Activations that have no such rule: the names of their nodes, less "Backward"."""


class ReluRule:
    """The ReLUs between some scores and the starts of their graph, to backpropagate by a rule.

    `found` says whether there are any; where some may hide, only after a backward pass. `others`
    says that there are activations of other kinds.
    """

    def __init__(self, scores: Tensor, rule: str) -> None:
        self.rule, self.active = RULES[rule], False
        self.found = self.others = self.hidden = False
        for node in _nodes(scores.grad_fn):
            kind = node.name().rstrip("0123456789")
            if kind in NODES and NODES[kind](node):
                node.register_hook(self._behind)
                self.found = True
            # What writes on a part of a tensor hides behind a node of the whole tensor.
            self.hidden |= kind.endswith("CopySlices")
            self.others |= kind.removesuffix("Backward") in OTHERS

    @contextmanager
    def ruled(self) -> Iterator[None]:
        """Backward passes inside follow the rule."""
        self.active = True
        try:
            # Hidden ones too, for some more time; to apply a rule twice is to apply it once.
            with _Hidden(self) if self.hidden else nullcontext():
                yield
        finally:
            self.active = False

    def _behind(
        self, passed: Sequence[Tensor | None], above: Sequence[Tensor | None]
    ) -> tuple[Tensor] | None:
        """What a ReLU passes on, made what the rule says; None leaves it as it is."""
        gated, gradient = passed[0], above[0]
        if not self.active or gated is None or gradient is None:  # somebody's own step passed none
            return None
        return (self.rule(gated, gradient),)


class _Hidden(TorchDispatchMode):
    """Inside, rectifiers are known by the operators that run in their backward pass."""

    def __init__(self, rectifiers: ReluRule) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.rectifiers = rectifiers

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        passed = func(*args, **(kwargs or {}))
        if func not in OPERATORS or args[2] != 0:
            return passed
        self.rectifiers.found = True
        return self.rectifiers.rule(passed, args[0])


def _nodes(end: Any) -> Iterator[Any]:
    """Every node of the graph that leads to `end`, each once."""
    seen, ahead = {end}, [end]
    while ahead:
        node = ahead.pop()
        yield node
        for before, _ in node.next_functions:
            if before is not None and before not in seen:
                seen.add(before)
                ahead.append(before)


def has_relus(model: nn.Module) -> bool:
    """Whether any module of the model is a ReLU; functions that it calls cannot be seen."""
    return any(isinstance(module, (nn.ReLU, nn.ReLU6)) for module in model.modules())
