"""A convolutional network small enough to ship with the package, for captioners and VQA models."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn


class SmallCNN(nn.Module):
    """Convolutions to a map of 1/8 the picture's side, then a vector that encodes positions.

    Global average pooling alone loses spatial relations, such as "left of". So the vector is
    computed from the mean over all cells, from a few weighted means, whose learnt weights depend on
    a cell's content and position, and from the mean positions of these weights. The two parts are
    `forward_features` and `forward_head`, as in timm.

    Args:
        classes: the number of classes; 0 for a network that only computes the vector.
        channels: channels of the convolutions, the first 5 x 5 and the others 3 x 3; the last
            entry is the number of channels of the map.
        strides: the stride of each convolution.
        looks: the number of weighted means.
        values: the number of values per cell that each weighted mean averages.
        cells: the side of the grid on which the weights are computed, in cells.
        features: the length of the vector.
    """

    def __init__(
        self,
        classes: int = 0,
        channels: Sequence[int] = (32, 64, 64, 128, 128),
        strides: Sequence[int] = (2, 2, 1, 2, 1),
        looks: int = 24,
        values: int = 48,
        cells: int = 12,
        features: int = 384,
    ) -> None:
        super().__init__()
        last = channels[-1]
        self.trunk = nn.Sequential(
            *(
                _block(inputs, outputs, 3 if index else 5, stride)
                for index, (inputs, outputs, stride) in enumerate(
                    zip([3, *channels[:-1]], channels, strides, strict=True)
                )
            )
        )
        self.mix = _block(last, last, 3, 1)
        self.cells = nn.AdaptiveAvgPool2d(cells)
        self.looks = nn.Conv2d(last, looks, 1)
        self.values = nn.Conv2d(last, values, 1)
        self.places = nn.Parameter(torch.randn(looks, cells * cells) / 2)
        self.vector = nn.Sequential(nn.Linear(last + looks * (values + 2), features), nn.ReLU())
        self.classifier = nn.Linear(features, classes) if classes else nn.Identity()

    def forward(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b _"]:
        """The logits of the classes; without classes, the vector."""
        return self.forward_head(self.forward_features(pixels))

    def forward_features(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c gh gw"]:
        """The map on which captions and answers are explained."""
        maps: Tensor = self.trunk(pixels)
        return maps

    def forward_head(
        self, maps: Float[Tensor, "b c gh gw"], pre_logits: bool = False
    ) -> Float[Tensor, "b _"]:
        """The logits of a map, or its vector with `pre_logits`."""
        mixed = self.cells(self.mix(maps))
        side = mixed.shape[-1]
        values = self.values(mixed).flatten(2)
        weights = (self.looks(mixed).flatten(2) + self.places).softmax(2)
        steps = torch.linspace(-1, 1, side, device=maps.device, dtype=weights.dtype)
        positions = torch.stack([steps.repeat(side), steps.repeat_interleave(side)], 1)
        means = weights.to(values.dtype) @ values.transpose(1, 2)
        parts = [mixed.mean((2, 3)), means.flatten(1), (weights @ positions).flatten(1)]
        vector: Tensor = self.vector(torch.cat(parts, 1))
        logits: Tensor = vector if pre_logits else self.classifier(vector)
        return logits


def _block(inputs: int, outputs: int, side: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, side, stride, side // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )
