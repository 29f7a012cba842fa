"""From a sample's pixels to a model's input, keeping track of where the input lies."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mmcam.errors import InputError, ModelError
from mmcam.types import Inputs, Pixels, Placement, Sample, Window

Box = tuple[float, float, float, float]


@dataclass(frozen=True, kw_only=True)
class Preprocess:
    """Resize, crop at the centre, scale to [0, 1], normalise: the recipe of most vision models.

    `resize` is the length of the short side, or (height, width) to squash the picture into; `crop`
    a side or (height, width), padded with black where the picture is smaller. `mean` and `std` are
    per colour after division by 255, in the model's `order` of colours, "rgb" or "bgr". `centre`
    says how a crop lies that cannot be central to the pixel: "round" to the nearest, halves to
    even, as torchvision and timm do, or "down", as transformers does. `frames`, `stride` and `fps`
    are a video model's window.
    """

    resize: int | Sequence[int] | None = None
    crop: int | Sequence[int] | None = None
    mean: Sequence[float] = (0.485, 0.456, 0.406)
    std: Sequence[float] = (0.229, 0.224, 0.225)
    interpolation: str = "bilinear"
    order: str = "rgb"
    centre: str = "round"
    frames: int | None = None
    stride: float = 1.0
    fps: float | None = None

    @staticmethod
    def of(values: Mapping[str, Any]) -> Preprocess:
        """The recipe in a model folder's `mmcam.json`.

        Raises:
            ModelError: a key that this recipe does not know.
        """
        known = [field.name for field in fields(Preprocess)]
        unknown = [key for key in values if key not in known]
        if unknown:
            raise ModelError(
                f"preprocess has no '{unknown[0]}'; it takes {', '.join(known)}; mend mmcam.json"
            )
        return Preprocess(**values)

    @property
    def window(self) -> Window | None:
        """What a video model sees at once; None for pictures."""
        if self.frames is None:
            return None
        return Window(frames=self.frames, stride=self.stride, fps=self.fps)

    def __call__(self, sample: Sample) -> tuple[Tensor, Placement]:
        """The input `[3, *time, height, width]` in float32, and where it lies on the sample."""
        pixels = torch.from_numpy(np.ascontiguousarray(sample.pixels)).movedim(-1, -3)
        resized = self._resized(pixels)
        cropped, (left, top) = self._cropped(resized)
        values = cropped.float().div_(255)
        values = values.flip(-3) if self.order == "bgr" else values
        values = (values - _column(self.mean)) / _column(self.std)
        height, width = pixels.shape[-2:]
        down, across = height / resized.shape[-2], width / resized.shape[-1]
        bottom, right = top + cropped.shape[-2], left + cropped.shape[-1]
        box = (left * across, top * down, right * across, bottom * down)
        placement = Placement(size=(height, width), box=box, spans=spans_of(sample))
        return (values if values.ndim == 3 else values.transpose(0, 1)), placement

    def _resized(self, pixels: Tensor) -> Tensor:
        from torchvision.transforms import InterpolationMode
        from torchvision.transforms.v2.functional import resize

        if self.resize is None:
            return pixels
        size = [self.resize] if isinstance(self.resize, int) else list(self.resize)
        resized: Tensor = resize(
            pixels, size, InterpolationMode(self.interpolation), antialias=True
        )
        return resized

    def _cropped(self, pixels: Tensor) -> tuple[Tensor, tuple[int, int]]:
        from torchvision.transforms.v2.functional import crop

        if self.crop is None:
            return pixels, (0, 0)
        height, width = (self.crop, self.crop) if isinstance(self.crop, int) else self.crop
        top, left = self._corner(pixels.shape[-2], height), self._corner(pixels.shape[-1], width)
        return crop(pixels, top, left, height, width), (left, top)

    def _corner(self, length: int, side: int) -> int:
        """Where a crop of `side` begins; before 0 by half of what is padded, rounded down."""
        if side > length:
            return -((side - length) // 2)
        return round((length - side) / 2) if self.centre == "round" else (length - side) // 2


def _column(values: Sequence[float]) -> Tensor:
    return torch.tensor(list(values), dtype=torch.float32).view(3, 1, 1)


def batch_of(
    samples: Sequence[Sample], preprocess: Preprocess | Transform, model: nn.Module, name: str
) -> Inputs:
    """The samples preprocessed and stacked, on the model's device and in its number type.

    Raises:
        InputError: a picture for a video model or the other way round, or samples whose inputs
            differ in size.
    """
    video = preprocess.window is not None
    for sample in samples:
        if (sample.pixels.ndim == 4) != video:
            has = "clips" if video else "pictures"
            given = "clip" if sample.pixels.ndim == 4 else "picture"
            raise InputError(
                f"'{sample.id}' is a {given} and {name} is a model of {has}; choose another model "
                "(mmcam list models)"
            )
    made = [preprocess(sample) for sample in samples]
    sizes = {tuple(pixels.shape) for pixels, _ in made}
    if len(sizes) > 1:
        raise InputError(
            f"inputs of different sizes {sorted(sizes)} cannot be one batch; crop to one size in "
            "the transform, or explain them one by one"
        )
    parameter = next(model.parameters(), torch.zeros(()))
    pixels = torch.stack([pixels for pixels, _ in made])
    return Inputs(
        pixels=pixels.to(device=parameter.device, dtype=parameter.dtype),
        placements=tuple(placement for _, placement in made),
    )


def spans_of(sample: Sample) -> tuple[tuple[float, float], ...]:
    """The placement's spans for a sample: none for a picture, its own or all frames for a clip."""
    if sample.pixels.ndim == 3:
        return ()
    return (sample.span or (0.0, float(len(sample.pixels))),)


@dataclass(frozen=True)
class Transform:
    """Somebody's own transform of a PIL image (torchvision, timm, an image processor's call).

    Where its output lies on the picture is found by sending ramps through it, not by reading it,
    so any mixture of resizing, cropping and padding works. A clip is transformed frame by frame.
    `frames`, `stride` and `fps` are a video model's window.
    """

    function: Callable[[Any], Tensor]
    frames: int | None = None
    stride: float = 1.0
    fps: float | None = None

    @property
    def window(self) -> Window | None:
        """What a video model sees at once; None for pictures."""
        if self.frames is None:
            return None
        return Window(frames=self.frames, stride=self.stride, fps=self.fps)

    def __call__(self, sample: Sample) -> tuple[Tensor, Placement]:
        """The input `[3, *time, height, width]`, and where it lies on the sample.

        Raises:
            ModelError: the transform does not give `[3, height, width]`, draws random numbers, or
                moves pixels in a way that is no resizing, cropping or padding.
        """
        height, width = sample.pixels.shape[-3:-1]
        placement = Placement(
            size=(height, width), box=self._box(height, width), spans=spans_of(sample)
        )
        if sample.pixels.ndim == 3:
            return self._one(sample.pixels), placement
        return torch.stack([self._one(frame) for frame in sample.pixels], 1), placement

    def _one(self, pixels: Pixels) -> Tensor:
        from PIL import Image

        value = self.function(Image.fromarray(pixels))
        if not isinstance(value, Tensor) or value.ndim != 3 or len(value) != 3:
            got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise ModelError(
                f"the transform gives {got} for a picture; it must give a tensor [3, height, width]"
            )
        return value.float()

    def _box(self, height: int, width: int) -> Box:
        """Where the output's edges lie on a picture of this size."""
        whole = (height, width)
        before = _random_states()
        black, white, x, y = (
            self._one(np.round(values).clip(0, 255).astype(np.uint8)).double()
            for values in (
                np.full((*whole, 3), 0),
                np.full((*whole, 3), 255),
                np.broadcast_to(_ramp(width), (*whole, 3)),
                np.broadcast_to(_ramp(height)[:, None], (*whole, 3)),
            )
        )
        if _random_states() != before:
            raise ModelError(
                "the transform draws random numbers (a random crop, a flip?), so nobody knows "
                "where its output lies; use the transform for evaluation"
            )
        reach = (white - black).abs()
        seen = (reach > 0.5 * reach.amax((1, 2), keepdim=True)).all(0)
        scale = torch.where(seen, white - black, 1)
        left, right = _extent(((x - black) / scale).mean(0), seen, 1, width)
        top, bottom = _extent(((y - black) / scale).mean(0), seen, 0, height)
        return left, top, right, bottom


def _ramp(length: int) -> NDArray[np.float64]:
    """From 1 to 254 along an axis; the colours a third of a level apart, against rounding."""
    thirds = np.array([-1, 0, 1]) / 3
    return np.linspace(1, 254, length)[:, None] + thirds


def _random_states() -> tuple[object, ...]:
    """The states of the generators that transforms draw from."""
    _, keys, position, *_ = np.random.get_state()
    torch_state = torch.get_rng_state().numpy().tobytes()
    return random.getstate(), np.asarray(keys).tobytes(), position, torch_state


def _extent(ramp: Tensor, seen: Tensor, axis: int, length: int) -> tuple[float, float]:
    """The first and last edge of the output along `axis`, on an original of `length` pixels."""
    if length == 1:
        return 0.0, 1.0
    shares = (ramp * seen).sum(1 - axis) / seen.sum(1 - axis).clamp(min=1)
    inside = seen.any(1 - axis)
    at = torch.arange(len(shares), dtype=torch.float64)[inside] + 0.5
    source = (255 * shares[inside] - 1) / 253 * (length - 1) + 0.5
    if len(at) < 2:
        return 0.0, float(length)
    slope = ((at - at.mean()) * (source - source.mean())).sum() / ((at - at.mean()) ** 2).sum()
    first = source.mean() - slope * at.mean()
    if slope <= 0 or (source - first - slope * at).abs().max() > max(2.0, 0.02 * length):
        raise ModelError(
            "the transform moves pixels in a way that is no resizing, cropping or padding (a flip, "
            "a random or a warping step?); use the transform for evaluation"
        )
    return float(first), float(first + slope * len(shares))
