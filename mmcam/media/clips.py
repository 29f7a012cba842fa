"""Reading clips: random access to a video, an animation, a folder of pictures or an array."""

from __future__ import annotations

import contextlib
import math
import operator
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, SupportsIndex, runtime_checkable

import numpy as np
from jaxtyping import UInt8
from PIL import UnidentifiedImageError

from mmcam.errors import InputError
from mmcam.media.images import ANIMATED, Picture, open_image, read_image, to_rgb
from mmcam.media.video import VideoReader

Frames = UInt8[np.ndarray, "time height width 3"]

DEFAULT_FPS = 25.0
"""Frames per second of a source without a frame rate: a folder, an array, a raw stream."""

PICTURE_SUFFIXES = frozenset(
    {".apng", ".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".pgm", ".png", ".pnm", ".ppm"}
    | {".tif", ".tiff", ".webp"}
)
"""Suffixes of the files that are read as the frames of a folder."""

DEFAULT_DURATION = 100.0
"""Milliseconds that a frame without a stored duration is shown, as in browsers."""


@runtime_checkable
class Reader(Protocol):
    """Reads the frames of one kind of source; callers pass only indices that exist."""

    frames: int
    fps: float
    height: int
    width: int

    def read(self, indices: Sequence[int]) -> Frames:
        """The frames of these indices, in this order.

        Raises:
            InputError: a frame cannot be decoded.
        """
        ...

    def __iter__(self) -> Iterator[Picture]:
        """All frames in order, one at a time."""
        ...

    def close(self) -> None:
        """Release files and memory."""
        ...


class Clip:
    """The frames of a clip as upright RGB, by random access or in order.

    A clip holds its file open: use it in a `with` block, or call `close()`. A clip must not be used
    by several threads at once. Iterating and reading do not affect each other.

    Attributes:
        source: the source as passed to `open_clip`.
        path: the path of the source as text; "array" for an array.
        frames: the number of frames.
        fps: frames per second; the average if frames are not evenly spaced.
        height: rows of a frame, after rotation.
        width: columns of a frame, after rotation.
    """

    def __init__(self, source: str | Path | np.ndarray, reader: Reader) -> None:
        self.source = source
        self.path = "array" if isinstance(source, np.ndarray) else str(source)
        self.frames, self.fps = reader.frames, reader.fps
        self.height, self.width = reader.height, reader.width
        self._reader: Reader | None = reader

    def read(self, indices: Iterable[SupportsIndex]) -> Frames:
        """The frames `indices`, counted from 0: any order, repeats allowed, `uint8 [t h w 3]`.

        Ascending order is fastest. The most recently read frames of a video are cached (16 MiB), so
        that overlapping windows are not decoded twice.

        Raises:
            InputError: an index is out of range, a frame cannot be decoded, or the clip is closed.
        """
        reader = self._open_reader()
        integers = [operator.index(index) for index in indices]
        for index in integers:
            if not 0 <= index < self.frames:
                raise InputError(
                    f"{self.path}: there is no frame {index}; its frames are 0 to {self.frames - 1}"
                )
        return reader.read(integers)

    def __iter__(self) -> Iterator[Picture]:
        """All frames in order, each `uint8 [h w 3]`, in constant memory.

        Raises:
            InputError: a frame cannot be decoded, or the clip is closed.
        """
        return iter(self._open_reader())

    def close(self) -> None:
        """Release the file; closing twice does nothing."""
        if self._reader is not None:
            self._reader.close()
        self._reader = None

    def __enter__(self) -> Clip:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open_reader(self) -> Reader:
        if self._reader is None:
            raise InputError(f"{self.path}: the clip is closed; read it before it is closed")
        return self._reader


def open_clip(source: Any, fps: int | float = DEFAULT_FPS) -> Clip:
    """Open a video file, an animated picture, a folder of frames or an array as a clip.

    A folder's frames are its pictures in natural order (frame2 before frame10); hidden and other
    files are ignored. The file of a single picture is a clip of one frame. An array is
    `uint8 [t h w 3]`. `fps` is the frame rate of sources that do not store one.

    Raises:
        InputError: the source is missing, broken, empty or not a clip, its frames differ in size,
            or `fps` is not a finite number above 0.
    """
    if not (math.isfinite(fps) and fps > 0):
        raise InputError(f"fps {fps}: not a frame rate; give frames per second above 0, such as 25")
    if isinstance(source, np.ndarray):
        return Clip(source, _ArrayReader(source, fps))
    if not isinstance(source, str | Path):
        raise InputError(
            f"{type(source).__name__}: not a clip that can be read; give a video, an animated "
            "picture, a folder of frames or an array uint8 [t h w 3]"
        )
    path = Path(source)
    if path.is_dir():
        return Clip(source, _FolderReader(path, fps))
    if _is_picture(path):
        return Clip(source, _AnimationReader(path, fps))
    return Clip(source, VideoReader(str(source), fps))


class _ArrayReader:
    """Reads frames from an array, which is not copied until frames are read."""

    def __init__(self, pixels: Frames, fps: int | float) -> None:
        shape = list(pixels.shape)
        if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[3] != 3:
            channels_first = pixels.ndim == 4 and 3 in pixels.shape[:2]
            remedy = (
                " (channels first? transpose it)"
                if channels_first
                else ", or for other values a tensor [channel, t, h, w] as the model takes it"
            )
            raise InputError(
                f"array: {pixels.dtype} {shape} is not a clip; give uint8 [t h w 3]{remedy}"
            )
        if not pixels.size:
            raise InputError(f"array: shape {shape} holds no frames; give uint8 [t h w 3]")
        self.frames, self.height, self.width = pixels.shape[:3]
        self.fps = float(fps)
        self._pixels = pixels

    def read(self, indices: Sequence[int]) -> Frames:
        return self._pixels[np.asarray(indices, np.intp)]

    def __iter__(self) -> Iterator[Picture]:
        return (frame.copy() for frame in self._pixels)

    def close(self) -> None:
        pass


class _PictureReader(ABC):
    """Base of readers whose frames are pictures, each decoded separately when it is read."""

    frames: int
    height: int
    width: int

    @abstractmethod
    def _frame(self, index: int) -> Picture:
        """The frame of this index."""

    def read(self, indices: Sequence[int]) -> Frames:
        frames = np.empty((len(indices), self.height, self.width, 3), np.uint8)
        for row, index in enumerate(indices):
            frames[row] = self._frame(index)
        return frames

    def __iter__(self) -> Iterator[Picture]:
        return (self._frame(index) for index in range(self.frames))

    def close(self) -> None:  # noqa: B027 - a folder of pictures holds no file open
        """Release open files."""


class _FolderReader(_PictureReader):
    """Reads the pictures of a folder as frames."""

    def __init__(self, folder: Path, fps: int | float) -> None:
        try:
            files = [file for file in folder.iterdir() if _is_frame(file)]
        except OSError as error:
            raise InputError(
                f"{folder}: cannot be listed ({error.strerror}); check its permissions"
            ) from error
        if not files:
            raise InputError(
                f"{folder}: no pictures in this folder; put frames in it, such as frame1.png"
            )
        self._files = sorted(files, key=_natural_key)
        self.frames, self.fps = len(files), float(fps)
        self.height, self.width = self._frame_size()

    def _frame_size(self) -> tuple[int, int]:
        """The common size of the frames; the headers of all files are checked to fail early."""
        first = read_image(self._files[0]).pixels.shape[:2]
        for file in self._files[1:]:
            with open_image(file) as image:
                # A frame may be stored rotated; `_frame` checks its size after rotation.
                if sorted(image.size) != sorted(first):
                    raise _size_mismatch(file, image.size[::-1], first)
        return first[0], first[1]

    def _frame(self, index: int) -> Picture:
        file = self._files[index]
        pixels = read_image(file).pixels
        if pixels.shape[:2] != (self.height, self.width):
            raise _size_mismatch(file, pixels.shape[:2], (self.height, self.width))
        return pixels


class _AnimationReader(_PictureReader):
    """Reads a GIF, WebP or PNG animation; any other picture is a clip of one frame."""

    def __init__(self, path: Path, fps: int | float) -> None:
        self._path = path
        self._files = contextlib.ExitStack()
        self._image = self._files.enter_context(open_image(path))
        try:
            durations = self._durations()
            self.height, self.width = self._frame(0).shape[:2]
        except InputError:
            self.close()
            raise
        self.frames = len(durations)
        self.fps = 1000 * len(durations) / sum(durations) if len(durations) > 1 else float(fps)

    def _durations(self) -> list[float]:
        """The duration in milliseconds of each frame up to the first that cannot be decoded."""
        durations: list[float] = []
        try:
            while self._is_animated() or not durations:
                self._image.seek(len(durations))
                self._image.load()
                durations.append(float(self._image.info.get("duration") or DEFAULT_DURATION))
        except Exception as error:  # end of the file, or broken data: decoders raise any exception
            if not durations:
                raise InputError(
                    f"{self._path}: none of its frames can be decoded ({error}); save it again"
                ) from error
        return durations

    def _is_animated(self) -> bool:
        return self._image.format in ANIMATED

    def _frame(self, index: int) -> Picture:
        if self._is_animated():
            self._image.seek(index)
        return to_rgb(self._image, str(self._path))

    def close(self) -> None:
        self._files.close()


def _is_picture(path: Path) -> bool:
    """Whether Pillow can read the file as a picture.

    The suffix is checked first, because a video may start with the same bytes as a JPEG.
    """
    if path.suffix.lower() not in PICTURE_SUFFIXES:
        return False
    try:
        with open_image(path):
            return True
    except InputError as error:
        # A file named "clip.gif" is often a video.
        return not isinstance(error.__cause__, UnidentifiedImageError)


def _is_frame(file: Path) -> bool:
    is_picture = file.suffix.lower() in PICTURE_SUFFIXES
    return is_picture and not file.name.startswith(".") and file.is_file()


def _natural_key(file: Path) -> tuple[list[int | str], str]:
    """A sort key that orders frame2 before frame10."""
    parts = re.split(r"([0-9]+)", file.name.lower())
    return [int(part) if part.isdigit() else part for part in parts], file.name


def _size_mismatch(file: Path, size: tuple[int, ...], first: tuple[int, ...]) -> InputError:
    return InputError(
        f"{file}: {size[1]} x {size[0]} pixels, but the first frame has {first[1]} x {first[0]}; "
        "give all frames the same size"
    )
