"""The CNN of a captioner or a VQA model: a classifier with its own recipe, split in two."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, nn

from mmcam.adapters.base.classifier import Classifier
from mmcam.adapters.base.preprocess import Preprocess
from mmcam.adapters.base.recipe import Recipe
from mmcam.adapters.networks.cnn import feature_sizes, split_cnn
from mmcam.errors import ModelError

PROBE = 224
"""The side, in pixels, of the blank picture with which the size of a CNN's features is measured."""


class CnnPart(NamedTuple):
    """A trunk that maps pictures to feature maps, and a head that pools the maps into vectors.

    The maps have `channels` channels, the vectors `features` entries.
    """

    classifier: Classifier
    preprocess: Preprocess
    trunk: nn.Module
    head: nn.Module
    channels: int
    features: int

    def to_grid(self, layer: str, tensor: Tensor, space: Sequence[int]) -> Tensor:
        """A layer's output as a grid over the input.

        `layer` is named as in a model that holds the trunk as its submodule `cnn`.

        Raises:
            LayerError: the layer has no grid.
        """
        return self.classifier.to_grid(layer.removeprefix("cnn."), tensor, space)


def cnn_part(recipe: Recipe) -> CnnPart | None:
    """The CNN among a recipe's parts, split in two.

    None if the recipe has no CNN, or one that is no `Classifier` with a `Preprocess`.

    Raises:
        ModelError: the CNN cannot be split, or takes clips.
    """
    cnn = recipe.parts.get("cnn")
    if not isinstance(cnn, Classifier) or not isinstance(cnn.preprocess, Preprocess):
        return None
    if cnn.window is not None:
        raise ModelError(
            f"{cnn.name} is a model of clips, and the cnn takes pictures; choose a convolutional "
            "network of torchvision or timm for pictures as the cnn"
        )
    trunk, head = split_cnn(cnn.model, next(iter(cnn.layers), None), cnn.name)
    return CnnPart(cnn, cnn.preprocess, trunk, head, *feature_sizes(trunk, head, PROBE))
