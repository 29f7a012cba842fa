"""What the recurrent networks share."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch
from torch import Tensor


def blocks(tensor: Tensor, rows: int) -> Tensor:
    """The tensor repeated as a whole until it has so many rows."""
    return tensor.repeat(rows // len(tensor), *[1] * (tensor.ndim - 1))


def with_gradient() -> AbstractContextManager[None]:
    """Inside, an LSTM in evaluation mode has a gradient on CUDA too, where cuDNN's has none."""
    made: AbstractContextManager[None] = torch.backends.cudnn.flags(enabled=False)
    return made
