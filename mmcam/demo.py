"""`mmcam demo`: the main job on a picture and a clip made on the spot, with no download.

The network here is small, and its weights are written down, not learnt: a channel for each colour,
and for a clip two for each colour that comes and goes. What it must look at is therefore known, and
the maps can be checked by eye.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from mmcam import draw
from mmcam.adapters.classifier import Classifier
from mmcam.adapters.preprocess import Preprocess
from mmcam.explain import explain
from mmcam.media import write_image
from mmcam.models import wrap
from mmcam.render import overlay, sheet
from mmcam.store import Explanations
from mmcam.tasks import Actions, Classes
from mmcam.types import Pixels, Sample

COLOURS = {"red": (214, 69, 65), "green": (63, 160, 91), "blue": (58, 110, 196)}
PAPER = (232, 228, 218)
HEIGHT, WIDTH = 240, 320
FRAMES = 32


class ColourNet(nn.Module):
    """How much of each colour there is in a picture, or how much of it moves in a clip.

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
            # Two channels a colour: what is there in the next frame and not in this, and the
            # other way round.
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
    """The demo's network as `mmcam.wrap` makes any module explainable."""
    what = "{} moves" if clips else "{}"
    recipe = Preprocess(mean=(0, 0, 0), std=(1, 1, 1), frames=16 if clips else None)
    return wrap(
        ColourNet(clips),
        prepare=recipe,
        layer="trunk",
        labels=[what.format(colour) for colour in COLOURS],
        name="the demo's colour network",
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


def run(folder: Path) -> Iterator[str]:
    """Explain the picture and the clip, write the usual files, and say in words what they show."""
    yield "The demo's network is small and its weights are set by hand; it is not a trained model."
    picture = scene({"red": (0.25, 0.3), "green": (0.7, 0.35), "blue": (0.45, 0.75)})
    found = explain(
        model(clips=False),
        Sample(pixels=picture, id="three discs"),
        Classes(tuple(COLOURS)),
    )
    yield from _saved(found, folder / "picture")
    moved = explain(model(clips=True), clip(), Actions(["red moves", "blue moves", "green moves"]))
    yield from _saved(moved, folder / "clip")
    write_image(folder / "demo.png", _sheet(found, picture, moved))
    yield f"Look at {folder / 'demo.png'} first."


def _sheet(found: Explanations, picture: Pixels, moved: Explanations) -> draw.Picture:
    """The picture's maps, and below them frames of the clip: red in the first row, then blue."""
    frames = range(2, FRAMES, 8)
    tiles = [(picture, "picture", "")]
    tiles += [draw.tile(explanation, picture) for explanation in found]
    for explanation in moved[:2]:
        heatmaps = explanation.heatmap(frames)
        tiles += [
            (overlay(pixels, heatmap), explanation.label, f"frame {frame} of the clip")
            for frame, pixels, heatmap in zip(frames, clip()[frames], heatmaps, strict=True)
        ]
    return sheet(tiles, columns=4)


def _saved(found: Explanations, folder: Path) -> Iterator[str]:
    found.save(folder, command=["mmcam", "demo"])
    for explanation in found:
        peak = explanation.peak()
        where = f"strongest at x {peak.x:.0f}, y {peak.y:.0f}"
        where += "" if peak.frame is None else f" in frame {peak.frame}"
        said = "no positive evidence" if explanation.empty else where
        yield f"  {explanation.label:12s} score {explanation.score:6.2f}   {said}"
    yield f"  written to {folder}"
