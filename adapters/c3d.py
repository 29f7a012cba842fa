"""C3D (Tran et al. 2015), the network of the action maps in Grad-CAM++ (section 6.2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmcam.adapters.base.classifier import Classifier
from mmcam.adapters.base.preprocess import Preprocess
from mmcam.adapters.base.recipe import Recipe
from mmcam.adapters.networks import c3d
from mmcam.grids import to_grid


def names() -> Sequence[str]:
    """The models of this family: C3D itself, which needs no name."""
    return [""]


def load(recipe: Recipe) -> Classifier:
    """C3D with its published layer names and preprocessing; no library provides its weights.

    `recipe.args` are those of `networks.c3d.C3D`; the default is 487 classes (Sports-1M).

    Raises:
        ModelError: `size` in `recipe.args` is too small, or wrong preprocessing.
        WeightsError: the weights do not fit.
    """
    args: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in recipe.args.items()
    }
    model = c3d.C3D(**args)
    default = Preprocess(
        resize=c3d.RESIZE,
        crop=c3d.CROP,
        mean=[value / 255 for value in c3d.MEAN],
        std=[1 / 255] * 3,
        order=c3d.CHANNELS.lower(),
        frames=c3d.FRAMES,
    )
    return Classifier(
        name=recipe.title,
        model=model,
        preprocess=recipe.preprocessing(default),
        labels=recipe.labels,
        layers=recipe.layers or (c3d.LAYER,),
        weights=recipe.load_weights(model, c3d.rename) if recipe.weights else None,
        to_grid=lambda layer, tensor, space: to_grid(tensor, space, channels_last=False),
    )
