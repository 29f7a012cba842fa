"""Descriptions of small untrained models, which their families' adapters build."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from unittest import mock

import torch
from torch import Tensor, nn

from mmcam.adapters.base.classifier import Classifier
from mmcam.adapters.base.recipe import Recipe
from mmcam.models.registry import build

Fill = Callable[[Tensor], Tensor]

CLASSES = 5
COUNTS = {"timm": "num_classes", "hf": "num_labels", "pytorchvideo": "model_num_class"}
"""A family's argument for the number of classes."""


class Tiny(NamedTuple):
    """A model, its input size, and how precisely one of its layers localises single patches."""

    family: str
    name: str
    space: tuple[int, ...]
    args: Mapping[str, Any]
    layer: str | None
    """The layer to probe; the default layer when None."""
    slack: int
    """How many cells off its patch the strongest change may lie: strided convolutions overlap."""
    bumps: bool
    """Whether it is probed with `averaging` kernels."""
    module: Callable[[], nn.Module] | None
    """Builds the model if torchvision's builder has no small variant."""

    def __str__(self) -> str:
        return f"{self.family}-{self.name or self.family}"

    def build(self, kernels: Fill | None = None) -> Classifier:
        """The adapter, with the same weights every time."""
        torch.manual_seed(0)
        *frames, height, width = self.space
        recipe = Recipe(
            family=self.family,
            name=self.name,
            args=self.args,
            pretrained=False,
            preprocess={"resize": (height, width), "frames": frames[0] if frames else None},
        )
        if self.module is None:
            adapter = build(recipe)
        else:
            module = self.module()
            with mock.patch("torchvision.models.get_model", return_value=module):
                adapter = build(recipe)
        assert isinstance(adapter, Classifier)
        ready(adapter.model, kernels or (averaging if self.bumps else None))
        return adapter


def averaging(weight: Tensor) -> Tensor:
    """Flat and positive kernels: the response to a lit patch is a bump around the patch."""
    means = torch.rand(weight.shape[:2]) * 2 / weight[0].numel()
    return means.view(*means.shape, *[1] * (weight.ndim - 2)).expand_as(weight)


def lively(weight: Tensor) -> Tensor:
    """Kernels that preserve the scale of activations through ReLUs (He et al. 2015)."""
    return torch.randn(weight.shape) * (2 / weight[0].numel()) ** 0.5


@torch.no_grad()
def ready(model: nn.Module, kernels: Fill | None) -> None:
    """Replace all-zero weights, with which some heads start, and set `kernels`, if given."""
    for module in model.modules():
        if isinstance(module, (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)):
            if not module.weight.any():
                module.weight.normal_(std=0.02)
            if kernels and not isinstance(module, nn.Linear):
                module.weight.copy_(kernels(module.weight))


def tiny(
    model: str,
    space: tuple[int, ...],
    *,
    layer: str | None = None,
    slack: int = 0,
    bumps: bool = False,
    module: Callable[[], nn.Module] | None = None,
    **args: Any,
) -> Tiny:
    """A row of the tables in `tiny_models`."""
    family, _, name = model.partition(":")
    if family in COUNTS and not name.startswith("mvit_base"):
        args.setdefault(COUNTS[family], CLASSES)
    return Tiny(family, name, space, args, layer, slack or int(bumps), bumps, module)
