"""Inputs of any number of channels: tensors, arrays and images, drawn as grey or by channels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import mmcam
from mmcam.adapters.base.classifier import Classifier
from mmcam.adapters.base.preprocess import Preprocess, Transform
from mmcam.errors import InputError, ModelError
from mmcam.media.channels import draw_channels, read_as_given

FIRST = mmcam.Classes([0])
TOP = mmcam.Classes(top=2)


class Pooled(nn.Module):
    """Convolutions, global average pooling and a linear layer, over pictures or clips."""

    def __init__(self, channels: int, *, clips: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        convolution: Any = nn.Conv3d if clips else nn.Conv2d
        self.trunk = nn.Sequential(
            convolution(channels, 6, 3, padding=1), nn.ReLU(), convolution(6, 4, 3, padding=1)
        )
        self.head = nn.Linear(4, 3)

    def forward(self, pixels: Tensor) -> Tensor:
        logits: Tensor = self.head(self.trunk(pixels).flatten(2).mean(2))
        return logits

    def grad_cam(self, pixels: Tensor, label: int) -> Tensor:
        """Grad-CAM of one input: with global average pooling, CAM / Z (IJCV 2020, section 3.1)."""
        activation = self.trunk(pixels[None])[0].detach()
        weights = self.head.weight[label].detach()
        return torch.einsum("c,c...->...", weights, activation).relu() / activation[0].numel()


def wrapped(channels: int, **options: Any) -> Classifier:
    clips = "frames" in options
    return mmcam.wrap(Pooled(channels, clips=clips), layer="trunk", **options)


def values(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


# What the model gets.


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5])
def test_a_tensor_is_the_models_input(channels: int) -> None:
    pixels = torch.from_numpy(values(channels, 9, 12))
    model = wrapped(channels)
    maps = mmcam.explain(model, pixels, TOP)
    module: Any = model.model
    for explanation in maps:
        assert explanation.target.index is not None
        expected = module.grad_cam(pixels, explanation.target.index)
        torch.testing.assert_close(explanation.cam, expected)
    assert maps[0].score == pytest.approx(module(pixels[None]).max().item(), rel=1e-5)
    assert maps[0].heatmap().shape == (9, 12)
    assert maps[0].placement.box == (0, 0, 12, 9)
    assert maps.source.path == "tensor"


def test_a_tensor_gets_the_dtype_of_the_model_and_is_left_alone() -> None:
    model = wrapped(1)
    model.model.double()
    pixels = torch.from_numpy(values(1, 9, 12)).requires_grad_()
    before = pixels.detach().clone()
    maps = mmcam.explain(model, pixels, FIRST, method=["gradcam", "gradient"])
    assert maps[0].cam.dtype == torch.float64
    assert torch.equal(pixels, before)
    assert pixels.grad is None


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (np.full((6, 7), 51, np.uint8), 0.2),
        (np.full((6, 7, 1), 51, np.uint8), 0.2),
        (np.full((6, 7), 40000, np.uint16), 40000.0),
        (np.full((6, 7), -3, np.int64), -3.0),
        (np.full((6, 7), 0.7), 0.7),
        (Image.fromarray(np.full((6, 7), 51, np.uint8)), 0.2),
        (Image.fromarray(np.full((6, 7), 40000, np.uint16)), 40000.0),
        (Image.fromarray(np.full((6, 7), 0.7, np.float32)), 0.7),
    ],
)
def test_grey_without_a_transform_is_the_input_itself(source: Any, expected: float) -> None:
    model = wrapped(1)
    expected_maps = mmcam.explain(model, torch.full((1, 6, 7), expected), FIRST)
    maps = mmcam.explain(model, source, FIRST)
    torch.testing.assert_close(maps[0].cam, expected_maps[0].cam)


def test_channels_of_arrays_and_images_come_last() -> None:
    stack = values(9, 12, 5)
    maps = mmcam.explain(wrapped(5), stack, FIRST)
    expected = mmcam.explain(wrapped(5), torch.from_numpy(stack).movedim(-1, 0), FIRST)
    torch.testing.assert_close(maps[0].cam, expected[0].cam)
    rgba = np.random.default_rng(0).integers(0, 256, (9, 12, 4), dtype=np.uint8)
    maps = mmcam.explain(wrapped(4), Image.fromarray(rgba), FIRST)
    expected = mmcam.explain(wrapped(4), torch.from_numpy(rgba).movedim(-1, 0) / 255, FIRST)
    torch.testing.assert_close(maps[0].cam, expected[0].cam)


def test_a_clip_of_two_channels_is_explained_and_drawn(tmp_path: Path) -> None:
    clip = torch.from_numpy(values(2, 4, 16, 20))
    model = wrapped(2, frames=4)
    maps = mmcam.explain(model, clip, method=["gradcam", "occlusion", "gradient"])
    module: Any = model.model
    index = maps[0].target.index
    assert index is not None
    torch.testing.assert_close(maps[0].cam, module.grad_cam(clip, index))
    assert maps[0].target.kind == "action"
    assert maps[0].heatmap().shape == (4, 16, 20)
    assert maps[0].placement.spans == ((0, 4),)
    maps.save(tmp_path)
    assert torch.equal(mmcam.read(tmp_path)[2].cam, maps[2].cam)
    batch = mmcam.explain(model, torch.stack([clip, -clip]), batch=2)
    assert len(batch) == 2
    torch.testing.assert_close(batch[0][0].cam, maps[0].cam)


def test_one_model_takes_rgb_pictures_too() -> None:
    """Without a transform, RGB pictures have the usual preprocessing, tensors none."""
    pixels = np.random.default_rng(0).integers(0, 256, (300, 280, 3), dtype=np.uint8)
    model = wrapped(3)
    maps = mmcam.explain(model, pixels, FIRST)
    expected = mmcam.wrap(Pooled(3), Preprocess(resize=256, crop=224), layer="trunk")
    torch.testing.assert_close(maps[0].cam, mmcam.explain(expected, pixels, FIRST)[0].cam)


# Transforms of the user's.


def recording(channels: int) -> tuple[list[Any], Callable[[Any], Tensor]]:
    """A transform that keeps what it gets: crops 8 x 10 at (2, 3), and normalises."""
    seen: list[Any] = []

    def transform(picture: Any) -> Tensor:
        seen.append(picture)
        array = np.array(picture, np.float32)
        array = array if array.ndim == 3 else array[..., None]
        return torch.from_numpy(array[2:10, 3:13]).movedim(-1, 0) / 100 - 0.5

    return seen, transform


@pytest.mark.parametrize(
    ("source", "channels"),
    [
        (values(20, 30), 1),
        (values(20, 30, 5), 5),
        (values(20, 30, 3), 3),
        ((1000 * values(20, 30, 2)).astype(np.int16), 2),
        (np.arange(600, dtype=np.uint16).reshape(20, 30) % 7, 1),
        (np.full((20, 30), 7.5), 1),
        (Image.fromarray((values(20, 30) > 0).astype(np.uint8) * 255), 1),
        (Image.fromarray(np.arange(600, dtype=np.uint16).reshape(20, 30)), 1),
        (Image.fromarray(values(20, 30)), 1),
        (Image.fromarray(np.full((20, 30, 4), 90, np.uint8)), 4),
    ],
    ids=["grey", "5", "3 floats", "2 int16", "few", "even", "L", "I;16", "F", "RGBA"],
)
def test_a_transform_gets_what_was_given_and_its_crop_is_measured(
    source: Any, channels: int
) -> None:
    seen, transform = recording(channels)
    model = wrapped(channels, prepare=transform)
    maps = mmcam.explain(model, source, FIRST)
    assert type(seen[0]) is type(source)
    assert getattr(seen[0], "mode", None) == getattr(source, "mode", None)
    assert np.array_equal(np.asarray(seen[0]), np.asarray(source))
    assert {np.asarray(picture).dtype for picture in seen} == {np.asarray(source).dtype}
    assert maps[0].placement.size == (20, 30)
    assert maps[0].placement.box == pytest.approx((3, 2, 13, 10), abs=0.1)
    expected = mmcam.explain(wrapped(channels), transform(source), FIRST)
    torch.testing.assert_close(maps[0].cam, expected[0].cam)


def test_files_and_rgb_pictures_reach_a_transform_as_rgb_images(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    grey = Image.fromarray(pixels[..., 0])
    grey.save(tmp_path / "grey.png")
    for source in (tmp_path / "grey.png", pixels, Image.fromarray(pixels).convert("P")):
        seen, transform = recording(3)
        mmcam.explain(wrapped(3, prepare=transform), source, FIRST)
        assert seen[0].mode == "RGB"


def test_a_transform_may_make_grey_of_a_file(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")

    def transform(image: Any) -> Tensor:
        return torch.from_numpy(np.array(image.convert("L"), np.float32))[None] / 255

    maps = mmcam.explain(wrapped(1, prepare=transform), tmp_path / "a.png", FIRST)
    assert maps[0].cam.shape == (20, 30)
    assert maps[0].placement.box == pytest.approx((0, 0, 30, 20), abs=0.1)


def standardised(picture: np.ndarray) -> np.ndarray:
    return (picture - picture.mean()) / picture.std()


def stretched(picture: np.ndarray) -> np.ndarray:
    low, high = np.percentile(picture, [1, 99])
    return ((picture - low) / (high - low + 1e-8)).clip(0, 1)


def whitened(picture: np.ndarray) -> np.ndarray:
    return (picture - picture.mean()) / (picture.std() + 1e-6)


def negative(picture: np.ndarray) -> np.ndarray:
    return (picture.max() - picture) / (picture.max() - picture.min() + 1e-8)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("normalise", [standardised, stretched, whitened, negative])
@pytest.mark.parametrize("dtype", [np.float32, np.uint16, np.uint8])
def test_pictures_may_be_normalised_by_their_own_values(
    normalise: Callable[[np.ndarray], np.ndarray], dtype: Any
) -> None:
    """Then neither black nor white shows the scale of a transform."""

    def transform(picture: Any) -> Tensor:
        array = normalise(np.asarray(picture, np.float64))
        tensor = torch.from_numpy(array).float()[None, None, 10:90, 20:140]
        tensor = nn.functional.interpolate(tensor, (40, 60), mode="bilinear", antialias=True)
        return nn.functional.pad(tensor[0], (4, 4, 2, 2))

    source = (40 + 30 * np.random.default_rng(0).random((100, 150))).astype(dtype)
    sample = read_as_given(source)
    _, placement = Transform(transform)(sample)
    assert placement.box == pytest.approx((12, 6, 148, 94), abs=1.5)


def test_a_flip_of_normalised_pictures_is_refused() -> None:
    def transform(picture: Any) -> Tensor:
        return torch.from_numpy(standardised(np.asarray(picture))[:, ::-1].copy())[None]

    with pytest.raises(ModelError, match="more than resizing, cropping or padding"):
        Transform(transform)(read_as_given(values(20, 30)))


# Models of three channels.


PICTURE = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
RGBA = np.dstack([PICTURE, PICTURE[..., 0]])


def normalised(image: Any) -> Tensor:
    """As most transforms for RGB: `to_tensor`, and a mean for each of three channels."""
    from torchvision.transforms.functional import normalize, to_tensor

    tensor: Tensor = normalize(to_tensor(image), [0.5, 0.4, 0.3], [0.2, 0.2, 0.2])
    return tensor


@pytest.mark.parametrize("prepare", [None, normalised], ids=["no transform", "transform"])
@pytest.mark.parametrize(
    ("source", "file"),
    [
        (Image.fromarray(PICTURE).convert("L"), None),
        (Image.fromarray(RGBA), None),
        (Image.fromarray(PICTURE[..., 0].astype(np.uint16) * 257), None),
        (PICTURE / 255, PICTURE),
        (PICTURE[..., 0], PICTURE[..., 0]),
        (PICTURE[..., 0] / 255, PICTURE[..., 0]),
        (RGBA, RGBA),
        (RGBA / 255, RGBA),
    ],
    ids=["L", "RGBA", "I;16", "floats", "grey", "grey floats", "RGBA array", "RGBA floats"],
)
def test_a_model_of_three_channels_gets_pictures_as_from_their_files(
    source: Any, file: np.ndarray | None, prepare: Any, tmp_path: Path
) -> None:
    (source if file is None else Image.fromarray(file)).save(tmp_path / "a.png")
    model = wrapped(3, prepare=prepare)
    maps = mmcam.explain(model, source, FIRST)
    expected = mmcam.explain(model, tmp_path / "a.png", FIRST)
    torch.testing.assert_close(maps[0].cam, expected[0].cam)
    assert maps[0].placement == expected[0].placement


class Patches(nn.Module):
    """A network whose weights do not tell how many channels it takes."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(3 * 4 * 4, 5)

    def forward(self, pixels: Tensor) -> Tensor:
        patches: Tensor = self.embed(nn.functional.unfold(pixels, 4, stride=4).transpose(1, 2))
        return patches.mean(1)


def pointwise() -> nn.Module:
    return nn.Sequential(nn.Flatten(2), nn.Conv1d(3, 5, 1), nn.AdaptiveAvgPool1d(1), nn.Flatten())


@pytest.mark.parametrize("make", [Patches, pointwise])
def test_a_model_whose_channels_are_unknown_asks_for_rgb(make: Callable[[], nn.Module]) -> None:
    model = mmcam.wrap(make())
    image = Image.fromarray(PICTURE[:8, :12])
    for mode in ("L", "RGBA"):
        with pytest.raises(ModelError, match=r"as many channels as.*image\.convert\('RGB'\)"):
            mmcam.explain(model, image.convert(mode), FIRST, method="gradient")
    assert mmcam.explain(model, image, FIRST, method="gradient")[0].cam.shape == (3, 224, 224)


# Drawing.


def test_uint8_is_drawn_as_it_is_and_other_values_by_their_own_range() -> None:
    grey = np.array([[10, 200]], np.uint8)
    assert draw_channels(grey[..., None]).tolist() == [[[10] * 3, [200] * 3]]
    floats = np.array([[-1.0, 0.0, 1.0, np.nan, np.inf]])[..., None]
    assert draw_channels(floats)[0, :, 0].tolist() == [0, 128, 255, 0, 0]
    colours = np.array([[[0.0, 5.0, 10.0]]])
    assert draw_channels(colours).tolist() == [[[0, 128, 255]]]
    assert draw_channels(np.full((1, 1, 1), 7, np.int32)).tolist() == [[[0, 0, 0]]]


def test_channels_are_chosen_or_averaged() -> None:
    stack = np.arange(5, dtype=np.uint8)[None, None] * 10
    assert draw_channels(stack).tolist() == [[[20, 20, 20]]]
    assert draw_channels(stack, (3, 2, 1)).tolist() == [[[30, 20, 10]]]
    assert draw_channels(stack, (4,)).tolist() == [[[40, 40, 40]]]
    with pytest.raises(InputError, match=r"no channel 5 to show \(show=\(5,\)\).*are 0 to 4"):
        draw_channels(stack, (5,))


def shown(source: Any, channels: int, **options: Any) -> np.ndarray:
    """The pixels that a result shows."""
    maps = mmcam.explain(wrapped(channels, **options), source, FIRST)
    pixels: Any = maps.source.read()  # type: ignore[union-attr]
    return pixels


def test_a_wrapped_model_says_which_channels_are_shown() -> None:
    stack = np.random.default_rng(0).integers(0, 256, (9, 12, 5), dtype=np.uint8)
    assert np.array_equal(shown(stack, 5, show=(3, 2, 1)), stack[..., [3, 2, 1]])
    assert np.array_equal(shown(stack, 5, show=4)[..., 0], stack[..., 4])
    _, transform = recording(5)
    pixels = shown(stack, 5, show=[0, 1, 2], prepare=transform)
    assert np.array_equal(pixels, stack[..., :3])
    pixels = shown(stack, 5, show=[0, 1, 2], prepare=Transform(transform))
    assert np.array_equal(pixels, stack[..., :3])
    rgba = np.full((9, 12, 4), (200, 100, 50, 0), np.uint8)
    assert (shown(Image.fromarray(rgba), 4) == 255).all()  # over white
    assert (shown(Image.fromarray(rgba), 4, show=(0, 1, 2)) == (200, 100, 50)).all()


@pytest.mark.parametrize("show", [(0, 1), (0, 1, 2, 3), (), -1, (0, 1, -1)])
def test_a_wrong_choice_of_channels_is_refused(show: Any) -> None:
    with pytest.raises(InputError, match=r"show=.*one or three channel numbers"):
        mmcam.wrap(Pooled(5), show=show)


def test_a_preprocess_has_no_channels_to_show() -> None:
    with pytest.raises(InputError, match=r"show=\(3, 2, 1\) is for inputs other than RGB"):
        mmcam.wrap(Pooled(3), Preprocess(), show=(3, 2, 1))


@pytest.mark.parametrize("channels", [1, 2, 4, 5])
def test_every_method_is_drawn_at_any_number_of_channels(tmp_path: Path, channels: int) -> None:
    methods = ["gradcam", "gradient", "guided", "occlusion", "scorecam", "ablationcam"]
    pixels = torch.from_numpy(values(channels, 20, 24))
    maps = mmcam.explain(wrapped(channels), pixels, FIRST, method=methods, guided=True)
    assert {e.method for e in maps} > {*methods, "guided-gradcam", "guided-occlusion"}
    shapes = {tuple(e.cam.shape) for e in maps}
    assert (channels, 20, 24) in shapes
    maps.save(tmp_path)
    for explanation, stored in zip(maps, mmcam.read(tmp_path), strict=True):
        assert torch.equal(explanation.cam.float(), stored.cam)
        assert explanation.heatmap().shape == (20, 24)
    assert len(list(tmp_path.glob("overlay-*.png"))) == len(maps)
    assert "<html" in (tmp_path / "index.html").read_text(encoding="utf-8")
    assert maps._repr_html_()


# Refusals.


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (torch.zeros(4, 5), r"tensor: shape \(4, 5\) is not a model's input; give \[channel, "),
        (torch.zeros(1, 0, 5), r"tensor: shape \(1, 0, 5\) is not a model's input"),
        (np.zeros((5, 40, 60)), r"looks channels-first; give array.transpose\(1, 2, 0\)"),
        (np.zeros((9, 12), bool), r"dtype bool is not a picture; give integers or floats"),
        (np.zeros((0, 12)), r"shape \[0, 12\] is not a picture"),
        (np.zeros((2, 9, 12, 5)), r"is a clip and Pooled is an image model"),
        (np.zeros((9, 12, 3)) + 7, r"outside \[0, 1\]"),
    ],
)
def test_what_is_no_picture_is_refused(source: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        mmcam.explain(wrapped(1), source, FIRST)


@pytest.mark.parametrize("prepare", [Preprocess(), lambda image: torch.zeros(3, 4, 4)])
def test_a_tensor_is_refused_by_a_model_that_prepares_its_input(prepare: Any) -> None:
    message = r"\(3, 9, 12\) is a model's input, and Pooled prepares .*mmcam\.cams\(.*mmcam\.wrap\("
    with pytest.raises(InputError, match=message):
        mmcam.explain(wrapped(3, prepare=prepare), torch.zeros(3, 9, 12), FIRST)


def test_a_preprocess_refuses_a_source_that_is_not_rgb() -> None:
    sample = mmcam.Sample(pixels=np.zeros((9, 12, 3), np.uint8), source=np.zeros((9, 12)))
    with pytest.raises(InputError, match=r"'array' is not RGB, which the preprocessing"):
        mmcam.explain(wrapped(3, prepare=Preprocess()), sample, FIRST)


def test_a_transform_that_fails_says_on_what() -> None:
    def transform(image: Any) -> Tensor:
        raise ValueError("expected three channels")

    message = r"fails on an image of mode L of shape \(9, 12\) \(ValueError: expected three.*RGB"
    image = Image.fromarray(np.zeros((9, 12), np.uint8))
    with pytest.raises(ModelError, match=message):
        mmcam.explain(wrapped(1, prepare=transform), image, FIRST)


def test_a_wrong_number_of_channels_is_told() -> None:
    with pytest.raises(ModelError, match=r"shape \(1, 4, 9, 12\).*as many channels as"):
        mmcam.explain(wrapped(3), torch.zeros(4, 9, 12), FIRST)
