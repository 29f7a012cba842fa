"""Random access to the frames of a video file, decoded by decord if it is exact, else by PyAV.

PyAV determines the index of each frame once: frames are counted in presentation order. decord
counts the same way, but it finds a frame by seeking to a keyframe and counting from there. The
result is off by a few frames in two cases: a frame is presented before the keyframe that it follows
in the file (an open group of pictures: most HEVC, many broadcasts), or the container has no exact
timestamps (AVI, MPEG). Therefore decord reads only files for which this cannot happen. PyAV reads
all others by the timestamp of each frame. Both give the same pixels.
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
else:  # imported on use; the types are not checked at run time
    VideoFrame = InputContainer = VideoStream = Any

DisplayMatrix = tuple[int, int, int, int]
"""(a, b, c, d) of a display matrix: (x, y) is shown at (a x + c y, b x + d y), up to a shift."""

TIMESTAMPED_FORMATS = frozenset({"mov", "matroska", "flv"})
"""Containers with an exact timestamp for every frame; frames are found by timestamp."""

HIDDEN_FRAME_CODECS = frozenset({"vp8"})
"""Codecs in which some packets hold no visible frame; counting packets is not reliable."""

TEXT_FORMATS = frozenset({"tty"})
"""FFmpeg's formats of text files, which it would render as a video."""

ATTACHED_PICTURE = 0x400
"""FFmpeg's disposition flag of a stream that is an attached picture."""

SEEK_THRESHOLD = 16
"""The number of frames ahead that are reached by decoding forward instead of seeking."""

CACHE_BYTES = 16 * 2**20
"""The size of the cache of recently read frames; overlapping windows are decoded only once."""

MAX_DECORD_FRAMES = 2000
"""The largest number of frames in a file that decord reads.

The memory of decord grows with the frames read, by 100 MB over 10,000 small frames. The memory of
PyAV does not grow, and PyAV is about as fast."""

THREADS = min(4, os.cpu_count() or 1)


@dataclass(frozen=True, kw_only=True)
class FrameIndex:
    """The frames of a file in presentation order.

    `times` are their timestamps in the stream's time base, or None if frames can only be counted.
    `keyframes` are the indices of the frames at which decoding can start. `closed` is True if the
    codec is H.264 and no frame after a keyframe refers to a frame before it.
    """

    frames: int
    times: Int64[np.ndarray, " frames"] | None
    keyframes: tuple[int, ...]
    closed: bool = False


class VideoReader:
    """Reads a video file by random access in bounded memory, or all frames in order.

    `rate` is the frame rate, in frames per second, of a file that does not store one.

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
        self.fps = _frame_rate(self._decoder.stream, self._index) or float(rate)
        self.height, self.width = first.shape[:2]
        self._decord: Any = None
        is_short = self.frames <= MAX_DECORD_FRAMES
        self._use_decord = self._index.closed and self._decoder.upright and is_short
        self._cache: OrderedDict[int, Picture] = OrderedDict({0: first})

    def read(self, indices: Sequence[int]) -> UInt8[np.ndarray, "time height width 3"]:
        """The frames of these indices, in any order; ascending is fastest.

        Raises:
            InputError: a frame cannot be decoded.
        """
        frames = np.empty((len(indices), self.height, self.width, 3), np.uint8)
        rows: dict[int, list[int]] = {}
        for row, index in enumerate(indices):
            rows.setdefault(index, []).append(row)
        for index in sorted(rows):
            frames[rows[index]] = self._frame(index)
        return frames

    def __iter__(self) -> Iterator[Picture]:
        # A separate decoder, so that random access between two frames does not move its position.
        with contextlib.closing(Decoder(self.path, self._index)) as decoder:
            for index in range(self.frames):
                yield decoder.frame(index)

    def close(self) -> None:
        """Release the file and the cached frames."""
        self._decoder.close()
        self._decord = None
        self._cache.clear()

    def _frame(self, index: int) -> Picture:
        if index in self._cache:
            self._cache.move_to_end(index)
            return self._cache[index]
        frame = self._decord_frame(index)
        if frame is None:
            frame = self._decoder.frame(index)
        self._cache[index] = frame
        while len(self._cache) * frame.nbytes > CACHE_BYTES and len(self._cache) > 1:
            self._cache.popitem(last=False)
        return frame

    def _decord_frame(self, index: int) -> Picture | None:
        """The frame as decoded by decord; None if PyAV must decode it."""
        if not self._use_decord:
            return None
        try:
            if self._decord is None:  # opened on first use, because iterating does not need it
                self._decord = _open_decord(self.path, self.frames)
            frame = self._decord[index]
            # Other libraries switch decord's array type for the whole process (its "bridge").
            pixels = frame.asnumpy() if hasattr(frame, "asnumpy") else frame.numpy().copy()
            if pixels.shape == (self.height, self.width, 3):
                return np.asarray(pixels, np.uint8)
        except Exception:  # decord is not installed, or the file is damaged: PyAV handles damage
            pass
        self._decord, self._use_decord = None, False
        return None


class Decoder:
    """Decodes frames by index with PyAV: forward if possible, else from an earlier keyframe.

    Raises:
        InputError: the file cannot be read, or holds no video that can be decoded.
    """

    def __init__(self, path: str, index: FrameIndex) -> None:
        self.path = path
        self.index = index
        self.upright = True
        self._display: tuple[int, int, DisplayMatrix | None] | None = None
        self._frames: Iterator[VideoFrame]
        self._restart()

    def close(self) -> None:
        """Release the file."""
        self._resources.close()

    def frame(self, number: int) -> Picture:
        """Frame `number` as upright RGB.

        Raises:
            InputError: the frame cannot be decoded.
        """
        back = 0
        if not self._is_ahead(number):
            self._seek(number, back)
        while (frame := self._decode_to(number)) is None:
            # Frames after a keyframe may refer to frames before it: start from an earlier keyframe.
            if self._from_start:
                raise InputError(
                    f"{self.path}: frame {number} of {self.index.frames} cannot be decoded: "
                    f"the file is damaged; repair it: ffmpeg -i {self.path} repaired.mp4"
                )
            back = 2 * back + 1
            self._seek(number, back)
        return self._to_rgb(frame)

    def _is_ahead(self, number: int) -> bool:
        """Whether decoding forward reaches frame `number` at least as fast as seeking."""
        if self._next > number:
            return False
        if number - self._next <= SEEK_THRESHOLD:
            return True
        return self._keyframe(number) == self._keyframe(self._next)

    def _keyframe(self, number: int) -> int:
        """The position in `keyframes` of the last keyframe at or before frame `number`."""
        return bisect_right(self.index.keyframes, number) - 1

    def _decode_to(self, number: int) -> VideoFrame | None:
        """Decode forward to frame `number`; None if the stream does not contain it."""
        for frame in self._frames:
            current = self._number(frame)
            if current is None:
                continue
            self._next = current + 1
            if current >= number:
                return frame if current == number else None
        self._next = self.index.frames
        return None

    def _number(self, frame: VideoFrame) -> int | None:
        """The number of a decoded frame; None if its timestamp is not in the index."""
        if self.index.times is None:
            return self._next
        if frame.pts is None:
            return None
        number = int(np.searchsorted(self.index.times, frame.pts))
        if number < self.index.frames and self.index.times[number] == frame.pts:
            return number
        return None

    def _seek(self, number: int, back: int) -> None:
        """Seek to the keyframe `back` keyframes before that of frame `number`."""
        import av

        keyframe = self._keyframe(number) - back
        if keyframe > 0 and self.index.times is not None:
            start = self.index.keyframes[keyframe]
            try:
                self._container.seek(int(self.index.times[start]), stream=self.stream)
            except av.FFmpegError:
                pass
            else:
                self._frames = _decode(self._container, self.stream)
                self._next, self._from_start = start, False
                return
        self.close()
        self._restart()

    def _restart(self) -> None:
        """Open the file again, to decode from its start."""
        self._resources = contextlib.ExitStack()
        self._container, self.stream = self._resources.enter_context(_open_video(self.path))
        self._frames = _decode(self._container, self.stream)
        self._next, self._from_start = 0, True

    def _to_rgb(self, frame: VideoFrame) -> Picture:
        # A stream may change its frame size; all frames are scaled to the size of the first. The
        # display matrix is read once, because PyAV's side data keeps a frame alive until Python
        # collects cycles.
        if self._display is None:
            self._display = frame.width, frame.height, _display_matrix(frame)
            self.upright = self._display[2] is None
        width, height, matrix = self._display
        pixels = frame.to_ndarray(format="rgb24", width=width, height=height)
        return pixels if matrix is None else apply_display_matrix(pixels, matrix)


def apply_display_matrix(
    pixels: Picture, matrix: DisplayMatrix
) -> UInt8[np.ndarray, "shown_height shown_width 3"]:
    """Rotate and flip a stored picture for display; angles are rounded to quarter turns."""
    a, b, c, d = matrix
    if abs(b) > abs(a):
        pixels, a, d = pixels.swapaxes(0, 1), c, b
    return np.ascontiguousarray(pixels[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])


def _first_frame(path: str, index: FrameIndex | None) -> tuple[Decoder, Picture]:
    """A decoder and its first frame.

    `index` counts packets, and a stream that was cut out of a longer one may start with packets
    that cannot be decoded. Then, or if `index` is None, the index is built from decoded frames.
    """
    if index is not None:
        decoder = Decoder(path, index)
        try:
            return decoder, decoder.frame(0)
        except InputError:
            decoder.close()
    decoder = Decoder(path, _index_by_frames(path))
    return decoder, decoder.frame(0)


def _index_by_packets(path: str) -> FrameIndex | None:
    """The index built from packets without decoding; None if it would not be reliable."""
    import av

    with _open_video(path) as (container, stream):
        if not _has_timestamps(container) or stream.codec_context.name in HIDDEN_FRAME_CODECS:
            return None
        times: list[int] = []
        keyframes: list[int] = []
        closed = stream.codec_context.name == "h264"
        header = stream.codec_context.extradata or b""
        try:
            for packet in container.demux(stream):
                if not packet.size:
                    continue
                if packet.pts is None or packet.is_corrupt or packet.is_discard:
                    return None
                if packet.is_keyframe:
                    keyframes.append(len(times))
                    closed = closed and _is_idr(bytes(packet), header)
                times.append(packet.pts)
        except av.FFmpegError:
            return None
        if stream.frames not in (0, len(times)):
            return None
    return _sort_index(np.array(times, np.int64), keyframes, closed and keyframes[:1] == [0])


def _sort_index(
    times: Int64[np.ndarray, " packets"], keyframes: Sequence[int], closed: bool
) -> FrameIndex | None:
    """The index of packets in file order; `keyframes` are positions in that order.

    Returns None if there are no packets, or if two of them have the same timestamp.
    """
    ordered = np.sort(times)
    if not len(times) or (np.diff(ordered) <= 0).any():
        return None
    indices = sorted(int(index) for index in np.searchsorted(ordered, times[list(keyframes)]))
    return FrameIndex(frames=len(times), times=ordered, keyframes=tuple(indices), closed=closed)


def _index_by_frames(path: str) -> FrameIndex:
    """The index of any file, built by decoding it once."""
    times: list[int | None] = []
    keyframes: list[int] = []
    with _open_video(path) as (container, stream):
        has_timestamps = _has_timestamps(container)
        for frame in _decode(container, stream):
            if frame.key_frame:
                keyframes.append(len(times))
            times.append(frame.pts)
    if not times:
        raise InputError(
            f"{path}: no frame of the video can be decoded; copy or download the file again"
        )
    known_times = [time for time in times if time is not None]
    if has_timestamps and len(known_times) == len(times) and all(np.diff(known_times) > 0):
        ordered = np.array(known_times, np.int64)
        return FrameIndex(frames=len(times), times=ordered, keyframes=tuple(keyframes))
    return FrameIndex(frames=len(times), times=None, keyframes=())


@contextlib.contextmanager
def _open_video(path: str) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open a file and its first video stream.

    Raises:
        InputError: the file cannot be read, or holds no video that can be decoded.
    """
    import av

    try:
        # The whitelist keeps playlists from making FFmpeg access the network.
        container = av.open(path, options={"protocol_whitelist": "file"})
    except (av.FFmpegError, OSError, ValueError) as error:
        raise InputError(
            f"{path}: not a video that can be read ({getattr(error, 'strerror', None) or error}); "
            "convert it: ffmpeg -i INPUT clip.mp4"
        ) from error
    with container:
        streams = [] if container.format.name in TEXT_FORMATS else list(container.streams.video)
        streams = [stream for stream in streams if not _is_cover(stream)]
        if not streams:
            raise InputError(
                f"{path}: there is no video in this file; give a file with video frames"
            )
        stream = streams[0]
        if stream.codec_context is None:
            raise InputError(
                f"{path}: there is no decoder for its video; convert it: ffmpeg -i INPUT clip.mp4"
            )
        stream.thread_type = "AUTO"
        stream.codec_context.thread_count = THREADS
        yield container, stream


def _is_cover(stream: VideoStream) -> bool:
    """Whether the stream is an attached picture, such as the cover art of a song."""
    disposition = getattr(stream, "disposition", 0)
    return bool(getattr(disposition, "value", disposition) & ATTACHED_PICTURE)


def _has_timestamps(container: InputContainer) -> bool:
    return not TIMESTAMPED_FORMATS.isdisjoint(container.format.name.split(","))


def _decode(container: InputContainer, stream: VideoStream) -> Iterator[VideoFrame]:
    """Decode all frames from the current position to the end, skipping damaged packets."""
    import av

    try:
        for packet in container.demux(stream):
            if packet.is_corrupt:
                continue
            with contextlib.suppress(av.error.InvalidDataError):
                yield from stream.decode(packet)
    except av.FFmpegError:  # truncated or broken file: flush the frames left in the decoder
        with contextlib.suppress(av.FFmpegError):
            yield from stream.decode(None)


def _display_matrix(frame: VideoFrame) -> DisplayMatrix | None:
    """The display matrix (a, b, c, d) of the frame; None if the frame is stored upright."""
    side_data: Any = frame.side_data
    data = side_data.get("DISPLAYMATRIX")
    if data is None:
        return None
    a, b, _, c, d = (int(value) for value in np.frombuffer(bytes(data), np.int32)[:5])
    is_upright = a >= abs(b) and d >= abs(c)
    return None if is_upright else (a, b, c, d)


def _is_idr(data: bytes, header: bytes) -> bool:
    """Whether an H.264 packet is an IDR picture: no frame after it refers to a frame before it."""
    if header[:1] == b"\x01" and len(header) > 4:  # avcC: each NAL unit follows its length
        width = (header[4] & 3) + 1
        offset = 0
        while offset + width < len(data):
            nal_type = data[offset + width] & 31
            if 1 <= nal_type <= 5:
                return nal_type == 5
            offset += width + int.from_bytes(data[offset : offset + width], "big")
        return False
    units = data.split(b"\x00\x00\x01")[1:]
    nal_types = [unit[0] & 31 for unit in units if unit]
    return next((nal_type == 5 for nal_type in nal_types if 1 <= nal_type <= 5), False)


def _frame_rate(stream: VideoStream, index: FrameIndex) -> float:
    """The stored frame rate, or that of the timestamps if they disagree by 10%; 0 if unknown."""
    stored = float(stream.average_rate or stream.guessed_rate or 0)
    if index.times is None or index.frames < 2 or not stream.time_base:
        return stored
    seconds = float(index.times[-1] - index.times[0]) * float(stream.time_base)
    measured = (index.frames - 1) / seconds if seconds > 0 else stored
    return stored if abs(stored - measured) < 0.1 * measured else measured


def _open_decord(path: str, frames: int) -> Any:
    is_first_import = "decord" not in sys.modules
    import decord

    if is_first_import:  # silence its messages about damage; PyAV's are better
        decord.logging.set_level(decord.logging.QUIET)
    reader = decord.VideoReader(path, num_threads=THREADS)
    if len(reader) != frames:
        raise InputError(f"{path}: decord counts {len(reader)} frames, PyAV {frames}; use PyAV")
    return reader
