"""A model's input: the same numbers as its library's, and their placement on the original."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from dataclasses import fields
from typing import Any
from unittest import mock

import jaxtyping
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import mmcam
from mmcam.adapters.base.classifier import Classifier
from mmcam.adapters.base.preprocess import SETTINGS, Preprocess, Transform
from mmcam.adapters.base.recipe import Recipe
from mmcam.errors import ModelError
from mmcam.grids import onto_original
from mmcam.models.registry import build

LEVELS = 2.01 / 255
"""The difference that rounding may cause between two libraries' resized pixels."""


def picture(height: int, width: int) -> np.ndarray:
    """A smooth picture with edges and different colours."""
    y, x = np.mgrid[:height, :width]
    red, green = 128 + 120 * np.sin(x / 9), 255 * y / height
    blue = np.where((x // 11 + y // 7) % 2, 220, 30)
    return np.stack([red, green, blue], -1).astype(np.uint8)


def sample(height: int = 97, width: int = 131, frames: int = 0) -> mmcam.Sample:
    if not frames:
        return mmcam.Sample(pixels=picture(height, width))
    pixels = np.stack([np.roll(picture(height, width), 5 * i, 1) for i in range(frames)])
    return mmcam.Sample(pixels=pixels)


def torchvision_adapter(name: str) -> Classifier:
    """The adapter of a torchvision model, without the model."""
    recipe = Recipe(family="torchvision", name=name, pretrained=False, layers=("0",))
    with mock.patch("torchvision.models.get_model", return_value=nn.Linear(1, 1)):
        adapter = build(recipe)
    assert isinstance(adapter, Classifier)
    return adapter


@pytest.mark.parametrize(
    "name",
    ["resnet50", "vit_b_16", "vit_h_14", "efficientnet_b1", "maxvit_t", "swin_v2_t", "vgg16"],
)
def test_pictures_are_preprocessed_as_in_torchvision(name: str) -> None:
    from torchvision import models

    preset = models.get_model_weights(name).DEFAULT.transforms()
    pixels, _ = torchvision_adapter(name).preprocess(sample())
    expected = preset(Image.fromarray(sample().pixels))
    torch.testing.assert_close(pixels, expected, rtol=0, atol=LEVELS / min(preset.std))


@pytest.mark.parametrize("name", ["r3d_18", "s3d", "mvit_v1_b", "mvit_v2_s", "swin3d_t"])
def test_clips_are_preprocessed_as_in_torchvision(name: str) -> None:
    from torchvision import models

    preset = models.get_model_weights(name).DEFAULT.transforms()
    clip = sample(frames=3)
    pixels, _ = torchvision_adapter(name).preprocess(clip)
    expected = preset(torch.from_numpy(clip.pixels).movedim(-1, 1))
    assert pixels.shape == expected.shape
    torch.testing.assert_close(pixels, expected, rtol=0, atol=LEVELS / min(preset.std))


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("mobilenetv2_100", {}),
        ("resnet18.a1_in1k", {}),
        ("tf_efficientnetv2_b0", {}),
        ("convnext_atto", {"depths": (1, 1, 1, 1), "dims": (8, 8, 8, 8)}),
        ("vit_tiny_patch16_384.augreg_in21k_ft_in1k", {"depth": 1}),
        ("vit_base_patch16_siglip_224", {"depth": 1, "embed_dim": 24, "num_classes": 5}),
    ],
)
@pytest.mark.parametrize("size", [(97, 131), (300, 500), (401, 222)])
def test_pictures_are_preprocessed_as_in_timm(
    name: str, args: dict[str, Any], size: tuple[int, int]
) -> None:
    import timm

    recipe = Recipe(family="timm", name=name, args=args, pretrained=False)
    adapter = build(recipe)
    assert isinstance(adapter, Classifier)
    config = timm.data.resolve_model_data_config(adapter.model)
    transform = timm.data.create_transform(**config)
    pixels, _ = adapter.preprocess(sample(*size))
    expected = transform(Image.fromarray(sample(*size).pixels))
    torch.testing.assert_close(pixels, expected, rtol=0, atol=LEVELS / min(config["std"]))


def test_timm_models_of_another_size_get_that_size() -> None:
    args = {"img_size": (64, 96), "depth": 1}
    adapter = build(Recipe(family="timm", name="vit_tiny_patch16_224", args=args, pretrained=False))
    assert adapter.prepare([sample()], mmcam.Classes()).pixels.shape == (1, 3, 64, 96)


GEOMETRIES = {
    "unchanged": Preprocess(),
    "short side": Preprocess(resize=64),
    "squashed": Preprocess(resize=(80, 50)),
    "cropped": Preprocess(crop=(60, 71)),
    "resized, then cropped": Preprocess(resize=64, crop=50),
    "padded": Preprocess(crop=(120, 163)),
    "padded and cropped": Preprocess(resize=100, crop=(111, 90)),
    "transformers' corner": Preprocess(resize=101, crop=(98, 90), centre="down"),
}


@pytest.mark.parametrize("recipe", GEOMETRIES.values(), ids=GEOMETRIES)
def test_a_square_is_found_where_it_was(recipe: Preprocess) -> None:
    pixels = np.zeros((97, 131, 3), np.uint8)
    pixels[38:58, 70:90] = 255
    inputs, placement = recipe(mmcam.Sample(pixels=pixels))
    light = inputs[0].double() - inputs[0].min()
    light[light < 0.5 * light.max()] = 0
    rows, columns = (torch.arange(side, dtype=torch.float64) + 0.5 for side in light.shape)
    left, top, right, bottom = placement.box
    y = (light.sum(1) * rows).sum() / light.sum() / len(rows) * (bottom - top) + top
    x = (light.sum(0) * columns).sum() / light.sum() / len(columns) * (right - left) + left
    assert (float(x), float(y)) == pytest.approx((80, 48), abs=0.3)
    placed = onto_original(light / light.max(), placement)
    inside, outside = placed[40:56, 72:88], placed.clone()
    outside[36:60, 68:92] = 0
    assert inside.min() > 0.8
    assert outside.nan_to_num().max() < 0.1


def test_the_box_of_a_crop_is_exact() -> None:
    _, placement = Preprocess(resize=64, crop=50)(sample(128, 200))
    assert placement.size == (128, 200)
    assert placement.box == (50, 14, 150, 114)


def test_padding_lies_outside_the_original() -> None:
    inputs, placement = Preprocess(crop=(100, 140), mean=(0,) * 3, std=(1,) * 3)(sample(97, 131))
    assert placement.box == (-4, -1, 136, 99)
    assert not inputs[:, 0].any()
    assert not inputs[:, :, :4].any()
    assert inputs[:, 1:98, 4:135].any()


@pytest.mark.parametrize("size", [(9, 12), (10, 12), (11, 14), (12, 17), (13, 20), (6, 7), (5, 30)])
def test_crops_lie_where_torchvisions_do(size: tuple[int, int]) -> None:
    from torchvision.transforms.v2.functional import center_crop

    pixels = picture(*size)
    inputs, _ = Preprocess(crop=(8, 9), mean=(0,) * 3, std=(1,) * 3)(mmcam.Sample(pixels=pixels))
    expected = center_crop(torch.from_numpy(pixels).movedim(-1, 0), [8, 9]) / 255
    torch.testing.assert_close(inputs, expected)


def test_bgr_reverses_channels_before_normalising() -> None:
    pixels = np.full((2, 2, 3), (255, 51, 0), np.uint8)
    recipe = Preprocess(mean=(0.1, 0.2, 0.3), std=(1, 1, 0.5), order="bgr")
    inputs, _ = recipe(mmcam.Sample(pixels=pixels))
    torch.testing.assert_close(inputs[:, 0, 0], torch.tensor([-0.1, 0.0, 1.4]))


def test_a_clip_covers_its_own_span_or_all_frames() -> None:
    clip = sample(8, 8, frames=4)
    recipe = Preprocess(frames=4)
    assert recipe(clip)[1].spans == ((0, 4),)
    part = mmcam.Sample(pixels=clip.pixels, span=(12, 60))
    inputs, placement = recipe(part)
    assert placement.spans == ((12, 60),)
    assert inputs.shape == (3, 4, 8, 8)


def test_an_unknown_key_is_refused() -> None:
    with pytest.raises(ModelError, match=r"preprocess has no 'size'; it takes resize, crop"):
        Preprocess.from_dict({"size": 224})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"resize": "96"}, "resize='96'; it must be a number of pixels, (height, width) or None"),
        ({"resize": [96]}, "resize=[96]; it must be a number of pixels, (height, width) or None"),
        ({"crop": 0}, "crop=0; it must be a number of pixels, (height, width) or None"),
        ({"crop": True}, "crop=True; it must be a number of pixels, (height, width) or None"),
        ({"mean": 0.5}, "mean=0.5; it must be three numbers, one for each channel"),
        ({"mean": "0.5"}, "mean='0.5'; it must be three numbers, one for each channel"),
        ({"std": [1, 1, 0]}, "std=[1, 1, 0]; it must be three numbers above 0"),
        ({"interpolation": "cubic"}, "interpolation='cubic'; it must be one of nearest, nearest-"),
        ({"interpolation": "box"}, "interpolation='box'; it must be one of nearest, nearest-"),
        ({"order": "rbg"}, "order='rbg'; it must be rgb or bgr"),
        ({"centre": ["up"]}, "centre=['up']; it must be round or down"),
        ({"frames": 1.5}, "frames=1.5; it must be a number of frames or None"),
        ({"stride": float("nan")}, "stride=nan; it must be a number of frames above 0"),
        ({"fps": -1}, "fps=-1; it must be frames per second or None"),
    ],
)
def test_a_wrong_value_is_refused(
    values: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ModelError) as caught:
        Preprocess.from_dict(values)
    assert message in str(caught.value)


def test_every_setting_is_checked() -> None:
    assert list(SETTINGS) == [field.name for field in fields(Preprocess)]


def compose(*steps: Callable[[Any], Any]) -> Callable[[Any], Tensor]:
    from torchvision.transforms import v2

    end = [v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True)]
    normalise = v2.Normalize([0.4, 0.5, 0.6], [0.2, 0.3, 0.1])
    composed: Callable[[Any], Tensor] = v2.Compose([*steps, *end, normalise])
    return composed


def step(name: str, *args: Any, **options: Any) -> Callable[[Any], Any]:
    from torchvision.transforms import v2

    transform: Callable[[Any], Any] = getattr(v2, name)(*args, **options)
    return transform


PIPELINES: dict[str, tuple[list[tuple[Any, ...]], tuple[float, float, float, float]]] = {
    "nothing": ([], (0, 0, 600, 300)),
    "short side and crop": ([("Resize", 100), ("CenterCrop", 80)], (180, 30, 420, 270)),
    "squashed": ([("Resize", (64, 48))], (0, 0, 600, 300)),
    "padded": ([("Pad", [10, 20, 30, 40])], (-10, -20, 630, 340)),
    "padded, then resized": ([("Pad", [0, 150]), ("Resize", 60)], (0, -150, 600, 450)),
    "crop beyond the picture": ([("CenterCrop", (400, 300))], (150, -50, 450, 350)),
    "grey": ([("Grayscale", 3), ("Resize", 75)], (0, 0, 600, 300)),
}


@pytest.mark.parametrize(("steps", "box"), PIPELINES.values(), ids=PIPELINES)
def test_the_box_of_a_transform_is_measured_to_less_than_a_pixel(
    steps: list[tuple[Any, ...]], box: tuple[float, float, float, float]
) -> None:
    transform = Transform(compose(*(step(*arguments) for arguments in steps)))
    inputs, placement = transform(sample(300, 600))
    assert placement.size == (300, 600)
    assert placement.box == pytest.approx(box, abs=0.99)
    expected = transform.function(Image.fromarray(sample(300, 600).pixels))
    torch.testing.assert_close(inputs, expected, rtol=0, atol=0)


def test_the_box_of_a_transform_equals_that_of_preprocess() -> None:
    transform = Transform(compose(step("Resize", 64), step("CenterCrop", (51, 44))))
    for size in ((97, 131), (640, 427), (427, 640), (65, 1000)):
        _, expected = Preprocess(resize=64, crop=(51, 44))(sample(*size))
        _, measured = transform(sample(*size))
        assert measured.box == pytest.approx(expected.box, abs=0.99)


def letterboxed(image: Image.Image) -> Image.Image:
    """The whole picture, shrunk to fit a grey square of 120 pixels."""
    scale = 120 / max(image.size)
    small = image.resize((round(image.width * scale), round(image.height * scale)))
    square = Image.new("RGB", (120, 120), (128, 128, 128))
    square.paste(small, ((120 - small.width) // 2, (120 - small.height) // 2))
    return square


def trimmed(image: Image.Image) -> Image.Image:
    """The picture without a tenth at the left and a fifth at the bottom; small ones are kept."""
    if image.width < 500:
        return image
    return image.crop((image.width // 10, 0, image.width, image.height * 4 // 5))


@pytest.mark.parametrize(
    ("crop", "size", "box"),
    [
        (letterboxed, (300, 600), (0, -150, 600, 450)),
        (letterboxed, (600, 300), (-150, 0, 450, 600)),
        (trimmed, (300, 600), (60, 0, 600, 240)),
        (trimmed, (300, 400), (0, 0, 400, 300)),
    ],
)
def test_the_box_follows_the_size_of_the_picture(
    crop: Callable[[Any], Any], size: tuple[int, int], box: tuple[float, ...]
) -> None:
    transform = Transform(compose(crop, step("Resize", (60, 60))))
    for _ in range(2):
        assert transform(sample(*size))[1].box == pytest.approx(box, abs=0.99)


class Counted:
    """A transform that keeps the sizes of the pictures that it is given."""

    def __init__(self) -> None:
        self.sizes: list[tuple[int, int]] = []
        self.side = 40

    def __call__(self, image: Image.Image) -> Tensor:
        self.sizes.append(image.size)
        pixels = np.array(image.resize((self.side, self.side)), np.float32)
        return torch.from_numpy(pixels).movedim(-1, 0)


def test_a_box_is_measured_once_for_each_size_of_picture() -> None:
    transform = Transform(Counted())
    function: Any = transform.function
    for _ in range(3):
        _, placement = transform(sample(30, 50))
        assert placement.box == pytest.approx((0, 0, 50, 30), abs=0.1)
    # The first picture twice, black, white, grey and two ramps; then each picture alone.
    assert function.sizes == [(50, 30)] * 9
    _, placement = transform(sample(70, 60))
    assert placement.box == pytest.approx((0, 0, 60, 70), abs=0.1)
    assert function.sizes[9:] == [(60, 70)] * 6
    function.side = 30  # another output size is measured anew
    transform(sample(30, 50))
    assert function.sizes[15:] == [(50, 30)] * 6


def test_measuring_allocates_no_array_of_the_size_of_the_picture() -> None:
    large = sample(1000, 1200)
    transform = Transform(Counted())
    tracemalloc.start()
    transform(large)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # Pillow's pictures are not traced; one copy of the pixels is, if Pillow takes them as bytes.
    assert peak < 1.5 * large.pixels.nbytes


def test_only_a_limited_number_of_sizes_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmcam.adapters.base.preprocess.MAX_SIZES", 3)
    transform = Transform(Counted())
    for width in (20, 21, 22, 23, 24):
        assert transform(sample(20, width))[1].box == pytest.approx((0, 0, width, 20), abs=0.1)
        assert len(transform._boxes) <= 3


def test_a_transform_may_become_random_later() -> None:
    class Switched(Counted):
        is_random = False

        def __call__(self, image: Image.Image) -> Tensor:
            left = int(torch.randint(9, ())) if self.is_random else 0
            return super().__call__(image.crop((left, 0, left + 20, 20)))

    transform = Transform(Switched())
    transform(sample(30, 50))
    Switched.is_random = True
    with pytest.raises(ModelError, match=r"draws random numbers.*for evaluation"):
        transform(sample(30, 50))


def test_a_transform_with_its_own_random_generator_is_refused() -> None:
    generator = np.random.default_rng(0)

    def shifted(image: Image.Image) -> Tensor:
        left = int(generator.integers(1, 1000)) / 100
        return Counted()(image.crop((left, 0, left + 20, 20)).rotate(left))

    with pytest.raises(ModelError, match=r"draws random numbers.*for evaluation"):
        Transform(shifted)(sample(30, 50))


def test_a_crop_that_depends_on_the_content_is_refused() -> None:
    def to_content(image: Image.Image) -> Tensor:
        return compose()(image.crop(image.getbbox()))

    pixels = np.zeros((30, 50, 3), np.uint8)
    pixels[10:20, 5:25] = 200
    message = (
        r"returns \(3, 10, 20\) and \(3, 30, 50\) for pictures of the same 50 x 30 pixels.*"
        "depend on the size of the picture alone"
    )
    with pytest.raises(ModelError, match=message):
        Transform(to_content)(mmcam.Sample(pixels=pixels))
    clip = np.stack([pixels, np.roll(pixels, 10, 1), pixels | 255])
    with pytest.raises(ModelError, match=message):
        Transform(to_content, frames=3)(mmcam.Sample(pixels=clip))


def test_a_clip_is_transformed_frame_by_frame() -> None:
    transform = Transform(compose(step("Resize", (8, 8))), frames=3, stride=2)
    clip = sample(frames=3)
    inputs, placement = transform(clip)
    assert inputs.shape == (3, 3, 8, 8)
    last, _ = transform(mmcam.Sample(pixels=clip.pixels[2]))
    torch.testing.assert_close(inputs[:, 2], last)
    assert placement.spans == ((0, 3),)
    assert transform.window is not None
    assert transform.window.length(30) == 6


@pytest.mark.parametrize(
    ("name", "args"),
    [("RandomCrop", (50,)), ("RandomHorizontalFlip", ()), ("RandomResizedCrop", (40,))],
)
def test_random_transforms_are_refused(name: str, args: tuple[int, ...]) -> None:
    with pytest.raises(ModelError, match=r"draws random numbers.*for evaluation"):
        Transform(compose(step(name, *args)))(sample())


@pytest.mark.parametrize("transpose", [Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.ROTATE_90])
def test_flips_and_rotations_are_refused(transpose: Image.Transpose) -> None:
    with pytest.raises(ModelError, match="more than resizing, cropping or padding"):
        Transform(compose(lambda image: image.transpose(transpose)))(sample())


@pytest.mark.parametrize(
    ("output", "given"), [(torch.zeros(4, 4), r"\(4, 4\)"), (np.zeros((3, 4, 4)), "ndarray")]
)
def test_a_transform_that_returns_no_picture_tensor_is_refused(output: Any, given: str) -> None:
    with pytest.raises(ModelError, match=rf"returns {given}.*tensor \[channel, height, width\]"):
        Transform(lambda image: output)(sample())
