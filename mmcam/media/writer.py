"""Writing clips: H.264 in MP4, playable in a browser, written atomically."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from mmcam.errors import OutputError
from mmcam.media.images import Picture, check_picture, temporary_path, write_error

if TYPE_CHECKING:
    from av import VideoCodecContext
    from av.container import OutputContainer
else:  # imported on use; the types are not checked at run time
    VideoCodecContext = OutputContainer = Any

NTSC = (24, 30, 48, 60, 120)
"""Rates n whose NTSC variant is n * 1000 / 1001, commonly written 23.976, 29.97, ..."""

ENCODERS: dict[str, dict[str, str]] = {
    "libx264": {"crf": "18", "preset": "fast"},
    "libopenh264": {},
    "h264_videotoolbox": {},
    "h264_mf": {},
    "h264_nvenc": {},
    "h264_qsv": {},
    "h264_amf": {},
}
"""H.264 encoders and their options, in order of preference."""

SOFTWARE = frozenset({"libx264", "libopenh264"})
"""Encoders that need no hardware; if one of them fails, the cause is the clip's size or rate."""

BT709 = 1
LIMITED_RANGE = 1
BITS_PER_PIXEL = 0.25
"""The bits per pixel of each frame, for encoders without options in `ENCODERS`."""


class ClipWriter:
    """Writes frames as an H.264 MP4 that browsers play.

    The file appears at `path` when the `with` block ends without an error; otherwise no file is
    written, and an existing file is unchanged. H.264 needs even sizes: an odd size is padded by
    repeating the last row or column. `fps` is converted to an exact fraction (`exact_rate`).

        with ClipWriter("out.mp4", fps=25, height=240, width=320) as writer:
            for frame in frames:
                writer.write(frame)

    Raises:
        OutputError: the size or rate is invalid or supported by no encoder, there is no H.264
            encoder, no frame was written, or the file cannot be written.
    """

    def __init__(
        self, path: str | Path, fps: int | float | Fraction, height: int, width: int
    ) -> None:
        self.path = Path(path)
        self.rate = exact_rate(fps)
        self.height, self.width = height, width
        if min(height, width) < 1:
            raise OutputError(
                f"{path}: {width} x {height} pixels is not a frame size; give a size above 0"
            )
        self._frames = 0

    def __enter__(self) -> ClipWriter:
        import av

        size = (self.height + self.height % 2, self.width + self.width % 2)
        encoder = _encoder(self.path, *size, self.rate)
        self._temporary = temporary_path(self.path)
        with self._write_errors(), contextlib.ExitStack() as cleanup:
            cleanup.callback(self._discard)
            self._container: OutputContainer = av.open(
                str(self._temporary), "w", format="mp4", options={"movflags": "+faststart"}
            )
            stream = self._container.add_stream(encoder, rate=self.rate, options=ENCODERS[encoder])
            assert isinstance(stream, av.VideoStream)
            self._stream = stream
            _configure(self._stream.codec_context, encoder, *size, self.rate)
            self._container.start_encoding()  # fails now if the folder does not exist
            cleanup.pop_all()
        return self

    def write(self, frame: Picture) -> None:
        """Add one frame, `uint8 [h w 3]`, of the clip's size.

        Raises:
            OutputError: the frame has another size or dtype, or the file cannot be written.
        """
        import av

        check_picture(self.path, frame)
        if frame.shape[:2] != (self.height, self.width):
            raise OutputError(
                f"{self.path}: a frame of {frame.shape[1]} x {frame.shape[0]} pixels does not fit "
                f"a clip of {self.width} x {self.height}; write frames of one size"
            )
        padded = np.pad(frame, ((0, self.height % 2), (0, self.width % 2), (0, 0)), mode="edge")
        video_frame = av.VideoFrame.from_ndarray(padded, format="rgb24").reformat(
            format="yuv420p", dst_colorspace=BT709, dst_color_range=LIMITED_RANGE
        )
        video_frame.pts = self._frames
        video_frame.time_base = 1 / self.rate
        with self._write_errors():
            self._container.mux(self._stream.encode(video_frame))
        self._frames += 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            self._discard()

    def _finish(self) -> None:
        if not self._frames:
            raise OutputError(f"{self.path}: no frame was written to this clip; write one or more")
        with self._write_errors():
            self._container.mux(self._stream.encode(None))
            self._container.close()
            os.replace(self._temporary, self.path)

    def _discard(self) -> None:
        """Close and remove the temporary file; after success it has already been renamed."""
        # The container may not be open; if closing fails, an earlier error is being raised already.
        with contextlib.suppress(Exception):
            self._container.close()
        with contextlib.suppress(OSError):
            self._temporary.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _write_errors(self) -> Iterator[None]:
        """Convert errors of PyAV and the operating system to `OutputError`."""
        import av

        try:
            yield
        except (av.FFmpegError, OSError) as error:
            raise write_error(self.path, error) from error


def exact_rate(fps: int | float | Fraction) -> Fraction:
    """Frames per second as an exact fraction.

    A rate less than 0.005 from an NTSC variant (see `NTSC`) becomes that variant: 29.97 is
    30000/1001. Other rates are rounded to a denominator of at most 1001; the lowest is 1/1001.

    Raises:
        OutputError: the rate is not a finite number above 0.
    """
    if not (math.isfinite(fps) and fps > 0):
        raise OutputError(
            f"fps {fps}: not a frame rate; give frames per second above 0, such as 25"
        )
    for nominal in NTSC:
        if abs(fps - nominal * 1000 / 1001) < 0.005:
            return Fraction(nominal * 1000, 1001)
    return max(Fraction(fps).limit_denominator(1001), Fraction(1, 1001))


def _encoder(path: Path, height: int, width: int, rate: Fraction) -> str:
    """The first H.264 encoder that opens for this size and rate; some may lack their hardware.

    Raises:
        OutputError: none opens.
    """
    import av

    failures = []
    for name, options in ENCODERS.items():
        if name not in av.codecs_available:
            continue
        try:
            context = av.CodecContext.create(name, "w")
            assert isinstance(context, av.VideoCodecContext)
            context.options = options
            _configure(context, name, height, width, rate)
            context.open()
            return name
        except (av.FFmpegError, ValueError, OverflowError) as error:
            failures.append(f"{name}: {getattr(error, 'strerror', None) or error}")
    if SOFTWARE.isdisjoint(av.codecs_available):
        raise OutputError(
            f"{path}: PyAV has no H.264 encoder here that opens "
            f"({'; '.join(failures) or 'it has none at all'}); its own wheels include libx264: "
            "pip install --force-reinstall --only-binary av av"
        )
    raise OutputError(
        f"{path}: no H.264 encoder supports {width} x {height} pixels at {float(rate):g} fps "
        f"({'; '.join(failures)}); write a smaller clip, or use another rate"
    )


def _configure(
    context: VideoCodecContext, encoder: str, height: int, width: int, rate: Fraction
) -> None:
    context.height, context.width, context.pix_fmt = height, width, "yuv420p"
    context.framerate, context.time_base = rate, 1 / rate
    # Without a stored colour space, players guess it from the frame size.
    context.colorspace = context.color_primaries = context.color_trc = BT709
    context.color_range = LIMITED_RANGE
    if not ENCODERS[encoder]:
        context.bit_rate = int(BITS_PER_PIXEL * height * width * rate)
