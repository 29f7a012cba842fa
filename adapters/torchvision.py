"""Image and video classifiers of torchvision."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from mmcam.adapters.base.classifier import Classifier
from mmcam.adapters.base.downloads import download_errors
from mmcam.adapters.base.preprocess import Preprocess
from mmcam.adapters.base.recipe import Recipe, layer_from_path
from mmcam.errors import ModelError, nearest
from mmcam.grids import to_grid

LAYERS: dict[str, str] = {
    "alexnet": "features.-2",
    "vgg": "features.-2",
    "resnet": "layer4",
    "resnext": "layer4",
    "wide_resnet": "layer4",
    "densenet": "features",
    "squeezenet": "features",
    "mobilenet": "features",
    "efficientnet": "features",
    "convnext": "features",
    "googlenet": "inception5b",
    "inception_v3": "Mixed_7c",
    "regnet": "trunk_output",
    "shufflenet": "conv5",
    "mnasnet": "layers",
    "vit": "encoder.layers.-1.ln_1",
    "swin3d": "norm",
    "swin": "permute",
    "maxvit": "blocks.-1",
    "r3d": "layer4",
    "mc3": "layer4",
    "r2plus1d": "layer4",
    "s3d": "features",
    "mvit": "blocks.-1.norm1",
}
"""Prefix of a model's name -> the last layer whose grid the score depends on."""

WINDOWS: dict[str, tuple[int, float]] = {
    "r3d": (16, 15),
    "mc3": (16, 15),
    "r2plus1d": (16, 15),
    "s3d": (128, 15),
    "mvit": (16, 7.5),
    "swin3d": (32, 15),
}
"""Prefix of a video model's name -> frames and frame rate of its published results."""


def names() -> Sequence[str]:
    """The models of this family."""
    from torchvision import models

    return [*models.list_models(module=models), *models.list_models(module=models.video)]


def load(recipe: Recipe) -> Classifier:
    """Any image or video classifier that `torchvision.models.get_model` knows.

    Raises:
        ModelError: no such model, one for another task, or wrong preprocessing.
        WeightsError: the weights do not fit, or cannot be downloaded.
    """
    from torchvision import models

    if recipe.name not in names():
        raise ModelError(
            f"torchvision has no classifier '{recipe.name}'; nearest: "
            f"{nearest(recipe.name, names())}"
        )
    args: dict[str, Any] = dict(recipe.args)
    if recipe.name in ("googlenet", "inception_v3") and not recipe.downloads:
        args.setdefault("init_weights", False)  # drawing random weights takes minutes
    published = models.get_model_weights(recipe.name).DEFAULT
    weights = published if recipe.downloads else None
    with download_errors(recipe.title, published.url):
        model = models.get_model(recipe.name, weights=weights, **args)
    labels = recipe.labels or (published.meta["categories"] if recipe.pretrained else ())
    return Classifier(
        name=recipe.title,
        model=model,
        preprocess=recipe.preprocessing(_preprocess(recipe.name, published.transforms())),
        labels=tuple(labels),
        layers=recipe.layers or _default_layer(recipe.name, model),
        weights=recipe.load_weights(model),
        to_grid=_to_grid_of(recipe.name),
    )


def _by_prefix(name: str, table: dict[str, Any]) -> Any:
    """The table's entry for the longest prefix of the name; None if no prefix matches."""
    prefixes = [prefix for prefix in table if name.startswith(prefix)]
    return table[max(prefixes, key=len)] if prefixes else None


def _default_layer(name: str, model: nn.Module) -> tuple[str, ...]:
    path = _by_prefix(name, LAYERS)
    return () if path is None else (layer_from_path(model, path),)


def _preprocess(name: str, preset: Any) -> Preprocess:
    """The preprocessing of the published weights, from their preset and `WINDOWS`."""
    frames, fps = _by_prefix(name, WINDOWS) or (None, None)
    resize = list(preset.resize_size)
    return Preprocess(
        resize=resize[0] if len(resize) == 1 else resize,
        crop=list(preset.crop_size) * (2 // len(preset.crop_size)),
        mean=preset.mean,
        std=preset.std,
        interpolation=preset.interpolation.value,
        frames=frames,
        fps=fps,
    )


def _to_grid_of(name: str) -> Callable[[str, Tensor, Sequence[int]], Tensor]:
    """The grid function of a model: tokens after a class token for ViT and MViT, else maps.

    The stem of MViT halves the number of frames.
    """

    def layer_to_grid(layer: str, tensor: Tensor, space: Sequence[int]) -> Tensor:
        if name.startswith("mvit"):
            return to_grid(tensor, space, prefix=1, slices=space[0] // 2)
        if name.startswith("vit"):
            return to_grid(tensor, space, prefix=1)
        if name.startswith("swin"):
            return to_grid(tensor, space, channels_last=layer != "permute")
        return to_grid(tensor, space, channels_last=False)

    return layer_to_grid
