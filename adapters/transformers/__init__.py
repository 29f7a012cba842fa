"""Models of transformers from the hub, a folder or a configuration: classifiers, captioners, VQA.

`model_types` is the table of generative model types, `classifiers` that of classifiers.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from mmcam.adapters.base.captioner import CaptionAdapter
from mmcam.adapters.base.classifier import Classifier
from mmcam.adapters.base.downloads import without_retries
from mmcam.adapters.base.recipe import Recipe
from mmcam.adapters.transformers.classifiers import CLASSIFIER_TYPES, load_classifier
from mmcam.adapters.transformers.generative import load_generative
from mmcam.adapters.transformers.loading import read_config
from mmcam.adapters.transformers.model_types import MODEL_TYPES
from mmcam.adapters.transformers.vilt import load_vilt


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
        return _load(recipe)


def _load(recipe: Recipe) -> Classifier | CaptionAdapter:
    """The adapter for the type of model that the configuration names."""
    config = read_config(recipe, names())
    if config.model_type in MODEL_TYPES:
        return load_generative(recipe, config)
    if config.model_type == "vilt":
        return load_vilt(recipe, config)
    return load_classifier(recipe, config)
