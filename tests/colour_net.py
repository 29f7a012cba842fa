"""A network with hand-set weights, so that the pixels of its evidence are known.

One channel per colour; for clips two per colour, for appearing and disappearing.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from mmcam.adapters.base.classifier import Classifier
from mmcam.adapters.base.preprocess import Preprocess
from mmcam.models import wrap
from mmcam.types import Pixels

COLOURS = {"red": (214, 69, 65), "green": (63, 160, 91), "blue": (58, 110, 196)}
PAPER = (232, 228, 218)
HEIGHT, WIDTH = 240, 320
FRAMES = 32


class ColourNet(nn.Module):
    """The amount of each colour in a picture, or the amount that moves in a clip.

    Built like any classifier: convolution, ReLU, pooling, a linear layer. Takes `[b, 3, *space]` in
    [0, 1] and gives logits `[b, 3]` for red, green and blue.
    """

    def __init__(self, clips: bool) -> None:
        super().__init__()
        convolution = nn.Conv3d if clips else nn.Conv2d
        # A colour's channel is its excess over the mean of the two others.
        colours = convolution(3, 3, 1)
        _write(colours, 1.5 * torch.eye(3) - 0.5, bias=-0.15)
        self.trunk = nn.Sequential(colours, nn.ReLU())
        if clips:
            # Two channels per colour: present in the next frame only, and in this frame only.
            change = nn.Conv3d(3, 6, (2, 1, 1))
            pairs = torch.stack([torch.eye(3), -torch.eye(3)]).flatten(0, 1)
            _write(change, torch.stack([-pairs, pairs], 2))
            self.trunk += nn.Sequential(change, nn.ReLU())
        self.trunk.append(nn.AvgPool3d((1, 16, 16)) if clips else nn.AvgPool2d(16))
        self.head = nn.Linear(6 if clips else 3, 3)
        _write(self.head, 100 * torch.eye(3).repeat(1, 2 if clips else 1))

    def forward(self, pixels: Tensor) -> Tensor:
        logits: Tensor = self.head(self.trunk(pixels).flatten(2).mean(2))
        return logits


def _write(layer: nn.Conv2d | nn.Conv3d | nn.Linear, weight: Tensor, bias: float = 0.0) -> None:
    with torch.no_grad():
        layer.weight.copy_(weight.reshape(layer.weight.shape))
        assert layer.bias is not None
        layer.bias.fill_(bias)


def model(clips: bool) -> Classifier:
    """The network as `mmcam.wrap` makes any module explainable."""
    what = "{} moves" if clips else "{}"
    recipe = Preprocess(mean=(0, 0, 0), std=(1, 1, 1), frames=16 if clips else None)
    return wrap(
        ColourNet(clips),
        prepare=recipe,
        layer="trunk",
        labels=[what.format(colour) for colour in COLOURS],
        name="the colour network",
    )


def scene(places: dict[str, tuple[float, float]]) -> Pixels:
    """Discs of the colours, each with its middle at (x, y) in shares of the picture."""
    down, across = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
    pixels = np.empty((HEIGHT, WIDTH, 3), np.float32)
    pixels[:] = PAPER
    for colour, (x, y) in places.items():
        distance = np.hypot(across - x * WIDTH, down - y * HEIGHT)
        cover = np.clip(30 - distance, 0, 1)[..., None]
        pixels += cover * (np.asarray(COLOURS[colour], np.float32) - pixels)
    return pixels.round().astype(np.uint8)


def clip() -> np.ndarray:
    """Red slides in the first half of the clip and blue in the second; green never moves."""
    frames = []
    for frame in range(FRAMES):
        first, second = np.clip([frame / (FRAMES / 2), frame / (FRAMES / 2) - 1], 0, 1)
        frames.append(
            scene({"red": (0.2 + 0.6 * first, 0.22), "blue": (0.8 - 0.6 * second, 0.78),
                   "green": (0.5, 0.5)})
        )  # fmt: skip
    return np.stack(frames)
