"""Turn a sample's pixels into a model's input, and locate the input on the sample."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from numbers import Real
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mmcam.errors import InputError, ModelError
from mmcam.types import Inputs, Pixels, Placement, Sample, Window

Box = tuple[float, float, float, float]

MAX_SIZES = 10_000
"""The maximum number of picture sizes for which a `Transform` keeps its measurements."""


INTERPOLATIONS = ("nearest", "nearest-exact", "bilinear", "bicubic", "lanczos")
"""The values of torchvision's `InterpolationMode` that resize tensors."""


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def _is_positive(value: Any) -> bool:
    return _is_number(value) and value > 0


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and _is_positive(value)


def _are(check: Callable[[Any], bool], count: int, value: Any) -> bool:
    """Whether a value is a sequence of `count` items that all pass the check."""
    is_sequence = isinstance(value, (Sequence, np.ndarray))
    return is_sequence and len(value) == count and all(map(check, value))


def _is_size(value: Any) -> bool:
    return value is None or _is_count(value) or _are(_is_count, 2, value)


SETTINGS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "resize": (_is_size, "a number of pixels, (height, width) or None"),
    "crop": (_is_size, "a number of pixels, (height, width) or None"),
    "mean": (partial(_are, _is_number, 3), "three numbers, one for each channel"),
    "std": (partial(_are, _is_positive, 3), "three numbers above 0, one for each channel"),
    "interpolation": (INTERPOLATIONS.__contains__, f"one of {', '.join(INTERPOLATIONS)}"),
    "order": (("rgb", "bgr").__contains__, "rgb or bgr"),
    "centre": (("round", "down").__contains__, "round or down"),
    "frames": (lambda value: value is None or _is_count(value), "a number of frames or None"),
    "stride": (_is_positive, "a number of frames above 0"),
    "fps": (lambda value: value is None or _is_positive(value), "frames per second or None"),
}
"""Field of `Preprocess` -> a check of its value, and what it takes."""


@dataclass(frozen=True, kw_only=True)
class Preprocess:
    """Resize, centre crop, scale to [0, 1] and normalise, as most vision models need.

    `resize` is the length of the short side, or the (height, width) that the picture is squashed
    to. `crop` is a side or (height, width); a smaller picture is padded with black. If `resize` or
    `crop` is None, this step is left out. `interpolation` is one of `INTERPOLATIONS`. `mean` and
    `std` are per channel after division by 255, in the model's channel `order`, "rgb" or "bgr".
    `centre` is how the corner of a centre crop is rounded: "round" to the nearest pixel, halves to
    even, as in torchvision and timm, or "down", as in transformers.
    `frames`, `stride` and `fps` are a video model's window.

    Raises:
        ModelError: a value that its field does not take.
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

    def __post_init__(self) -> None:
        for key, (is_valid, description) in SETTINGS.items():
            value = getattr(self, key)
            if not is_valid(value):
                raise ModelError(f"preprocess has {key}={value!r}; it must be {description}")

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> Preprocess:
        """The preprocessing in a model folder's `mmcam.json`.

        Raises:
            ModelError: an unknown key, or a value that it does not take.
        """
        known = [field.name for field in fields(Preprocess)]
        unknown = [key for key in values if key not in known]
        if unknown:
            raise ModelError(
                f"preprocess has no '{unknown[0]}'; it takes {', '.join(known)}; fix mmcam.json"
            )
        return Preprocess(**values)

    @property
    def window(self) -> Window | None:
        """The input window of a video model; None for an image model."""
        if self.frames is None:
            return None
        return Window(frames=self.frames, stride=self.stride, fps=self.fps)

    def __call__(self, sample: Sample) -> tuple[Tensor, Placement]:
        """The input `[3, *time, height, width]` in float32, and its placement on the sample."""
        pixels = torch.from_numpy(np.ascontiguousarray(sample.pixels)).movedim(-1, -3)
        resized = self._resize(pixels)
        cropped, (left, top) = self._crop(resized)
        values = cropped.float().div_(255)
        values = values.flip(-3) if self.order == "bgr" else values
        values = (values - _per_channel(self.mean)) / _per_channel(self.std)
        height, width = pixels.shape[-2:]
        scale_y, scale_x = height / resized.shape[-2], width / resized.shape[-1]
        bottom, right = top + cropped.shape[-2], left + cropped.shape[-1]
        box = (left * scale_x, top * scale_y, right * scale_x, bottom * scale_y)
        placement = Placement(size=(height, width), box=box, spans=clip_spans(sample))
        return (values if values.ndim == 3 else values.transpose(0, 1)), placement

    def _resize(self, pixels: Tensor) -> Tensor:
        from torchvision.transforms import InterpolationMode
        from torchvision.transforms.v2.functional import resize

        if self.resize is None:
            return pixels
        size = [self.resize] if isinstance(self.resize, int) else list(self.resize)
        resized: Tensor = resize(
            pixels, size, InterpolationMode(self.interpolation), antialias=True
        )
        return resized

    def _crop(self, pixels: Tensor) -> tuple[Tensor, tuple[int, int]]:
        from torchvision.transforms.v2.functional import crop

        if self.crop is None:
            return pixels, (0, 0)
        height, width = (self.crop, self.crop) if isinstance(self.crop, int) else self.crop
        top = self._crop_start(pixels.shape[-2], height)
        left = self._crop_start(pixels.shape[-1], width)
        return crop(pixels, top, left, height, width), (left, top)

    def _crop_start(self, length: int, side: int) -> int:
        """The first pixel of a crop; if it pads, minus half of the padding, rounded towards 0."""
        if side > length:
            return -((side - length) // 2)
        return round((length - side) / 2) if self.centre == "round" else (length - side) // 2


def _per_channel(values: Sequence[float]) -> Tensor:
    return torch.tensor(list(values), dtype=torch.float32).view(3, 1, 1)


def prepare_batch(
    samples: Sequence[Sample], preprocess: Preprocess | Transform, model: nn.Module, name: str
) -> Inputs:
    """The samples preprocessed and stacked, on the model's device and in its dtype.

    Raises:
        InputError: a picture for a video model or a clip for an image model, or samples whose
            inputs differ in size.
        ModelError: as `Transform.__call__`.
    """
    is_video = preprocess.window is not None
    for sample in samples:
        if (sample.pixels.ndim == 4) != is_video:
            expected = "clips" if is_video else "pictures"
            given = "clip" if sample.pixels.ndim == 4 else "picture"
            raise InputError(
                f"'{sample.id}' is a {given} and {name} is a model of {expected}; choose another "
                "model (mmcam list models)"
            )
    prepared = [preprocess(sample) for sample in samples]
    sizes = {tuple(pixels.shape) for pixels, _ in prepared}
    if len(sizes) > 1:
        raise InputError(
            f"inputs of different sizes {sorted(sizes)} cannot be one batch; crop to one size in "
            "the transform, or explain them one by one"
        )
    parameter = floating_parameter(model)
    pixels = torch.stack([pixels for pixels, _ in prepared])
    return Inputs(
        pixels=pixels.to(device=parameter.device, dtype=parameter.dtype),
        placements=tuple(placement for _, placement in prepared),
    )


def floating_parameter(model: nn.Module) -> Tensor:
    """A parameter or buffer on the model's device and in its floating-point type.

    The first tensors of a quantised model may be integers. If no tensor is floating-point, the
    result is a float32 zero on the CPU.
    """
    tensors = itertools.chain(model.parameters(), model.buffers())
    first = next((tensor for tensor in tensors if tensor.is_floating_point()), None)
    return torch.zeros(()) if first is None else first


def clip_spans(sample: Sample) -> tuple[tuple[float, float], ...]:
    """The spans of a placement: the clip's own span, or all its frames; empty for a picture."""
    if sample.pixels.ndim == 3:
        return ()
    return (sample.span or (0.0, float(len(sample.pixels))),)


@dataclass(frozen=True)
class Transform:
    """A user's own transform of a PIL image (torchvision, timm, an image processor).

    The placement of its output is measured by transforming ramps of grey levels, so any combination
    of resizing, cropping and padding works. It is measured once for each size of picture: make a
    new `Transform` when the function changes. A clip is transformed frame by frame. `frames`,
    `stride` and `fps` are a video model's window.
    """

    function: Callable[[Any], Tensor]
    frames: int | None = None
    stride: float = 1.0
    fps: float | None = None
    _boxes: dict[tuple[int, ...], Box] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @property
    def window(self) -> Window | None:
        """The input window of a video model; None for an image model."""
        if self.frames is None:
            return None
        return Window(frames=self.frames, stride=self.stride, fps=self.fps)

    def __call__(self, sample: Sample) -> tuple[Tensor, Placement]:
        """The input `[3, *time, height, width]`, and its placement on the sample.

        Raises:
            ModelError: the transform does not return `[3, height, width]`, draws random numbers,
                returns different sizes for pictures of one size, or changes the geometry other than
                by resizing, cropping and padding.
        """
        from PIL import Image

        frames = sample.pixels if sample.pixels.ndim == 4 else sample.pixels[None]
        size = (frames.shape[1], frames.shape[2])
        states = _random_states()
        outputs = [self._apply(Image.fromarray(frame)) for frame in frames]
        if _random_states() != states or (not self._boxes and self._differs(frames[0], outputs[0])):
            raise ModelError(
                "the transform draws random numbers (a random crop, a flip?), so the placement of "
                "its output is unknown; use the transform for evaluation"
            )
        shapes = {tuple(output.shape) for output in outputs}
        if len(shapes) > 1:
            raise _shapes_error(size, shapes)
        placement = Placement(
            size=size, box=self._find_box(size, shapes.pop()), spans=clip_spans(sample)
        )
        return outputs[0] if sample.pixels.ndim == 3 else torch.stack(outputs, 1), placement

    def _differs(self, pixels: Pixels, output: Tensor) -> bool:
        """Whether a second run differs: the transform may have a random generator of its own."""
        from PIL import Image

        again = self._apply(Image.fromarray(pixels))
        return again.shape != output.shape or not torch.allclose(again, output, equal_nan=True)

    def _apply(self, image: Any) -> Tensor:
        value = self.function(image)
        if not isinstance(value, Tensor) or value.ndim != 3 or len(value) != 3:
            given = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise ModelError(
                f"the transform returns {given} for a picture; let it return a tensor "
                "[3, height, width]"
            )
        return value.float()

    def _find_box(self, size: tuple[int, int], shape: tuple[int, ...]) -> Box:
        """The edges of an output of this shape, on a picture of this size (height, width)."""
        key = (*size, *shape)
        if key not in self._boxes:
            if len(self._boxes) >= MAX_SIZES:
                self._boxes.clear()
            self._boxes[key] = self._measure(size, shape)
        return self._boxes[key]

    def _measure(self, size: tuple[int, int], shape: tuple[int, ...]) -> Box:
        """Find the edges from black, white and two ramps, with few large tensors at a time.

        Raises:
            ModelError: the outputs differ in shape, or the transform does more than resizing,
                cropping and padding.
        """

        def transformed(levels: NDArray[Any]) -> Tensor:
            output = self._apply(_picture(levels, size))
            if output.shape != shape:
                raise _shapes_error(size, {shape, tuple(output.shape)})
            return output

        height, width = size
        black = transformed(np.zeros((1, 1, 3)))
        scale = transformed(np.full((1, 1, 3), 255)) - black
        inside = torch.stack([c.abs() > 0.5 * c.abs().amax() for c in scale]).all(0)
        scale = torch.where(inside, scale, 1)
        x = ((transformed(_ramp(width)[None]) - black) / scale).mean(0)
        y = ((transformed(_ramp(height)[:, None]) - black) / scale).mean(0)
        left, right = _fit_edges(x, inside, 1, width)
        top, bottom = _fit_edges(y, inside, 0, height)
        return left, top, right, bottom


def _shapes_error(size: tuple[int, int], shapes: Collection[tuple[int, ...]]) -> ModelError:
    height, width = size
    return ModelError(
        f"the transform returns {' and '.join(map(str, sorted(shapes)))} for pictures of the same "
        f"{width} x {height} pixels, so the placement of its output is unknown; let its crop "
        "depend on the size of the picture alone"
    )


def _picture(levels: NDArray[Any], size: tuple[int, int]) -> Any:
    """An RGB image of (height, width), of grey levels given for one row, one column or one pixel.

    Pillow repeats them without an array of the full size.
    """
    from PIL import Image

    small = Image.fromarray(np.round(levels).clip(0, 255).astype(np.uint8))
    return small.resize(size[::-1], Image.Resampling.NEAREST)


def _ramp(length: int) -> NDArray[np.float64]:
    """Levels from 1 to 254 along an axis; channels differ by 1/3, so that rounding averages out."""
    thirds = np.array([-1, 0, 1]) / 3
    return np.linspace(1, 254, length)[:, None] + thirds


def _random_states() -> tuple[object, ...]:
    """The states of the random number generators that transforms use."""
    _, keys, position, *_ = np.random.get_state()
    torch_state = torch.get_rng_state().numpy().tobytes()
    return random.getstate(), np.asarray(keys).tobytes(), position, torch_state


def _fit_edges(ramp: Tensor, inside: Tensor, axis: int, length: int) -> tuple[float, float]:
    """The first and last edge of the output along `axis`, on an original of `length` pixels.

    A line is fitted to the ramp's levels in the output pixels that show the original (`inside`).
    """
    if length == 1:
        return 0.0, 1.0
    levels = (ramp * inside).sum(1 - axis, dtype=torch.float64) / inside.sum(1 - axis).clamp(min=1)
    known = inside.any(1 - axis)
    output = torch.arange(len(levels), dtype=torch.float64)[known] + 0.5
    source = (255 * levels[known] - 1) / 253 * (length - 1) + 0.5
    if len(output) < 2:
        return 0.0, float(length)
    centred = output - output.mean()
    slope = (centred * (source - source.mean())).sum() / (centred**2).sum()
    first = source.mean() - slope * output.mean()
    if slope <= 0 or (source - first - slope * output).abs().max() > max(2.0, 0.02 * length):
        raise ModelError(
            "the transform does more than resizing, cropping or padding (a flip, a random or a "
            "warping step?); use the transform for evaluation"
        )
    return float(first), float(first + slope * len(levels))
