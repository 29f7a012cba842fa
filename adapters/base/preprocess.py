"""Turn a sample's pixels into a model's input, and locate the input on the sample."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from numbers import Real
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mmcam.adapters.base.measured_box import (
    Box,
    box_by_levels,
    box_by_phases,
    picture_like,
    rgb_picture,
)
from mmcam.errors import InputError, ModelError, UnequalInputsError, raised_as, reason_of
from mmcam.types import Inputs, Placement, Sample, Window

MAX_SIZES = 10_000
"""The maximum number of picture sizes for which a `Transform` keeps its measurements."""


INTERPOLATIONS = ("nearest", "nearest-exact", "bilinear", "bicubic", "lanczos")
"""The values of torchvision's `InterpolationMode` that resize tensors."""


GIVEN_MODES = frozenset({"L", "I", "I;16", "I;16B", "I;16L", "F", "RGBA"})
"""Modes of PIL images that may be given as they are: grey of any depth, and RGBA."""


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

    def takes_as_given(self, source: Any) -> bool:
        """Whether a picture or clip that is not RGB may be a `Sample.source` instead of RGB."""
        return False

    def __call__(self, sample: Sample) -> tuple[Tensor, Placement]:
        """The input `[3, *time, height, width]` in float32, and its placement on the sample.

        Raises:
            InputError: the sample has a source that is not RGB.
        """
        if sample.source is not None:
            raise InputError(
                f"'{sample.id}' is not RGB, which the preprocessing of this model needs; wrap the "
                "module with your own transform (mmcam.wrap(module, prepare=...)), or without one"
            )
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


@dataclass(frozen=True, kw_only=True)
class NoTransform(Preprocess):
    """The preprocessing of a module that was wrapped without a transform.

    A tensor `[channel, *time, height, width]` is the model's input as it is. An array or a grey or
    RGBA image becomes one as by torchvision's `to_tensor`: channels first, uint8 divided by 255,
    other values unchanged. RGB pictures and clips have the usual preprocessing for ImageNet. For a
    model of three channels, pictures are read as RGB where that is possible. `show` are the
    channels that are drawn; see `mmcam.wrap`.
    """

    resize: int | Sequence[int] | None = 256
    crop: int | Sequence[int] | None = 224
    show: tuple[int, ...] = ()

    def takes_as_given(self, source: Any) -> bool:
        """True for tensors, grey and RGBA images, and arrays other than `[h, w, 3]`."""
        if isinstance(source, np.ndarray):
            return source.ndim == 2 or (source.ndim == 3 and source.shape[2] != 3)
        return isinstance(source, Tensor) or getattr(source, "mode", None) in GIVEN_MODES

    def __call__(self, sample: Sample) -> tuple[Tensor, Placement]:
        """The input `[channel, *time, height, width]`, and its placement on the sample."""
        if sample.source is None:
            return super().__call__(sample)
        height, width = sample.pixels.shape[-3:-1]
        placement = Placement(
            size=(height, width), box=(0.0, 0.0, width, height), spans=clip_spans(sample)
        )
        return _channels_first(sample.source), placement


def _channels_first(source: Any) -> Tensor:
    """A tensor as it is; an array or a PIL image as by torchvision's `to_tensor`, in float32.

    That function itself reads 16-bit images as signed.
    """
    if isinstance(source, Tensor):
        return source
    values = np.asarray(source)
    tensor = torch.from_numpy(np.atleast_3d(values).astype(np.float32)).movedim(-1, 0)
    return tensor / 255 if values.dtype == np.uint8 else tensor


def prepare_batch(
    samples: Sequence[Sample], preprocess: Preprocess | Transform, model: nn.Module, name: str
) -> Inputs:
    """The samples preprocessed and stacked, on the model's device and in its dtype.

    Raises:
        InputError: a picture for a video model or a clip for an image model; UnequalInputsError if
            the samples' inputs differ in size.
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
    sizes = [tuple(pixels.shape) for pixels, _ in prepared]
    if len(set(sizes)) > 1:
        raise UnequalInputsError(
            f"inputs of different sizes {sorted(set(sizes))} cannot be one batch; crop to one size "
            "in the transform, or explain them one by one",
            sizes,
        )
    parameter = floating_parameter(model)
    return Inputs(
        pixels=torch.stack([pixels.to(parameter) for pixels, _ in prepared]),
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


def takes_three_channels(model: nn.Module) -> bool:
    """Whether a model's first convolution takes three channels; False if it has none.

    The convolution is the first parameter of four or more axes, `[out, channel, *kernel]`.
    """
    first = next((weight for weight in model.parameters() if weight.ndim >= 4), None)
    return first is not None and first.shape[1] == 3


def clip_spans(sample: Sample) -> tuple[tuple[float, float], ...]:
    """The spans of a placement: the clip's own span, or all its frames; empty for a picture."""
    if sample.pixels.ndim == 3:
        return ()
    return (sample.span or (0.0, float(len(sample.pixels))),)


@dataclass(frozen=True)
class Transform:
    """A user's own transform of a PIL image (torchvision, timm, an image processor) or an array.

    Files, RGB images and uint8 arrays `[h, w, 3]` are transformed as RGB images. Other arrays, and
    images of one of `GIVEN_MODES`, are transformed as they are; for a model of three channels, they
    are read as RGB like files where that is possible.

    The placement of its output is measured by transforming ramps of grey levels, so any combination
    of resizing, cropping and padding works. It is measured once for each size of picture: make a
    new `Transform` when the function changes. A clip is transformed frame by frame. `frames`,
    `stride` and `fps` are a video model's window. `show` are the channels that are drawn; see
    `mmcam.wrap`.
    """

    function: Callable[[Any], Tensor]
    frames: int | None = None
    stride: float = 1.0
    fps: float | None = None
    show: tuple[int, ...] = ()
    _boxes: dict[tuple[Any, ...], Box] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @property
    def window(self) -> Window | None:
        """The input window of a video model; None for an image model."""
        if self.frames is None:
            return None
        return Window(frames=self.frames, stride=self.stride, fps=self.fps)

    def takes_as_given(self, source: Any) -> bool:
        """True for grey and RGBA images, and arrays other than uint8 `[h, w, 3]`."""
        if isinstance(source, np.ndarray):
            is_rgb = source.dtype == np.uint8 and source.ndim == 3 and source.shape[2] == 3
            return source.ndim in (2, 3) and not is_rgb
        return getattr(source, "mode", None) in GIVEN_MODES

    def __call__(self, sample: Sample) -> tuple[Tensor, Placement]:
        """The input `[channel, *time, height, width]`, and its placement on the sample.

        Raises:
            ModelError: the transform fails or does not return `[channel, height, width]`, draws
                random numbers, returns different sizes for pictures of one size, or changes the
                geometry other than by resizing, cropping and padding.
        """
        height, width = sample.pixels.shape[-3:-1]
        size = (height, width)
        states = _random_states()
        outputs = [self._apply(picture) for picture in _pictures(sample)]
        if _random_states() != states or (not self._boxes and self._differs(sample, outputs[0])):
            raise ModelError(
                "the transform draws random numbers (a random crop, a flip?), so the placement of "
                "its output is unknown; use the transform for evaluation"
            )
        shapes = {tuple(output.shape) for output in outputs}
        if len(shapes) > 1:
            raise _shapes_error(size, shapes)
        placement = Placement(
            size=size,
            box=self._find_box(size, shapes.pop(), sample.source),
            spans=clip_spans(sample),
        )
        return outputs[0] if sample.pixels.ndim == 3 else torch.stack(outputs, 1), placement

    def _differs(self, sample: Sample, output: Tensor) -> bool:
        """Whether a second run differs: the transform may have a random generator of its own."""
        again = self._apply(next(_pictures(sample)))
        return again.shape != output.shape or not torch.allclose(again, output, equal_nan=True)

    def _apply(self, picture: Any) -> Tensor:
        with raised_as(partial(_transform_error, picture)):
            value = self.function(picture)
        if not isinstance(value, Tensor) or value.ndim != 3 or not value.numel():
            given = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise ModelError(
                f"the transform returns {given} for a picture; let it return a tensor "
                "[channel, height, width]"
            )
        return value.float()

    def _find_box(self, size: tuple[int, int], shape: tuple[int, ...], source: Any) -> Box:
        """The edges of an output of this shape, on a picture of this size (height, width).

        `source` is the picture itself if it is not RGB.
        """
        key = (_form(source), *size, *shape)
        if key not in self._boxes:
            if len(self._boxes) >= MAX_SIZES:
                self._boxes.clear()
            self._boxes[key] = self._measure(size, shape, source)
        return self._boxes[key]

    def _measure(self, size: tuple[int, int], shape: tuple[int, ...], source: Any) -> Box:
        """Find the edges from transformed pictures of known levels, few of them at a time.

        Raises:
            ModelError: the outputs differ in shape, or the transform does more than resizing,
                cropping and padding.
        """

        def transformed(levels: NDArray[Any]) -> Tensor:
            picture = rgb_picture(levels, size) if source is None else picture_like(source, levels)
            output = self._apply(picture)
            if output.shape != shape:
                raise _shapes_error(size, {shape, tuple(output.shape)})
            return output

        channels = 3 if source is None else np.atleast_3d(np.asarray(source)).shape[2]
        with np.errstate(divide="ignore", invalid="ignore"):  # the deviation of black is zero
            return box_by_levels(transformed, size, channels) or box_by_phases(
                transformed, size, channels
            )


def _pictures(sample: Sample) -> Iterator[Any]:
    """What a user's transform gets: the source that is not RGB, or each frame as an RGB image."""
    from PIL import Image

    if sample.source is not None:
        yield sample.source
        return
    for frame in sample.pixels if sample.pixels.ndim == 4 else sample.pixels[None]:
        yield Image.fromarray(frame)


def _form(source: Any) -> tuple[Any, ...]:
    """The kind of picture, apart from its height and width; a transform may treat each its way."""
    if source is None:
        return ("RGB",)
    values = np.asarray(source)
    return getattr(source, "mode", "array"), values.dtype.str, *values.shape[2:]


def _transform_error(picture: Any, error: Exception) -> ModelError:
    values = np.asarray(picture)
    kind = f"image of mode {picture.mode}" if hasattr(picture, "mode") else f"{values.dtype} array"
    return ModelError(
        f"the transform fails on an {kind} of shape {values.shape} ({type(error).__name__}: "
        f"{reason_of(error)}); fix it, or give what it takes (image.convert('RGB'))"
    )


def _shapes_error(size: tuple[int, int], shapes: Collection[tuple[int, ...]]) -> ModelError:
    height, width = size
    return ModelError(
        f"the transform returns {' and '.join(map(str, sorted(shapes)))} for pictures of the same "
        f"{width} x {height} pixels, so the placement of its output is unknown; let its crop "
        "depend on the size of the picture alone"
    )


def _random_states() -> tuple[object, ...]:
    """The states of the random number generators that transforms use."""
    _, keys, position, *_ = np.random.get_state()
    torch_state = torch.get_rng_state().numpy().tobytes()
    return random.getstate(), np.asarray(keys).tobytes(), position, torch_state
