"""Run recurrent layers with kernels that have gradients in evaluation mode."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


def use_native_kernels(layer: nn.RNNBase) -> Callable[[], None]:
    """Let an LSTM, GRU or RNN run with `native_kernels`; the result undoes this."""
    own = vars(layer).get("forward")
    original: Callable[..., Any] = layer.forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        with native_kernels():
            return original(*args, **kwargs)

    def restore() -> None:
        del layer.forward
        if own is not None:
            vars(layer)["forward"] = own

    vars(layer)["forward"] = forward
    return restore


@contextmanager
def native_kernels() -> Iterator[None]:
    """Run recurrent layers with torch's native kernels while gradients are enabled.

    cuDNN's kernel has no gradient in evaluation mode. oneDNN's kernel cannot batch the gradients of
    many scores, and also computes the gradient of frozen weights, which takes longer than the rest.
    """
    if not torch.is_grad_enabled():
        yield
        return
    # The context managers `flags` would also read and set the precision. Torch refuses this if the
    # precision of single operators was set.
    cudnn: Any = torch.backends.cudnn
    onednn: Any = torch.backends.mkldnn
    before = cudnn.enabled, onednn.enabled
    cudnn.enabled = onednn.enabled = False
    try:
        yield
    finally:
        cudnn.enabled, onednn.enabled = before
