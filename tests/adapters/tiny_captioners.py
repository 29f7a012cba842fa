"""Small captioners with random weights, for tests of captions."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from mmcam.adapters.base.preprocess import Preprocess
from mmcam.adapters.base.recurrent_captioner import RecurrentCaptioner
from mmcam.adapters.base.vocabulary import Vocabulary
from mmcam.adapters.networks.show_and_tell import ShowAndTell
from mmcam.adapters.networks.show_attend_tell import ShowAttendTell

WORDS = ("<pad>", "<start>", "<end>", "<unk>", "a", "dog", "runs", "two", "dogs", "run", "3", "狗")


class CountedCnn(nn.Sequential):
    """A small CNN that counts how often it ran."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(3, 6, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(6, 8, 3, padding=1)
        )
        self.runs = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.runs += 1
        maps: torch.Tensor = super().forward(x)
        return maps


def pool() -> nn.Module:
    """A map to a vector of 8: not linear, and every cell contributes."""
    return nn.Sequential(
        nn.Conv2d(8, 8, 2), nn.ReLU(), nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )


def captioner(kind: str = "show_and_tell", seed: int = 0, **change: Any) -> RecurrentCaptioner:
    """A captioner of 8 x 10 pictures with a 4 x 5 map."""
    torch.manual_seed(seed)
    cnn = CountedCnn()
    sizes = {"vocabulary": len(WORDS), "embedding": 7, "hidden": 9}
    model: nn.Module = (
        ShowAttendTell(cnn, 8, attention=5, **sizes)
        if kind == "show_attend_tell"
        else ShowAndTell(cnn, pool(), 8, layers=2, **sizes)
    )
    for parameter in model.parameters():  # large enough for words to differ
        parameter.data.mul_(3)
    return RecurrentCaptioner(
        **{
            "name": kind,
            "model": model,
            "preprocess": Preprocess(resize=(8, 10), mean=(0, 0, 0), std=(1, 1, 1)),
            "tokenizer": Vocabulary(WORDS),
            "layers": ("cnn",),
            "has_attention": kind == "show_attend_tell",
            **change,
        }
    )
