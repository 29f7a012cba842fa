"""Image classifiers of timm."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from mmcam.adapters.base.classifier import Classifier, ToGrid
from mmcam.adapters.base.downloads import download_errors, without_retries
from mmcam.adapters.base.preprocess import Preprocess
from mmcam.adapters.base.recipe import Recipe, layer_from_path
from mmcam.errors import ModelError, WeightsError, nearest
from mmcam.grids import to_grid

LAYERS: dict[str, str] = {
    "coat_": "serial_blocks4.-1.norm1",
    "pit": "transformers.2.blocks.-1.norm1",
    "twins": "blocks.3.-1",
    "mvitv2": "stages.3",
    "hrnet": "final_layer",
    "xcit": "blocks.-1",
    "tnt": "blocks.-1.norm_out",
    "crossvit": "blocks.2.blocks.1",
}
"""Prefix of a model's name -> the layer to explain, if timm's feature table is missing or wrong."""


def names() -> Sequence[str]:
    """The models of this family."""
    import timm

    models: list[str] = timm.list_models()
    return models


def load(recipe: Recipe) -> Classifier:
    """An image classifier of timm by its registered name, with or without a tag of weights.

    Raises:
        ModelError: no such model, one without a classifier, or wrong preprocessing.
        WeightsError: the weights do not fit, cannot be downloaded, or are not published.
    """
    import timm

    if not timm.is_model(recipe.name):
        raise ModelError(f"timm has no model '{recipe.name}'; nearest: {_nearest(recipe.name)}")
    if recipe.downloads:
        source = _source(recipe.name)
        with without_retries() as reason, download_errors(recipe.title, source, reason):
            model = timm.create_model(recipe.name, pretrained=True, **recipe.args)
    else:
        model = timm.create_model(recipe.name, **recipe.args)
    if not model.num_classes:
        raise ModelError(
            f"timm:{recipe.name} has no classifier; choose a model with one, or add one with the "
            'argument {"num_classes": ...}'
        )
    weights = recipe.load_weights(model)
    return Classifier(
        name=recipe.title,
        model=model,
        preprocess=recipe.preprocessing(_preprocess(model, recipe.args.get("img_size"))),
        labels=recipe.labels or (_imagenet_labels(model) if recipe.pretrained else ()),
        layers=recipe.layers or _default_layer(recipe.name, model),
        weights=weights,
        to_grid=_to_grid_of(model),
    )


def from_module(model: Any) -> Classifier:
    """A model of timm in memory; its `pretrained_cfg` says how its pictures are prepared.

    The classes have ImageNet's names if the model and that configuration have 1000 of them.

    Raises:
        ModelError: a model without a classifier.
    """
    config: Any = model.pretrained_cfg
    name = str(config.get("architecture") or type(model).__name__)
    if not model.num_classes:
        raise ModelError(
            f"timm:{name} has no classifier; add one (model.reset_classifier), or give tensors and "
            "a Target of your own"
        )
    has_names = config.get("num_classes") == 1000
    return Classifier(
        name=f"timm:{name}",
        model=model,
        preprocess=_preprocess(model, None),
        labels=_imagenet_labels(model) if has_names else (),
        layers=_default_layer(name, model),
        to_grid=_to_grid_of(model),
    )


def _source(name: str) -> str:
    """The address of a model's published weights.

    Raises:
        WeightsError: there are none.
    """
    from huggingface_hub.constants import ENDPOINT
    from timm.models import get_pretrained_cfg

    config = get_pretrained_cfg(name)
    if config is None or not config.has_weights:
        raise WeightsError(
            f"timm publishes no weights for '{name}'; give a file (--weights FILE), or 'random' "
            "for an untrained model"
        )
    if not config.hf_hub_id:
        return str(config.url)
    return f"{ENDPOINT}/{config.hf_hub_id} (file {config.hf_hub_filename or 'model.safetensors'})"


def _nearest(name: str) -> str:
    return nearest(name.partition(".")[0], names())


def _preprocess(model: nn.Module, size: int | Sequence[int] | None) -> Preprocess:
    """Timm's preprocessing without augmentation, at the training size, or at `size` if given."""
    from timm.data import resolve_model_data_config

    size = (size, size) if isinstance(size, int) else size
    args = {"input_size": (3, *size)} if size else None
    config: dict[str, Any] = resolve_model_data_config(model, args=args)
    height, width = config["input_size"][1:]
    crop_pct = config["crop_pct"]
    squash = config["crop_mode"] == "squash"
    short_side = int(min(height, width) / crop_pct)
    return Preprocess(
        resize=[int(height / crop_pct), int(width / crop_pct)] if squash else short_side,
        crop=(height, width),
        mean=config["mean"],
        std=config["std"],
        interpolation=config["interpolation"] if config["interpolation"] != "random" else "bicubic",
    )


def _imagenet_labels(model: nn.Module) -> tuple[str, ...]:
    """ImageNet's class names, if the model has 1000 classes."""
    from timm.data import ImageNetInfo

    if model.num_classes != 1000:
        return ()
    info = ImageNetInfo()
    return tuple(info.index_to_description(i).split(",")[0] for i in range(1000))


def _default_layer(name: str, model: nn.Module) -> tuple[str, ...]:
    """The last layer whose grid the score depends on, from timm's metadata of the model.

    The last entry of timm's `feature_info` is right, except for four kinds of models: those with
    later features (`bn2` after `conv_head`), VGG (the entry is its last pooling; the layer before
    it is used), transformers with prefix tokens and token or attention pooling (`norm1` of the last
    block, because with token pooling the block has zero gradient on the patches), and those in
    `LAYERS`.
    """
    exceptions = [prefix for prefix in LAYERS if name.startswith(prefix)]
    if exceptions:
        return (layer_from_path(model, LAYERS[exceptions[0]]),)
    features = getattr(model, "feature_info", None)
    layer = features[-1]["module"] if features else ""
    if not layer or layer not in dict(model.named_modules()):
        return ()  # the probe finds a layer
    if hasattr(model, "conv_head") and hasattr(model, "bn2"):
        return ("bn2",)
    block = model.get_submodule(layer)
    if isinstance(block, nn.MaxPool2d):
        stem, _, number = layer.rpartition(".")
        return (f"{stem}.{int(number) - 1}",)
    pooling, prefix = getattr(model, "global_pool", "avg"), getattr(model, "num_prefix_tokens", 0)
    uses_class_token = pooling in ("token", "map", "") and prefix > 0
    # In CaiT, `blocks_token_only` read the patches after this block, so its output has gradients.
    if uses_class_token and hasattr(block, "norm1") and not hasattr(model, "blocks_token_only"):
        return (f"{layer}.norm1",)
    return (layer,)


def _to_grid_of(model: nn.Module) -> ToGrid:
    """The grid function of a model, by the reduction and channel number of its `feature_info`."""
    features = getattr(model, "feature_info", None) or [{}]
    reduction, channels = features[-1].get("reduction"), features[-1].get("num_chs")
    max_prefix = max(8, getattr(model, "num_prefix_tokens", 0))

    def layer_to_grid(layer: str, tensor: Tensor, space: Sequence[int]) -> Tensor:
        if tensor.ndim == 3 and reduction:
            rows, columns = (math.ceil(length / reduction) for length in space)
            prefix = tensor.shape[1] - rows * columns
            if 0 <= prefix <= max_prefix:
                return to_grid(tensor, space, prefix=prefix)
        if tensor.ndim == 4 and channels in (tensor.shape[1], tensor.shape[3]):
            return to_grid(tensor, space, channels_last=tensor.shape[1] != channels)
        return to_grid(tensor, space)

    return layer_to_grid
