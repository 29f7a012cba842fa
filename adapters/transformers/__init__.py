"""Models of transformers from the hub, a folder or a configuration: classifiers, captioners, VQA.

`model_types` is the table of generative model types, `classifiers` that of classifiers.
"""

from __future__ import annotations

from collections.abc import Sequence

from mmcam.adapters.base.captioner import CaptionAdapter
from mmcam.adapters.base.classifier import Classifier
from mmcam.adapters.base.recipe import Recipe
from mmcam.adapters.transformers.classifiers import CLASSIFIER_TYPES, load_classifier
from mmcam.adapters.transformers.generative import load_generative
from mmcam.adapters.transformers.loading import read_config
from mmcam.adapters.transformers.model_types import MODEL_TYPES
from mmcam.adapters.transformers.vilt import load_vilt


def names() -> Sequence[str]:
    """The model types that are known; any hub name or folder of theirs works."""
    return [*CLASSIFIER_TYPES, *MODEL_TYPES, "vilt"]


def load(recipe: Recipe) -> Classifier | CaptionAdapter:
    """A model by hub name or folder; untrained, a model type will do (`hf:vit`).

    A model with words that is named by its type needs a processor: `args["processor"]` is its
    folder. Which of a type's models it is, its configuration says (`architectures`).

    Raises:
        ModelError: no such model, or one that neither classifies pictures or clips nor says
            captions or answers; one with words that comes without its processor.
        WeightsError: the weights do not fit.
    """
    config = read_config(recipe, names())
    if config.model_type in MODEL_TYPES:
        return load_generative(recipe, config)
    if config.model_type == "vilt":
        return load_vilt(recipe, config)
    return load_classifier(recipe, config)
