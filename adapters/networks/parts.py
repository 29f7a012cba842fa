"""What the recurrent networks share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


def blocks(tensor: Tensor, rows: int) -> Tensor:
    """The tensor repeated as a whole until it has so many rows."""
    return tensor.repeat(rows // len(tensor), *[1] * (tensor.ndim - 1))


@contextmanager
def with_gradient() -> Iterator[None]:
    """Inside, where gradients are on, LSTMs run by torch's own kernels.

    cuDNN's has no gradient in evaluation mode. oneDNN's has none for many scores at once, and it
    differentiates by frozen weights too, which takes longer than all the rest.
    """
    if not torch.is_grad_enabled():
        yield
        return
    onednn = torch.backends.mkldnn
    # `flags` of oneDNN would touch settings of Intel's GPUs as well, and warn of it.
    before, *_ = onednn.set_flags(_enabled=False, _fp32_precision=None)
    try:
        with torch.backends.cudnn.flags(enabled=False):
            yield
    finally:
        onednn.set_flags(_enabled=before, _fp32_precision=None)
