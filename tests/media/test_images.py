from __future__ import annotations

import os
import resource
from pathlib import Path

import jaxtyping
import numpy as np
import pytest
from PIL import Image

from mmcam.errors import InputError, OutputError
from mmcam.media import read_image, write_image

RED, WHITE = [255, 0, 0], [255, 255, 255]


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Switch off the run-time checks of shapes and types, as for a user."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.fixture
def picture() -> np.ndarray:
    """Noise, so that a misplaced pixel shows."""
    return np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)


def saved(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)
    return path


# Files.


def test_a_file_is_read_as_it_is(tmp_path: Path, picture: np.ndarray) -> None:
    path = saved(tmp_path / "a.png", Image.fromarray(picture))
    sample = read_image(path)
    assert sample.pixels.dtype == np.uint8
    assert (sample.pixels == picture).all()
    assert sample.id == str(path)
    assert read_image(str(path)).id == str(path)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_undone(tmp_path: Path, picture: np.ndarray, orientation: int) -> None:
    """EXIF orientation states where row 0 and column 0 of the stored pixels are shown."""
    stored = {
        1: picture,
        2: picture[:, ::-1],
        3: picture[::-1, ::-1],
        4: picture[::-1],
        5: picture.swapaxes(0, 1),
        6: picture.swapaxes(0, 1)[::-1],
        7: picture.swapaxes(0, 1)[::-1, ::-1],
        8: picture.swapaxes(0, 1)[:, ::-1],
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(np.ascontiguousarray(stored))
    path = saved(tmp_path / "a.png", image, exif=exif)
    assert (read_image(path).pixels == picture).all()


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_broken_exif_does_not_stop_a_good_picture(tmp_path: Path, picture: np.ndarray) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(picture).save(path, exif=b"Exif\0\0MM\0*\xff\xff\xff\xff broken")
    assert read_image(path).pixels.shape == picture.shape


def test_transparency_is_shown_over_white(tmp_path: Path) -> None:
    pixels = np.array([[[255, 0, 0, 255], [255, 0, 0, 0], [0, 0, 0, 51]]], np.uint8)
    path = saved(tmp_path / "a.png", Image.fromarray(pixels))
    assert read_image(path).pixels.tolist() == [[RED, WHITE, [204, 204, 204]]]


def test_a_transparent_palette_is_shown_over_white(tmp_path: Path) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.putpixel((1, 0), 1)
    path = saved(tmp_path / "a.png", image, transparency=1)
    assert read_image(path).pixels.tolist() == [[RED, WHITE]]


def test_transparent_grey_is_shown_over_white(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", Image.merge("LA", [Image.new("L", (1, 1), v) for v in (9, 0)]))
    assert read_image(path).pixels.tolist() == [[WHITE]]


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_are_scaled(tmp_path: Path, suffix: str) -> None:
    grey = np.array([[0, 256, 257 * 100, 257 * 100 + 128, 257 * 100 + 129, 65535]], np.uint16)
    path = saved(tmp_path / f"a.{suffix}", Image.fromarray(grey))
    pixels = read_image(path).pixels
    assert pixels[0, :, 0].tolist() == [0, 1, 100, 100, 101, 255]
    assert (pixels == pixels[..., :1]).all()


def test_grey_beyond_sixteen_bits_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.tif", Image.fromarray(np.array([[0, 70000]], np.int32)))
    with pytest.raises(InputError, match=r"from 0 to 70000 .* rescale"):
        read_image(path)


def test_float_files_are_read_as_zero_to_one(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.tif", Image.fromarray(np.array([[0.0, 1.0]], np.float32)))
    assert read_image(path).pixels[0, :, 0].tolist() == [0, 255]


def test_grey_and_one_bit(tmp_path: Path) -> None:
    grey = np.array([[0, 128, 255]], np.uint8)
    path = saved(tmp_path / "grey.png", Image.fromarray(grey))
    assert read_image(path).pixels[0].tolist() == [[0] * 3, [128] * 3, [255] * 3]
    path = saved(tmp_path / "bits.png", Image.fromarray(grey).convert("1", dither=0))
    assert read_image(path).pixels[0].tolist() == [[0] * 3, [255] * 3, [255] * 3]


def test_cmyk(tmp_path: Path) -> None:
    image = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    path = saved(tmp_path / "a.jpg", image, quality=100)
    np.testing.assert_allclose(read_image(path).pixels[4, 4], RED, atol=3)


def test_an_animation_is_a_clip(tmp_path: Path) -> None:
    frames = [Image.new("L", (4, 4), 80 * value) for value in range(3)]
    for name in ("a.gif", "a.webp"):
        path = saved(tmp_path / name, frames[0], save_all=True, append_images=frames[1:])
        with pytest.raises(InputError, match=r"animation of 3 frames.*mmcam action"):
            read_image(path)


def test_a_still_gif_is_a_picture(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.gif", Image.new("RGB", (4, 3), (255, 0, 0)))
    assert read_image(path).pixels.tolist() == [[RED] * 4] * 3


def test_further_pages_are_passed_over(tmp_path: Path) -> None:
    pages = [Image.new("RGB", (2, 2), colour) for colour in ("red", "blue")]
    path = saved(tmp_path / "a.tif", pages[0], save_all=True, append_images=pages[1:])
    assert read_image(path).pixels[0, 0].tolist() == RED


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.png: there is no such file"):
        read_image(tmp_path / "nowhere.png")


def test_a_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a folder.*clip"):
        read_image(tmp_path)


def test_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    with pytest.raises(InputError, match="is empty"):
        read_image(tmp_path / "a.png")


def test_an_impossible_name() -> None:
    with pytest.raises(InputError):
        read_image("a\0b.png")


def test_no_picture(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("not a picture at all")
    with pytest.raises(InputError, match=r"not a picture.*PNG or JPEG"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif", "bmp", "gif"])
def test_a_truncated_file(tmp_path: Path, suffix: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = saved(tmp_path / f"a.{suffix}", Image.fromarray(noise))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError):
        read_image(path)


def test_a_huge_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path / "a.png", Image.new("L", (3000, 1000)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2_000_000)
    assert read_image(path).pixels.shape == (1000, 3000, 3)  # up to twice the limit, no warning
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1_000_000)
    with pytest.raises(InputError, match="more than 2 million pixels"):
        read_image(path)


# PIL images and arrays.


def test_a_pil_image_is_read_and_left_alone(picture: np.ndarray) -> None:
    image = Image.fromarray(picture)
    sample = read_image(image)
    assert (sample.pixels == picture).all()
    assert sample.id == "image"
    sample.pixels[:] = 0
    assert (np.asarray(image) == picture).all()


def test_arrays(picture: np.ndarray) -> None:
    sample = read_image(picture)
    assert (sample.pixels == picture).all()
    assert not np.shares_memory(sample.pixels, picture)
    assert sample.id == "array"
    assert (read_image(picture[..., 0]).pixels == picture[..., :1]).all()
    assert (read_image(picture / 255).pixels == picture).all()
    assert (read_image((picture / 255).astype(np.float16)).pixels == picture).all()
    opaque = np.concatenate([picture, np.full((5, 7, 1), 255, np.uint8)], axis=2)
    assert (read_image(opaque).pixels == picture).all()
    assert (read_image(opaque * np.uint8([1, 1, 1, 0])).pixels == 255).all()
    assert (read_image(picture[:, ::-1]).pixels == picture[:, ::-1]).all()


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((3, 5, 7), np.uint8), r"\[3, 5, 7\].*channels-first.*transpose\(1, 2, 0\)"),
        (np.zeros((5, 7, 2), np.uint8), r"\[5, 7, 2\].*\[h w 3\]"),
        (np.zeros((5, 7, 1), np.uint8), r"\[5, 7, 1\]"),
        (np.zeros(7, np.uint8), r"\[7\]"),
        (np.zeros((2, 5, 7, 3), np.uint8), r"clip"),
        (np.zeros((0, 7, 3), np.uint8), r"holds no pixels"),
        (np.zeros((5, 7, 3), np.int64), r"int64"),
        (np.zeros((5, 7, 3), bool), r"bool"),
        (np.full((5, 7, 3), np.nan), r"NaN"),
        (np.full((5, 7, 3), np.inf), r"infinity"),
        (np.full((5, 7, 3), 255.0), r"255.*outside \[0, 1\]"),
        (np.full((5, 7, 3), -0.5), r"-0\.5"),
    ],
)
def test_a_wrong_array(array: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_image(array)


@pytest.mark.usefixtures("unchecked")
def test_something_else() -> None:
    with pytest.raises(InputError, match=r"list: not a picture"):
        read_image([1, 2])  # type: ignore[arg-type]


# Writing.


def test_what_is_written_is_read(tmp_path: Path, picture: np.ndarray) -> None:
    path = tmp_path / "a.png"
    write_image(path, picture)
    write_image(path, picture[::-1])  # views and older files are no obstacle
    assert (read_image(path).pixels == picture[::-1]).all()
    assert os.listdir(tmp_path) == ["a.png"]


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    "pixels", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)]
)
def test_writing_something_else(tmp_path: Path, pixels: np.ndarray) -> None:
    with pytest.raises(OutputError, match=r"uint8 \[h w 3\]"):
        write_image(tmp_path / "a.png", pixels)
    assert not list(tmp_path.iterdir())


def test_writing_to_no_folder(tmp_path: Path, picture: np.ndarray) -> None:
    with pytest.raises(OutputError, match=r"check the folder"):
        write_image(tmp_path / "nowhere" / "a.png", picture)


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, picture: np.ndarray) -> None:
    """A limit on the file size simulates a full disk."""
    path = tmp_path / "a.png"
    write_image(path, picture)
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(OutputError, match=r"a\.png: cannot be written"):
            write_image(path, noise)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (read_image(path).pixels == picture).all()
    assert os.listdir(tmp_path) == ["a.png"]


# Real photos.


@pytest.mark.assets
def test_real_photos_are_read() -> None:
    if "MMCAM_ASSETS" not in os.environ:
        pytest.skip("MMCAM_ASSETS does not name the folder of real photos")
    photos = Path(os.environ["MMCAM_ASSETS"]) / "image"
    files = [
        *(photos / "photos").glob("*.jpg"),
        *sorted((photos / "imagenet_sample").iterdir())[:8],
    ]
    assert len(files) == 12
    for file in files:
        pixels = read_image(file).pixels
        with Image.open(file) as image:
            assert pixels.shape == (image.height, image.width, 3)
        assert pixels.std() > 10
