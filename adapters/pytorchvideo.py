"""Action classifiers of pytorchvideo, built by its hub functions."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mmcam.adapters.base.classifier import Classifier
from mmcam.adapters.base.downloads import download_errors
from mmcam.adapters.base.preprocess import Preprocess
from mmcam.adapters.base.recipe import Recipe
from mmcam.errors import ModelError, nearest
from mmcam.grids import to_grid


class PublishedSetting(NamedTuple):
    """The input of a model's published results, and the layers to explain.

    `frames` and `stride` are the window at 30 frames per second, and `side` is the height and width
    of the input in pixels.
    """

    frames: int
    stride: int
    side: int
    layers: tuple[str, ...] = ("blocks.4",)


MODELS: dict[str, PublishedSetting] = {
    "x3d_xs": PublishedSetting(4, 12, 182),
    "x3d_s": PublishedSetting(13, 6, 182),
    "x3d_m": PublishedSetting(16, 5, 256),
    "x3d_l": PublishedSetting(16, 5, 356),
    "slow_r50": PublishedSetting(8, 8, 256),
    "c2d_r50": PublishedSetting(8, 8, 256, ("blocks.5",)),
    "i3d_r50": PublishedSetting(8, 8, 256, ("blocks.5",)),
    "csn_r101": PublishedSetting(32, 2, 256),
    "r2plus1d_r50": PublishedSetting(16, 4, 256),
    "slowfast_r50": PublishedSetting(32, 2, 256, ("blocks.4.multipathway_blocks.*",)),
    "slowfast_r101": PublishedSetting(32, 2, 256, ("blocks.4.multipathway_blocks.*",)),
    "slowfast_16x8_r101_50_50": PublishedSetting(64, 2, 256, ("blocks.4.multipathway_blocks.*",)),
    "mvit_base_16x4": PublishedSetting(16, 4, 224, ("blocks.15.norm1",)),
    "mvit_base_32x3": PublishedSetting(32, 3, 224, ("blocks.15.norm1",)),
}
"""Name of an action classifier in the hub -> its setting in the hub's table of results."""

NO_ACTIVATION = {"head_activation": None}

ALPHA = 4
"""Frames of SlowFast's fast pathway per frame of the slow pathway."""


def names() -> Sequence[str]:
    """The models of this family."""
    return list(MODELS)


def load(recipe: Recipe) -> Classifier:
    """One of `MODELS`; `recipe.args` are further arguments of its builder.

    The softmax at the end of X3D's head is left out, so that scores are logits.

    Raises:
        ModelError: no such model, or wrong preprocessing.
        WeightsError: the weights do not fit, or cannot be downloaded.
    """
    if recipe.name not in MODELS:
        raise ModelError(
            f"pytorchvideo has no '{recipe.name}'; nearest: {nearest(recipe.name, MODELS)}"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch.jit.script at import
        from pytorchvideo.models import hub

    published = MODELS[recipe.name]
    args: dict[str, Any] = {**({} if "mvit" in recipe.name else NO_ACTIVATION), **recipe.args}
    builder = getattr(hub, recipe.name)
    urls: dict[str, str] = getattr(sys.modules[builder.__module__], "checkpoint_paths", {})
    with download_errors(recipe.title, urls.get(recipe.name, "pytorchvideo's model zoo")):
        model = builder(pretrained=recipe.downloads, **args)
    default = Preprocess(
        resize=published.side,
        crop=published.side,
        mean=(0.45,) * 3,
        std=(0.225,) * 3,
        frames=published.frames,
        stride=published.stride,
        fps=30,
    )
    return Classifier(
        name=recipe.title,
        model=model,
        preprocess=recipe.preprocessing(default),
        labels=recipe.labels or (kinetics_names() if recipe.downloads else ()),
        layers=recipe.layers or published.layers,
        weights=recipe.load_weights(model),
        pack=split_pathways if recipe.name.startswith("slowfast") else single_pathway,
        to_grid=_to_grid,
    )


def kinetics_names() -> Sequence[str]:
    """The classes of Kinetics-400 in the order of the published weights, which is alphabetical."""
    from torchvision.models.video import R3D_18_Weights

    names: Sequence[str] = R3D_18_Weights.KINETICS400_V1.meta["categories"]
    return names


def _to_grid(layer: str, tensor: Tensor, space: Sequence[int]) -> Tensor:
    """Convolutional maps unchanged; MViT's tokens as a grid (its stem halves the frames)."""
    return to_grid(tensor, space, prefix=1, slices=space[0] // 2, channels_last=False)


def single_pathway(pixels: Tensor) -> Tensor:
    """The clip unchanged, for models with one pathway."""
    return pixels


def split_pathways(pixels: Tensor) -> list[Tensor]:
    """SlowFast's inputs, as a new list: a quarter of the frames, evenly spaced, and all frames."""
    frames = pixels.shape[2]
    slow = torch.linspace(0, frames - 1, frames // ALPHA, device=pixels.device).long()
    return [pixels.index_select(2, slow), pixels]
