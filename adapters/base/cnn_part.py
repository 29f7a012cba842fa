"""The CNN of a captioner or a model of answers: a classifier from its own recipe, cut in two."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, nn

from mmcam.adapters.base.classifier import Classifier
from mmcam.adapters.base.preprocess import Preprocess
from mmcam.adapters.base.recipe import Recipe
from mmcam.adapters.networks.cnn import halves, width

PROBE = 224
"""The side of the picture that tells how wide a CNN's features are, in pixels."""


class CnnPart(NamedTuple):
    """A trunk that makes maps and a head that makes vectors of them.

    `channels` is how many the maps have, `features` how long the vectors are.
    """

    classifier: Classifier
    preprocess: Preprocess
    trunk: nn.Module
    head: nn.Module
    channels: int
    features: int

    def to_grid(self, layer: str, tensor: Tensor, space: Sequence[int]) -> Tensor:
        """A layer of the model that has the trunk as its `cnn`, as a grid over the input."""
        return self.classifier.to_grid(layer.removeprefix("cnn."), tensor, space)


def cnn_part(recipe: Recipe) -> CnnPart | None:
    """The CNN that a recipe has among its parts; None where it has none.

    Raises:
        ModelError: it cannot be cut in two.
    """
    cnn = recipe.parts.get("cnn")
    if not isinstance(cnn, Classifier) or not isinstance(cnn.preprocess, Preprocess):
        return None
    trunk, head = halves(cnn.model, cnn.layers[0], cnn.name)
    return CnnPart(cnn, cnn.preprocess, trunk, head, *width(trunk, head, PROBE))
