"""Models of transformers from the hub, a folder or a configuration: classifiers, captioners, VQA.

`model_types` is the table of generative model types, `classifiers` that of classifiers.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from mmcam.adapters.base.captioner import CaptionAdapter
from mmcam.adapters.base.classifier import Classifier
from mmcam.adapters.base.downloads import without_retries
from mmcam.adapters.base.recipe import Recipe
from mmcam.adapters.transformers.classifiers import (
    CLASSIFIER_TYPES,
    adapt_classifier,
    read_classifier,
)
from mmcam.adapters.transformers.generative import adapt_generative, read_generative
from mmcam.adapters.transformers.in_memory import given_model
from mmcam.adapters.transformers.loading import LoadedModel, read_config
from mmcam.adapters.transformers.model_types import MODEL_TYPES
from mmcam.adapters.transformers.vilt import adapt_vilt, read_vilt


def names() -> Sequence[str]:
    """The known model types; any hub name or folder of a model of these types works."""
    return [*CLASSIFIER_TYPES, *MODEL_TYPES, "vilt"]


def load(recipe: Recipe) -> Classifier | CaptionAdapter:
    """A model by hub name or folder, or an untrained one by its model type (`hf:vit`).

    An untrained model that takes or generates text needs a processor: `args["processor"]` is its
    folder. The configuration's `architectures` choose among several models of a type.

    Raises:
        ModelError: no such model; a model that neither classifies pictures or clips nor generates
            captions or answers; a model that takes or generates text without its processor.
        WeightsError: the weights do not fit, are missing or cannot be downloaded.
        MissingExtra: the processor needs a package that is not installed.
    """
    is_local = Path(recipe.name).is_dir() or not recipe.pretrained
    with nullcontext() if is_local else without_retries():
        config = read_config(recipe, names())
        if config.model_type in MODEL_TYPES:
            loaded = read_generative(recipe, config)
        elif config.model_type == "vilt":
            loaded = read_vilt(recipe, config)
        else:
            loaded = read_classifier(recipe, config)
    return _adapt(recipe, loaded)


def adapt(recipe: Recipe, model: Any, processor: Any) -> Classifier | CaptionAdapter:
    """The adapter of a model of transformers in memory; only the recipe's overrides are used.

    Args:
        recipe: the model's name in results (`family`), labels and default layers.
        model: the model; it is not changed.
        processor: its combined processor, a pair of image processor and tokenizer, or the image or
            video processor of a classifier.

    Raises:
        ModelError: as `in_memory.given_model`, or the model's configuration is incomplete.
    """
    return _adapt(recipe, given_model(model, processor, names()))


def _adapt(recipe: Recipe, loaded: LoadedModel) -> Classifier | CaptionAdapter:
    """The adapter for the type of model that the configuration names."""
    model: Any = loaded.model
    if model.config.model_type in MODEL_TYPES:
        return adapt_generative(recipe, loaded)
    if model.config.model_type == "vilt":
        return adapt_vilt(recipe, loaded)
    return adapt_classifier(recipe, loaded)
