"""Helpers for the recurrent networks."""

from __future__ import annotations

from torch import Tensor


def repeat_blocks(tensor: Tensor, rows: int) -> Tensor:
    """The whole tensor, repeated along the first axis until it has `rows` rows."""
    return tensor.repeat(rows // len(tensor), *[1] * (tensor.ndim - 1))
