"""Frames of a video file by their number, decoded by decord where it can be trusted, else PyAV.

Which frame has which number is settled once, by PyAV: the frames in the order they are shown.
decord counts the same way but finds a frame by jumping to a key frame and counting on, which is
off by some frames wherever a picture is shown before the key frame that it follows in the file (an
open group of pictures: most HEVC, many broadcasts) or where the container has no true times (AVI,
MPEG). So it reads only files for which this cannot happen, and PyAV, by the time of each frame,
all others. Both give the same pixels.
"""

from __future__ import annotations

import contextlib
import os
import sys
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int64, UInt8

from mmcam.errors import InputError
from mmcam.media.images import Picture, check_file

if TYPE_CHECKING:
    from av import VideoFrame
    from av.container import InputContainer
    from av.video.stream import VideoStream
else:  # imported where they are used; what checks types at run time need not know them
    VideoFrame = InputContainer = VideoStream = Any

Matrix = tuple[int, int, int, int]
"""The (a, b, c, d) of a display matrix: (x, y) is shown at (a x + c y, b x + d y), shifted."""

TIMED = frozenset({"mov", "matroska", "flv"})
"""Containers that give every frame its true time, so that frames can be found by it."""

HIDDEN = frozenset({"vp8"})
"""Codecs with packets that show no frame, so that counting packets does not count frames."""

TEXT = frozenset({"tty"})
"""What FFmpeg would make a video of by drawing the file's text."""

ATTACHED_PICTURE = 0x400
NEAR = 16
"""Frames up to this far ahead are decoded on to rather than jumped to."""

KEPT_BYTES = 16 * 2**20
"""How much of what was read last is kept, so that windows that overlap are decoded once."""

DECORD_FRAMES = 2000
"""decord's memory grows with the stretch that was read, by 100 MB over 10,000 small frames; longer
files are left to PyAV, whose memory does not, at about the same speed."""

THREADS = min(4, os.cpu_count() or 1)


@dataclass(frozen=True, kw_only=True)
class Index:
    """Which frames a file holds, in the order they are shown.

    `times` are their times in the stream's own unit, or None where they can only be counted.
    `keys` are the numbers of the frames that decoding can start at. `closed` says that this is
    H.264 in which nothing after such a frame looks back past it.
    """

    frames: int
    times: Int64[np.ndarray, " frames"] | None
    keys: tuple[int, ...]
    closed: bool = False


class Video:
    """A video file: random access, in bounded memory, and all frames in order.

    `rate` is the number of frames per second of a file that does not tell it.

    Raises:
        InputError: the file is missing, broken, or holds no frame of video.
    """

    def __init__(self, path: str, rate: int | float) -> None:
        check_file(path)
        self.path = path
        index = _index_by_packets(path)
        self._decoder, first = _first_frame(path, index)
        self._index = self._decoder.index
        self.frames = self._index.frames
        self.fps = _rate(self._decoder.stream, self._index) or float(rate)
        self.height, self.width = first.shape[:2]
        self._decord: Any = None
        short = self.frames <= DECORD_FRAMES
        self._trusts_decord = self._index.closed and self._decoder.upright and short
        self._kept: OrderedDict[int, Picture] = OrderedDict({0: first})

    def read(self, indices: Sequence[int]) -> UInt8[np.ndarray, "time height width 3"]:
        """The frames of these numbers, in any order; ascending is fastest."""
        clip = np.empty((len(indices), self.height, self.width, 3), np.uint8)
        where: dict[int, list[int]] = {}
        for row, number in enumerate(indices):
            where.setdefault(number, []).append(row)
        for number in sorted(where):
            clip[where[number]] = self._frame(number)
        return clip

    def __iter__(self) -> Iterator[Picture]:
        # A decoder of its own, so that reading meanwhile does not throw it back.
        with contextlib.closing(Decoder(self.path, self._index)) as decoder:
            for number in range(self.frames):
                yield decoder.frame(number)

    def close(self) -> None:
        """Release the file and what was kept of it."""
        self._decoder.close()
        self._decord = None
        self._kept.clear()

    def _frame(self, number: int) -> Picture:
        if number in self._kept:
            self._kept.move_to_end(number)
            return self._kept[number]
        frame = self._by_decord(number)
        if frame is None:
            frame = self._decoder.frame(number)
        self._kept[number] = frame
        while len(self._kept) * frame.nbytes > KEPT_BYTES and len(self._kept) > 1:
            self._kept.popitem(last=False)
        return frame

    def _by_decord(self, number: int) -> Picture | None:
        if not self._trusts_decord:
            return None
        try:
            if self._decord is None:  # opened late, for iterating does not need it
                self._decord = _open_decord(self.path, self.frames)
            frame = self._decord[number]
            # Other libraries switch decord's arrays to their own kind for the whole process.
            pixels = frame.asnumpy() if hasattr(frame, "asnumpy") else frame.numpy().copy()
            if pixels.shape == (self.height, self.width, 3):
                return np.asarray(pixels, np.uint8)
        except Exception:  # not installed, or damage in the file, which PyAV tells or gets past
            pass
        self._decord, self._trusts_decord = None, False
        return None


class Decoder:
    """Frames of the file by their number, decoded onwards and reopened only to go back."""

    def __init__(self, path: str, index: Index) -> None:
        self.path = path
        self.index = index
        self.upright = True
        self._shown: tuple[int, int, Matrix | None] | None = None
        self._decoded: Iterator[VideoFrame]
        self._restart()

    def close(self) -> None:
        """Release the file."""
        self._open.close()

    def frame(self, number: int) -> Picture:
        """Frame `number` as upright RGB.

        Raises:
            InputError: the file is damaged there.
        """
        back = 0
        if not self._leads_to(number):
            self._jump(number, back)
        while (frame := self._advance(number)) is None:
            # Frames after a key frame may need what lies before it: start further ahead of it.
            if self._from_start:
                raise InputError(
                    f"{self.path}: frame {number} of {self.index.frames} cannot be decoded, the "
                    f"file is damaged; repair it: ffmpeg -i {self.path} repaired.mp4"
                )
            back = 2 * back + 1
            self._jump(number, back)
        return self._rgb(frame)

    def _leads_to(self, number: int) -> bool:
        if self._next > number:
            return False
        return number - self._next <= NEAR or self._key(number) == self._key(self._next)

    def _key(self, number: int) -> int:
        """Which of the key frames `number` is decoded from."""
        return bisect_right(self.index.keys, number) - 1

    def _advance(self, number: int) -> VideoFrame | None:
        """Decode on to `number`; None if it does not come."""
        for frame in self._decoded:
            at = self._number(frame)
            if at is None:
                continue
            self._next = at + 1
            if at >= number:
                return frame if at == number else None
        self._next = self.index.frames
        return None

    def _number(self, frame: VideoFrame) -> int | None:
        if self.index.times is None:
            return self._next
        if frame.pts is None:
            return None
        at = int(np.searchsorted(self.index.times, frame.pts))
        return at if at < self.index.frames and self.index.times[at] == frame.pts else None

    def _jump(self, number: int, back: int) -> None:
        import av

        key = self._key(number) - back
        if key > 0 and self.index.times is not None:
            start = self.index.keys[key]
            try:
                self._container.seek(int(self.index.times[start]), stream=self.stream)
            except av.FFmpegError:
                pass
            else:
                self._decoded = _decoded(self._container, self.stream)
                self._next, self._from_start = start, False
                return
        self.close()
        self._restart()

    def _restart(self) -> None:
        self._open = contextlib.ExitStack()
        self._container, self.stream = self._open.enter_context(_opened(self.path))
        self._decoded = _decoded(self._container, self.stream)
        self._next, self._from_start = 0, True

    def _rgb(self, frame: VideoFrame) -> Picture:
        # A stream may change its size on the way; its frames are shown at the first one's. Its
        # matrix is read once: PyAV's side data keeps a frame alive until Python collects cycles.
        if self._shown is None:
            self._shown = frame.width, frame.height, _display_matrix(frame)
            self.upright = self._shown[2] is None
        width, height, matrix = self._shown
        pixels = frame.to_ndarray(format="rgb24", width=width, height=height)
        return pixels if matrix is None else turned(pixels, matrix)


def turned(pixels: Picture, matrix: Matrix) -> UInt8[np.ndarray, "shown_height shown_width 3"]:
    """A stored picture as it is to be shown; angles between go to the nearest quarter turn."""
    a, b, c, d = matrix
    if abs(b) > abs(a):
        pixels, a, d = pixels.swapaxes(0, 1), c, b
    return np.ascontiguousarray(pixels[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])


def _first_frame(path: str, index: Index | None) -> tuple[Decoder, Picture]:
    """A decoder and its first frame, which tells whether counting packets was right.

    A stream that was cut out of a longer one may start with packets that cannot be decoded.
    """
    if index is not None:
        decoder = Decoder(path, index)
        try:
            return decoder, decoder.frame(0)
        except InputError:
            decoder.close()
    decoder = Decoder(path, _index_by_frames(path))
    return decoder, decoder.frame(0)


def _index_by_packets(path: str) -> Index | None:
    """The index of a sound file, found without decoding; None where that cannot be trusted."""
    import av

    with _opened(path) as (container, stream):
        if not _timed(container) or stream.codec_context.name in HIDDEN:
            return None
        times: list[int] = []
        keys: list[int] = []
        closed = stream.codec_context.name == "h264"
        header = stream.codec_context.extradata or b""
        try:
            for packet in container.demux(stream):
                if not packet.size:
                    continue
                if packet.pts is None or packet.is_corrupt or packet.is_discard:
                    return None
                if packet.is_keyframe:
                    keys.append(len(times))
                    closed = closed and _is_idr(bytes(packet), header)
                times.append(packet.pts)
        except av.FFmpegError:
            return None
        if stream.frames not in (0, len(times)):
            return None
    return _index(np.array(times, np.int64), keys, closed and keys[:1] == [0])


def _index(times: Int64[np.ndarray, " packets"], keys: Sequence[int], closed: bool) -> Index | None:
    """The index of packets in the order of the file; `keys` are places in that order."""
    shown = np.sort(times)
    if not len(times) or (np.diff(shown) <= 0).any():
        return None
    numbers = sorted(int(number) for number in np.searchsorted(shown, times[list(keys)]))
    return Index(frames=len(times), times=shown, keys=tuple(numbers), closed=closed)


def _index_by_frames(path: str) -> Index:
    """The index of any file, found by decoding it once."""
    times: list[int | None] = []
    keys: list[int] = []
    with _opened(path) as (container, stream):
        timed = _timed(container)
        for frame in _decoded(container, stream):
            if frame.key_frame:
                keys.append(len(times))
            times.append(frame.pts)
    if not times:
        raise InputError(
            f"{path}: no frame of its video can be decoded; copy or download the file again"
        )
    known = [time for time in times if time is not None]
    if timed and len(known) == len(times) and all(np.diff(known) > 0):
        return Index(frames=len(times), times=np.array(known, np.int64), keys=tuple(keys))
    return Index(frames=len(times), times=None, keys=())


@contextlib.contextmanager
def _opened(path: str) -> Iterator[tuple[InputContainer, VideoStream]]:
    import av

    try:
        # Playlists must not make FFmpeg fetch something from the net.
        container = av.open(path, options={"protocol_whitelist": "file"})
    except (av.FFmpegError, OSError, ValueError) as error:
        raise InputError(
            f"{path}: not a video that can be read ({getattr(error, 'strerror', None) or error}); "
            "convert it: ffmpeg -i INPUT clip.mp4"
        ) from error
    with container:
        streams = [] if container.format.name in TEXT else list(container.streams.video)
        streams = [stream for stream in streams if not _is_cover(stream)]
        if not streams:
            raise InputError(f"{path}: there is no video in this file; give one that has frames")
        stream = streams[0]
        if stream.codec_context is None:
            raise InputError(
                f"{path}: there is no decoder for its video; convert it: ffmpeg -i INPUT clip.mp4"
            )
        stream.thread_type = "AUTO"
        stream.codec_context.thread_count = THREADS
        yield container, stream


def _is_cover(stream: VideoStream) -> bool:
    disposition = getattr(stream, "disposition", 0)
    return bool(getattr(disposition, "value", disposition) & ATTACHED_PICTURE)


def _timed(container: InputContainer) -> bool:
    return not TIMED.isdisjoint(container.format.name.split(","))


def _decoded(container: InputContainer, stream: VideoStream) -> Iterator[VideoFrame]:
    """All frames from here on that can be decoded; what is damaged is left out."""
    import av

    try:
        for packet in container.demux(stream):
            if packet.is_corrupt:
                continue
            with contextlib.suppress(av.error.InvalidDataError):
                yield from stream.decode(packet)
    except av.FFmpegError:  # the file ends or breaks here: what is still in the decoder is good
        with contextlib.suppress(av.FFmpegError):
            yield from stream.decode(None)


def _display_matrix(frame: VideoFrame) -> Matrix | None:
    """How the stored frame lies on the screen, (a, b, c, d); None if it is upright."""
    side_data: Any = frame.side_data
    data = side_data.get("DISPLAYMATRIX")
    if data is None:
        return None
    a, b, _, c, d = (int(value) for value in np.frombuffer(bytes(data), np.int32)[:5])
    shown_as_stored = a >= abs(b) and d >= abs(c)
    return None if shown_as_stored else (a, b, c, d)


def _is_idr(data: bytes, header: bytes) -> bool:
    """Whether an H.264 packet's picture is an IDR: nothing after it looks at what came before."""
    if header[:1] == b"\x01" and len(header) > 4:  # avcC: units behind their length
        width = (header[4] & 3) + 1
        at = 0
        while at + width < len(data):
            kind = data[at + width] & 31
            if 1 <= kind <= 5:
                return kind == 5
            at += width + int.from_bytes(data[at : at + width], "big")
        return False
    units = data.split(b"\x00\x00\x01")[1:]
    kinds = [unit[0] & 31 for unit in units if unit]
    return next((kind == 5 for kind in kinds if 1 <= kind <= 5), False)


def _rate(stream: VideoStream, index: Index) -> float:
    """Frames per second: what the stream tells unless its frames' times belie it; 0: unknown."""
    told = float(stream.average_rate or stream.guessed_rate or 0)
    if index.times is None or index.frames < 2 or not stream.time_base:
        return told
    seconds = float(index.times[-1] - index.times[0]) * float(stream.time_base)
    measured = (index.frames - 1) / seconds if seconds > 0 else told
    return told if abs(told - measured) < 0.1 * measured else measured


def _open_decord(path: str, frames: int) -> Any:
    quiet = "decord" not in sys.modules
    import decord

    if quiet:  # or it prints what PyAV will report better
        decord.logging.set_level(decord.logging.QUIET)
    reader = decord.VideoReader(path, num_threads=THREADS)
    if len(reader) != frames:
        raise InputError(f"{path}: decord counts {len(reader)} frames, PyAV {frames}; use PyAV")
    return reader
