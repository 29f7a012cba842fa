"""Leave the model as it was found, whatever happens during an explanation.

Parameters and their gradients are never written; modes, flags and random state are restored.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """A context in which the model is in evaluation mode, its parameters frozen, gradients enabled.

    On exit, the previous state is restored. A surrounding `no_grad` or `inference_mode` has no
    effect inside. Modes are set on each module directly, in case a module overrides `train`.
    """
    modes = [(module, module.training) for module in model.modules()]
    # `model.parameters()` takes twenty times as long: it removes duplicates, module by module.
    parameters = [p for module, _ in modes for p in module._parameters.values() if p is not None]
    trainable = [p for p in parameters if p.requires_grad]
    devices = sorted({p.device.index for p in parameters if p.is_cuda})
    with torch.random.fork_rng(devices), torch.inference_mode(False), torch.enable_grad():
        try:
            for module, mode in modes:
                if mode:
                    module.training = False
            for parameter in trainable:
                parameter.requires_grad_(False)
            yield
        finally:
            for parameter in trainable:
                parameter.requires_grad_(True)
            for module, mode in modes:
                if module.training != mode:
                    module.training = mode


def autocast(model: nn.Module, amp: bool) -> AbstractContextManager[Any]:
    """A context of mixed precision (bfloat16) if `amp`, otherwise a context without effect."""
    if not amp:
        return nullcontext()
    parameter = next(model.parameters(), torch.zeros(()))
    return torch.autocast(parameter.device.type, dtype=torch.bfloat16)
