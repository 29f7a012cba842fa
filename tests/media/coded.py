"""Frames that show their number, and videos of them in many formats."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from mmcam.media import Clip

HEIGHT, WIDTH, FRAMES = 64, 96, 50
BLOCK = 32

VIDEOS = {
    "closed.mp4": ("libx264", {"bf": "3", "g": "12", "x264-params": "open-gop=0"}),
    "closed.mkv": ("libx264", {"bf": "3", "g": "12", "x264-params": "open-gop=0"}),
    "open.mp4": ("libx264", {"x264-params": "open-gop=1:keyint=12:bframes=3:scenecut=0"}),
    "open.mkv": ("libx264", {"x264-params": "open-gop=1:keyint=12:bframes=3:scenecut=0"}),
    "refresh.mp4": ("libx264", {"x264-params": "intra-refresh=1:keyint=12"}),
    "broadcast.ts": ("libx264", {"bf": "3", "g": "12"}),
    "raw.h264": ("libx264", {"bf": "3", "g": "12"}),
    "untimed.avi": ("libx264", {"bf": "3", "g": "12"}),
    "phone.mp4": ("libx265", {"x265-params": "keyint=12:bframes=4:log-level=none"}),
    "old.avi": ("mpeg4", {"bf": "2", "g": "12"}),
    "old.mpg": ("mpeg2video", {"bf": "2", "g": "12"}),
    "web.webm": ("libvpx-vp9", {"g": "12", "deadline": "realtime", "cpu-used": "8"}),
    "stills.mov": ("mjpeg", {}),
}
"""The formats of cameras, web sites and data sets: keyframes, frame orders and timestamps vary."""


def numbered_frame(number: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """A frame that shows its number in binary, in six blocks that survive compression."""
    frame = np.full((height, width, 3), 60, np.uint8)
    for bit in range(6):
        row, column = divmod(bit, 3)
        y, x = row * BLOCK, column * BLOCK
        frame[y : y + BLOCK, x : x + BLOCK] = 230 if number >> bit & 1 else 20
    return frame


def number_of(frame: np.ndarray) -> int:
    centres = frame[BLOCK // 2 :: BLOCK, BLOCK // 2 :: BLOCK].mean(-1)[:2, :3] > 125
    return sum(1 << bit for bit, lit in enumerate(centres.flatten()) if lit)


def numbers(frames: np.ndarray | Clip) -> list[int]:
    return [number_of(frame) for frame in frames]


def encode(
    path: Path,
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    frames: int = FRAMES,
    muxer: dict[str, str] | None = None,
) -> Path:
    if codec not in av.codecs_available:
        pytest.skip(f"PyAV has no {codec} here")
    with av.open(str(path), "w", options=muxer or {}) as container:
        stream = container.add_stream(codec, rate=30, options=options or {})
        stream.width, stream.height = WIDTH, HEIGHT
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(numbered_frame(number), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 30)
            container.mux(stream.encode(frame.reformat(format=stream.pix_fmt)))
        container.mux(stream.encode(None))
    return path


def video_file(videos: Path, name: str) -> Path:
    path = videos / name
    return path if path.exists() else encode(path, *VIDEOS[name])
