"""Helpers for the recurrent networks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


def repeat_blocks(tensor: Tensor, rows: int) -> Tensor:
    """The whole tensor, repeated along the first axis until it has `rows` rows."""
    return tensor.repeat(rows // len(tensor), *[1] * (tensor.ndim - 1))


@contextmanager
def native_lstm_kernels() -> Iterator[None]:
    """Run LSTMs with torch's native kernels while gradients are enabled.

    cuDNN's kernel has no gradient in evaluation mode. oneDNN's kernel cannot batch the gradients of
    many scores, and also computes the gradient of frozen weights, which takes longer than the rest.
    """
    if not torch.is_grad_enabled():
        yield
        return
    onednn = torch.backends.mkldnn
    # `flags` of oneDNN would also set options of Intel's GPUs, with a warning.
    before, *_ = onednn.set_flags(_enabled=False, _fp32_precision=None)
    try:
        with torch.backends.cudnn.flags(enabled=False):
            yield
    finally:
        onednn.set_flags(_enabled=before, _fp32_precision=None)
