"""Image and video classifiers of transformers: default layers and preprocessing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn

from mmcam.adapters.base.classifier import Classifier, ToGrid
from mmcam.adapters.base.preprocess import Preprocess
from mmcam.adapters.base.recipe import Recipe, layer_from_path
from mmcam.adapters.transformers.loading import LoadedModel, load_pretrained, load_weights
from mmcam.errors import ModelError, WeightsError, nearest
from mmcam.grids import to_grid


class ClassifierType(NamedTuple):
    """The default layer of a model type, and the number of tokens before its grid.

    If `prefix` is None, the configuration gives the number (DINOv2 with registers), or the
    proportions of the model's input decide. A map of convolutions has no such tokens.
    """

    layer: str
    prefix: int | None = None


CLASSIFIER_TYPES: dict[str, ClassifierType] = {
    "vit": ClassifierType("vit.layers.-1.layernorm_before", 1),
    "vit_msn": ClassifierType("vit.layers.-1.layernorm_before", 1),
    "deit": ClassifierType("deit.layers.-1.layernorm_before", 2),
    "beit": ClassifierType("beit.layers.-1", 1),
    "data2vec-vision": ClassifierType("data2vec_vision.encoder.layer.-1", 1),
    "dinov2": ClassifierType("dinov2.encoder.layer.-1", 1),
    "dinov2_with_registers": ClassifierType("dinov2_with_registers.encoder.layer.-1"),
    "clip": ClassifierType("vision_model.encoder.layers.-1", 1),
    "siglip": ClassifierType("vision_model.encoder.layers.-1", 0),
    "ijepa": ClassifierType("ijepa.layers.-1", 0),
    "swin": ClassifierType("swin.layernorm", 0),
    "swinv2": ClassifierType("swinv2.layernorm", 0),
    "focalnet": ClassifierType("focalnet.layernorm", 0),
    "pvt": ClassifierType("pvt.encoder.block.-1.-1.layer_norm_1", 1),
    "pvt_v2": ClassifierType("pvt_v2.encoder.layers.-1.layer_norm", 0),
    "levit": ClassifierType("levit.encoder.stages.-1", 0),
    "hiera": ClassifierType("hiera.encoder.stages.-1", 0),
    "convnext": ClassifierType("convnext.encoder.stages.-1"),
    "convnextv2": ClassifierType("convnextv2.encoder.stages.-1"),
    "resnet": ClassifierType("resnet.encoder.stages.-1"),
    "regnet": ClassifierType("regnet.encoder.stages.-1"),
    "segformer": ClassifierType("segformer.stages.-1"),
    "mobilenet_v1": ClassifierType("mobilenet_v1.layer.-1"),
    "mobilenet_v2": ClassifierType("mobilenet_v2.conv_1x1"),
    "efficientnet": ClassifierType("efficientnet.encoder.top_activation"),
    "mobilevit": ClassifierType("mobilevit.conv_1x1_exp"),
    "mobilevitv2": ClassifierType("mobilevitv2.encoder.layer.-1"),
    "bit": ClassifierType("bit.norm"),
    "videomae": ClassifierType("videomae.encoder.layer.-1", 0),
    "timesformer": ClassifierType("timesformer.encoder.layer.-2", 1),
    "vivit": ClassifierType("vivit.layers.-1.layernorm_before", 1),
    "vjepa2": ClassifierType("vjepa2.encoder.layer.-1", 0),
}
"""Model type -> its default layer. For types that are not listed, a probe finds the layer."""

PROBABILITIES = {"multi_label_classification": "sigmoid", "regression": None}
"""`problem_type` of a configuration -> how its logits become probabilities; softmax for others."""

RESAMPLING = {0: "nearest-exact", 1: "lanczos", 3: "bicubic", 4: "box", 5: "hamming"}
"""Pillow's filter numbers, which processors store -> torchvision's names."""


def read_classifier(recipe: Recipe, config: Any) -> LoadedModel:
    """A classifier of pictures or clips with this configuration, and its processor's settings.

    Raises:
        ModelError: not a classifier, or the settings of its image processor are missing.
        WeightsError: the weights do not fit, are missing or cannot be downloaded.
    """
    model = _model(recipe, config, _is_video(config))
    settings = _read_settings(recipe)
    if "image_mean" not in settings and recipe.pretrained and recipe.preprocess is None:
        raise ModelError(
            f"'{recipe.name}' comes without the settings of its image processor, so its input "
            "cannot be prepared; save the processor with the model (processor.save_pretrained), or "
            'describe it as "preprocess" in a model folder\'s mmcam.json'
        )
    return LoadedModel(model, settings, load_weights(recipe, model, config))


def adapt_classifier(recipe: Recipe, loaded: LoadedModel) -> Classifier:
    """The adapter of a classifier of pictures or clips.

    Raises:
        ModelError: not a classifier, wrong preprocessing, or the model lacks the default layer of
            its type.
    """
    model: Any = loaded.model
    config = model.config
    video = _is_video(config)
    classifier_type = CLASSIFIER_TYPES.get(config.model_type)
    labels = tuple(name for _, name in sorted((config.id2label or {}).items()))
    has_names = not all(name.startswith("LABEL_") for name in labels)
    return Classifier(
        name=recipe.title,
        model=model,
        preprocess=recipe.preprocessing(_preprocess(loaded.processor, config, video)),
        labels=recipe.labels or (labels if has_names else ()),
        layers=recipe.layers
        or ((layer_from_path(model, classifier_type.layer),) if classifier_type else ()),
        weights=loaded.weights,
        pack=_frames_first if video else _identity,
        to_grid=_to_grid_of(config, classifier_type),
        probability=PROBABILITIES.get(config.problem_type, "softmax"),
    )


def _is_video(config: Any) -> bool:
    """Whether the configuration is that of a classifier of clips.

    Raises:
        ModelError: it is not a classifier.
    """
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES,
        MODEL_FOR_VIDEO_CLASSIFICATION_MAPPING_NAMES,
    )

    if config.model_type in MODEL_FOR_VIDEO_CLASSIFICATION_MAPPING_NAMES:
        return True
    if config.model_type in MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES:
        return False
    raise ModelError(
        f"transformers has no classifier of pictures or clips of type '{config.model_type}'; "
        f"nearest: {nearest(config.model_type, CLASSIFIER_TYPES)}"
    )


def _model(recipe: Recipe, config: Any, video: bool) -> nn.Module:
    """The model; of several classifiers, the one that `config.architectures` names, or the first.

    Raises:
        WeightsError: weights are missing or cannot be downloaded.
    """
    from transformers import AutoModelForImageClassification, AutoModelForVideoClassification

    auto = AutoModelForVideoClassification if video else AutoModelForImageClassification
    if recipe.downloads:
        model, info = load_pretrained(recipe, auto, config)
        if info["missing_keys"]:
            raise WeightsError(
                f"'{recipe.name}' holds no weights for {', '.join(sorted(info['missing_keys']))}, "
                "so it is not a trained classifier; choose a checkpoint that was trained as one"
            )
        trained: nn.Module = model
        return trained
    # `from_config` fails for types with several classifiers (DeiT, LeViT) without `architectures`.
    choice = auto._model_mapping[type(config)]
    classifiers = choice if isinstance(choice, (list, tuple)) else [choice]
    named = [c for c in classifiers if c.__name__ in (config.architectures or ())]
    untrained: nn.Module = (named or classifiers)[0](config)
    return untrained


def _preprocess(values: Mapping[str, Any], config: Any, video: bool) -> Preprocess:
    """The steps of the model's own processor: resize, crop, rescale, normalise.

    The window of a video model has as many frames as the configuration says (16 if it does not), 4
    frames apart at 30 per second.
    """
    resize, crop = _geometry(values, getattr(config, "image_size", None) or 224)
    mean, std = _normalisation(values)
    frames = getattr(config, "num_frames", None) or getattr(config, "frames_per_clip", None)
    return Preprocess(
        resize=resize,
        crop=crop,
        mean=mean,
        std=std,
        interpolation=RESAMPLING.get(values.get("resample", 2), "bilinear"),
        order="bgr" if values.get("do_flip_channel_order") else "rgb",
        centre="down",
        frames=(frames or 16) if video else None,
        stride=4 if video else 1,
        fps=30 if video else None,
    )


def _geometry(values: Mapping[str, Any], side: Any) -> tuple[Any, Any]:
    """The size that a processor resizes to (short side, or height and width), and its crop size.

    None stands for a step that the processor leaves out. `side` is the size if
    the settings name none.
    """
    size = values.get("size") or side
    if isinstance(size, Mapping):
        size = size.get("shortest_edge") or [size["height"], size["width"]]
    elif isinstance(size, int):
        size = [size, size]
    crop = values.get("crop_size") if values.get("do_center_crop") else None
    if isinstance(crop, Mapping):
        crop = [crop["height"], crop["width"]]
    if isinstance(size, int):
        processor = values.get("image_processor_type", "")
        if processor.startswith("ConvNext"):
            # Below 384 pixels, ConvNext resizes the short side to size / `crop_pct` and crops to
            # `size`; otherwise it squashes the picture to `size`.
            resized = int(size / values["crop_pct"])
            size, crop = ([size, size], crop) if size >= 384 else (resized, [size, size])
        elif processor.startswith("PoolFormer"):
            size = int(size / (values.get("crop_pct") or 1))
        elif processor.startswith("Levit"):
            size = int(256 / 224 * size)
    return (size if values.get("do_resize", True) else None), crop


def _normalisation(values: Mapping[str, Any]) -> tuple[list[float], list[float]]:
    """The mean and standard deviation for pixels divided by 255.

    Normalising with them gives the same values as the processor's own rescaling and normalisation.
    """
    mean = values.get("image_mean") or (0.5,) * 3
    std = values.get("image_std") or (0.5,) * 3
    if not values.get("do_normalize", True):
        mean, std = (0.0,) * 3, (1.0,) * 3
    scale = values.get("rescale_factor", 1 / 255) if values.get("do_rescale", True) else 1
    # The offset of ViViT and EfficientNet: they subtract 1 after rescaling.
    offset = float(bool(values.get("offset") or values.get("rescale_offset")))
    if values.get("include_top"):  # EfficientNet divides by std twice
        return [(offset + m) / (255 * scale) for m in mean], [s * s / (255 * scale) for s in std]
    return [(offset + m) / (255 * scale) for m in mean], [s / (255 * scale) for s in std]


def _read_settings(recipe: Recipe) -> Mapping[str, Any]:
    """The settings of the model's processor; empty if it has none, as an untrained model type."""
    from transformers import CONFIG_MAPPING, AutoImageProcessor, AutoVideoProcessor

    if not recipe.pretrained and recipe.name in CONFIG_MAPPING:
        return {}
    for auto in (AutoImageProcessor, AutoVideoProcessor):
        try:
            return settings_of(auto.from_pretrained(recipe.name, **recipe.hub_options))
        except (OSError, ValueError):
            continue
    return {}


def settings_of(processor: Any) -> Mapping[str, Any]:
    """The settings of an image or video processor."""
    # `to_dict` omits the settings that a class disables with None.
    off = dict.fromkeys(("do_resize", "do_rescale", "do_normalize"))
    return {**off, **processor.to_dict()}


def _frames_first(pixels: Tensor) -> Tensor:
    return pixels.transpose(1, 2)


def _identity(pixels: Tensor) -> Tensor:
    return pixels


def _to_grid_of(config: Any, classifier_type: ClassifierType | None) -> ToGrid:
    """The function that turns a layer's output into a grid: prefix, time slices, token order."""
    tubelet = getattr(config, "tubelet_size", 1)
    tubelet = tubelet if isinstance(tubelet, int) else tubelet[0]
    prefix = classifier_type.prefix if classifier_type else None
    if config.model_type == "dinov2_with_registers":
        prefix = 1 + config.num_register_tokens

    def layer_to_grid(layer: str, tensor: Tensor, space: Sequence[int]) -> Tensor:
        if config.model_type == "timesformer" and tensor.ndim == 3:
            return _columns_then_time(tensor, space)
        slices = space[0] // tubelet if len(space) == 3 else 1
        return to_grid(tensor, space, prefix=prefix, slices=slices)

    return layer_to_grid


def _columns_then_time(tensor: Tensor, space: Sequence[int]) -> Tensor:
    """TimeSformer's tokens as a grid: a class token, then patches; frames vary fastest."""
    frames, height, width = space
    # These cells are in the wrong order; only the numbers of rows and columns are used.
    time_first = to_grid(tensor, (frames, height, width), prefix=1, slices=frames)
    rows, columns = time_first.shape[3:]
    grid = tensor[:, 1:].movedim(-1, 1).reshape(len(tensor), -1, rows, columns, frames)
    return grid.movedim(-1, 2)
