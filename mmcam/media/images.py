"""Pictures: read from any format as upright RGB, written atomically."""

from __future__ import annotations

import contextlib
import os
import secrets
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError

from mmcam.errors import InputError, OutputError
from mmcam.types import Sample

Picture = UInt8[np.ndarray, "height width 3"]

ANIMATED = frozenset({"GIF", "WEBP", "PNG", "AVIF"})
"""Formats in which several frames are an animation.

In other formats, the frames after the first are pages, thumbnails or depth maps.
"""

ORIENTATION = 0x0112
TO_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""The transpose that undoes each value of the EXIF orientation; 1 is already upright."""

ROUNDING = 1e-6
"""The amount by which values of a float array may exceed [0, 1] through rounding."""


def read_image(source: Any) -> Sample:
    """A picture as upright RGB, `uint8 [h w 3]`.

    `source` is a file, a PIL image or an array: `uint8` or float in [0, 1], `[h w]`, `[h w 3]` or
    `[h w 4]`. EXIF orientation is applied, transparency is composited over white, and 16-bit grey
    is scaled to 8 bits. The sample's `id` is the path as given, "image" or "array".

    Raises:
        InputError: a source of another type; a file that is missing, empty, not a picture, broken,
            animated or too large; or an array of another shape, dtype or range.
    """
    if isinstance(source, np.ndarray):
        return Sample(pixels=_from_array(source), id="array")
    if isinstance(source, Image.Image):
        return Sample(pixels=_single_frame(source, "image"), id="image")
    if not isinstance(source, str | Path):
        raise InputError(
            f"{type(source).__name__}: not a picture that can be read; give a path, a PIL image or "
            "an array [h w 3]"
        )
    with open_image(source) as image:
        return Sample(pixels=_single_frame(image, str(source)), id=str(source))


@contextlib.contextmanager
def open_image(path: str | Path) -> Iterator[Image.Image]:
    """Open a picture file and read its header; the pixels are not decoded yet.

    Raises:
        InputError: the file is missing, empty, broken, not a picture or too large.
    """
    check_file(path)
    try:
        # Pillow warns above half of the size that it refuses; only refused pictures are errors.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(path)
    except UnidentifiedImageError as error:
        raise InputError(
            f"{path}: not a picture that can be read; convert it to PNG or JPEG "
            "(a video is explained with: mmcam action)"
        ) from error
    except Image.DecompressionBombError as error:
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0) // 1_000_000
        raise InputError(
            f"{path}: the picture has more than {limit} million pixels; make it smaller first"
        ) from error
    except Exception as error:  # a broken header can make a decoder raise any exception
        raise _decode_error(path, error) from error
    with image:
        yield image


def check_file(path: str | Path) -> None:
    """Check that `path` is an existing, readable file that is not empty.

    Raises:
        InputError: the path does not exist, or the file is a folder, unreadable or empty.
    """
    file = Path(path)
    try:
        if not file.exists():
            raise InputError(f"{path}: there is no such file; check the path")
        if file.is_dir():
            raise InputError(
                f"{path}: a folder, not a file; a folder of frames is a clip (mmcam action)"
            )
        with file.open("rb") as stream:
            empty = not stream.read(1)
    except (OSError, ValueError) as error:  # ValueError: a NUL byte in the name
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path}: cannot be opened ({reason}); check the path") from error
    if empty:
        raise InputError(f"{path}: the file is empty; copy or download it again")


def to_rgb(image: Image.Image, name: str) -> Picture:
    """The current frame of a PIL image as upright RGB, transparency composited over white.

    Args:
        image: the image, with its file still open.
        name: the name of the image in error messages.

    Raises:
        InputError: the pixels cannot be decoded or converted to RGB.
    """
    try:
        image = upright(image, name)
        if image.mode.startswith("I") or image.mode == "F":
            return _from_high_bit_depth(np.asarray(image), name)
        if image.has_transparency_data:
            image = image.convert("RGBA")
            white = Image.new("RGBA", image.size, "white")
            image = Image.alpha_composite(white, image)
        return np.array(image.convert("RGB"))
    except InputError:
        raise
    except Exception as error:  # broken data can make a decoder raise any exception
        raise _decode_error(name, error) from error


def write_image(path: str | Path, pixels: Picture) -> None:
    """Write `uint8 [h w 3]` as a PNG; if writing fails, an existing file is unchanged.

    Raises:
        OutputError: the pixels have another shape or dtype, or the file cannot be written.
    """
    check_picture(path, pixels)
    with atomic_write(path) as temporary, temporary.open("xb") as file:
        Image.fromarray(np.ascontiguousarray(pixels)).save(file, format="PNG")


@contextlib.contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Write `path` atomically: yield a temporary path and rename it to `path` on success.

    Raises:
        OutputError: the file cannot be written (a full disk, no permission); `path` is unchanged.
    """
    temporary = temporary_path(path)
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise write_error(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def make_folder(folder: Path) -> None:
    """Create a folder for results, and its parents, if they do not exist.

    Raises:
        OutputError: the folder cannot be created.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"folder '{folder}' cannot be created ({error.strerror}); choose another folder"
        ) from error


def check_picture(path: str | Path, pixels: np.ndarray) -> None:
    """Check that `pixels`, which are to be written to `path`, are `uint8 [h w 3]`.

    Raises:
        OutputError: `pixels` is not an array, is empty, or has another shape or dtype.
    """
    is_rgb = isinstance(pixels, np.ndarray) and pixels.ndim == 3 and pixels.shape[2] == 3
    if not is_rgb or pixels.dtype != np.uint8 or not pixels.size:
        actual = (
            f"{pixels.dtype} {list(pixels.shape)}"
            if isinstance(pixels, np.ndarray)
            else type(pixels).__name__
        )
        raise OutputError(f"{path}: cannot write {actual} as a picture; give uint8 [h w 3]")


def temporary_path(path: str | Path) -> Path:
    """A hidden, unused path beside `path`, to write to before renaming."""
    path = Path(path)
    return path.with_name(f".{path.name[:100]}.{secrets.token_hex(4)}.part")


def write_error(path: str | Path, error: Exception) -> OutputError:
    """The error to raise when writing `path` fails."""
    reason = getattr(error, "strerror", None) or error
    return OutputError(
        f"{path}: cannot be written ({reason}); free some space, check the folder's permissions, "
        "or choose another"
    )


def check_single_frame(image: Image.Image, name: str) -> None:
    """Check that an image is not an animation.

    Raises:
        InputError: the image is an animation, or its frames cannot be counted.
    """
    try:
        frames = getattr(image, "n_frames", 1) if image.format in ANIMATED else 1
    except Exception as error:  # counting the frames reads the file, which may be broken
        raise _decode_error(name, error) from error
    if frames > 1:
        raise InputError(
            f"{name}: an animation of {frames} frames, not a picture; "
            "use it as a clip (mmcam action)"
        )


def _single_frame(image: Image.Image, name: str) -> Picture:
    check_single_frame(image, name)
    return to_rgb(image, name)


def upright(image: Image.Image, name: str) -> Image.Image:
    """The decoded image with its EXIF orientation applied, in its own mode.

    Raises:
        InputError: the pixels cannot be decoded.
    """
    try:
        image.load()
    except Exception as error:  # broken data can make a decoder raise any exception
        raise _decode_error(name, error) from error
    try:
        orientation = image.getexif().get(ORIENTATION, 1)
    except Exception:  # unreadable EXIF: keep the pixels as stored
        return image
    return image.transpose(TO_UPRIGHT[orientation]) if orientation in TO_UPRIGHT else image


def _from_high_bit_depth(values: np.ndarray, name: str) -> Picture:
    """RGB from grey values of more than 8 bits: 16-bit integers, or floats in [0, 1].

    Raises:
        InputError: values outside these ranges.
    """
    if values.dtype.kind == "f":
        return _from_array(values, name)
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535:
        raise InputError(
            f"{name}: grey values from {low} to {high} do not fit 16 bits; rescale them to 0..65535"
        )
    # 65535 / 255 is 257; half of it is added to round to the nearest level.
    return _from_grey((values.astype(np.uint32) + 128) // 257)


def _from_array(array: np.ndarray, name: str = "array") -> Picture:
    shape = list(array.shape)
    if not array.size:
        raise InputError(f"{name}: shape {shape} holds no pixels; give [h w 3]")
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)):
        raise InputError(f"{name}: shape {shape} is not a picture; {_shape_remedy(array)}")
    pixels = _to_uint8(array, name)
    if pixels.ndim == 2:
        return _from_grey(pixels)
    if pixels.shape[2] == 4:
        return to_rgb(Image.fromarray(np.ascontiguousarray(pixels)), name)
    return np.array(pixels, order="C")


def _shape_remedy(array: np.ndarray) -> str:
    if array.ndim == 3 and array.shape[0] == 1:
        return "it looks channels-first: give array[0], which is [h w]"
    if array.ndim == 3 and array.shape[0] in (3, 4):
        return "it looks channels-first: give array.transpose(1, 2, 0), which is [h w channel]"
    if array.ndim == 4:
        return "give one picture [h w 3], or explain it as a clip (mmcam.Actions)"
    return "give [h w 3], [h w 4] or [h w]"


def _to_uint8(array: np.ndarray, name: str) -> np.ndarray[Any, np.dtype[np.uint8]]:
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind != "f":
        raise InputError(
            f"{name}: dtype {array.dtype} is ambiguous; give uint8 in 0..255 or float in [0, 1]"
        )
    low, high = float(array.min()), float(array.max())
    if not np.isfinite([low, high]).all():
        raise InputError(f"{name}: holds NaN or infinity; give float in [0, 1]")
    if low < -ROUNDING or high > 1 + ROUNDING:
        raise InputError(
            f"{name}: float values from {low:.4g} to {high:.4g} are outside [0, 1]; "
            "rescale them (undo the model's normalisation)"
        )
    return (array.clip(0, 1).astype(np.float32) * 255).round().astype(np.uint8)


def _from_grey(values: np.ndarray) -> Picture:
    return np.repeat(values.astype(np.uint8)[..., None], 3, axis=2)


def _decode_error(name: str | Path, error: Exception) -> InputError:
    return InputError(
        f"{name}: the picture is broken or its format is not supported ({error}); "
        "save it again as PNG or JPEG"
    )
