"""Outputs of several batches as one."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from mmcam.adapters.transformers.hooks import concatenate


class Features(NamedTuple):
    maps: Tensor
    pooled: list[Tensor]


def test_named_tuples_are_concatenated_field_by_field() -> None:
    batches = [Features(torch.full((n, 2), float(n)), [torch.ones(n)]) for n in (1, 3)]
    whole = concatenate(batches)
    assert isinstance(whole, Features)
    assert whole.maps[:, 0].tolist() == [1, 3, 3, 3]
    assert whole.pooled[0].shape == (4,)
