"""The small CNN of the packaged models, as a classifier and as the CNN of other families."""

from __future__ import annotations

from collections.abc import Sequence

from mmcam.adapters.base.classifier import Classifier
from mmcam.adapters.base.preprocess import Preprocess
from mmcam.adapters.base.recipe import Recipe
from mmcam.adapters.networks.small_cnn import SmallCNN

PREPROCESS = Preprocess(resize=96, crop=96, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
"""The preprocessing for the scenes of `mmcam.shapes`."""


def names() -> Sequence[str]:
    """No names: this model needs a model folder with its weights."""
    return []


def load(recipe: Recipe) -> Classifier:
    """A `networks.small_cnn.SmallCNN` with `recipe.args`.

    Raises:
        ModelError: wrong preprocessing.
        WeightsError: the weights do not fit.
    """
    model = SmallCNN(**recipe.args)
    return Classifier(
        name=recipe.title,
        model=model,
        preprocess=recipe.preprocessing(PREPROCESS),
        labels=recipe.labels,
        layers=recipe.layers or ("trunk",),
        weights=recipe.load_weights(model),
    )
