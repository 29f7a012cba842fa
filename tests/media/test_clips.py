from __future__ import annotations

import json
import os
import random
import struct
import subprocess
import sys
from pathlib import Path

import av
import jaxtyping
import numpy as np
import pytest

from mmcam.errors import InputError
from mmcam.media import open_clip, video
from tests.media.coded import (
    FRAMES,
    HEIGHT,
    VIDEOS,
    WIDTH,
    encode,
    number_of,
    numbered_frame,
    numbers,
    video_file,
)

TRUSTED = {"closed.mp4", "closed.mkv"}
"""The videos in which decord finds every frame."""


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Switch off the run-time checks of shapes and types, as for a user."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which each video is encoded on first use."""
    return tmp_path_factory.mktemp("videos")


@pytest.fixture(params=["decord", "pyav"])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "pyav":
        monkeypatch.setitem(sys.modules, "decord", None)  # importing it raises
    else:
        pytest.importorskip("decord", reason="decord is not installed", exc_type=ImportError)
    return str(request.param)


# Videos.


@pytest.mark.parametrize("name", VIDEOS)
def test_every_frame_is_found(videos: Path, name: str, backend: str) -> None:
    with open_clip(video_file(videos, name)) as clip:
        assert (clip.frames, clip.height, clip.width) == (FRAMES, HEIGHT, WIDTH)
        assert clip.fps == (25 if name == "raw.h264" else 30)
        order = random.Random(0).sample(range(FRAMES), FRAMES)
        for start in range(0, FRAMES, 5):
            clip._reader._cache.clear()  # type: ignore[union-attr]
            indices = order[start : start + 5]
            assert numbers(clip.read(indices)) == indices
        assert numbers(clip) == list(range(FRAMES))


@pytest.mark.parametrize("name", VIDEOS)
def test_decord_reads_only_what_it_reads_right(
    videos: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("decord", reason="decord is not installed")
    opened = []
    monkeypatch.setattr(video, "_open_decord", lambda path, frames: opened.append(path))
    with open_clip(video_file(videos, name)) as clip:
        assert numbers(clip.read([FRAMES - 1])) == [FRAMES - 1]  # PyAV steps in
    assert bool(opened) == (name in TRUSTED)


def test_both_backends_give_the_same_pixels(videos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("decord", reason="decord is not installed")
    path = video_file(videos, "closed.mp4")
    indices = [0, 1, 13, 30, FRAMES - 2, FRAMES - 1]
    with open_clip(path) as clip:
        by_decord = clip.read(indices)
    monkeypatch.setitem(sys.modules, "decord", None)
    with open_clip(path) as clip:
        np.testing.assert_allclose(clip.read(indices).astype(int), by_decord, atol=2)


def test_decord_in_another_bridge(videos: Path) -> None:
    """Other libraries, such as pytorchvideo, make decord return torch tensors."""
    decord = pytest.importorskip("decord", reason="decord is not installed")
    decord.bridge.set_bridge("torch")
    try:
        with open_clip(video_file(videos, "closed.mp4")) as clip:
            assert numbers(clip.read([20, 7])) == [20, 7]
            assert clip._reader._decord is not None  # type: ignore[union-attr]
    finally:
        decord.bridge.set_bridge("native")


def test_any_order_repeats_and_none(videos: Path, backend: str) -> None:
    with open_clip(video_file(videos, "closed.mp4")) as clip:
        assert numbers(clip.read([5, 40, 5, 0])) == [5, 40, 5, 0]
        assert numbers(clip.read(np.arange(3))) == [0, 1, 2]
        assert clip.read([]).shape == (0, HEIGHT, WIDTH, 3)
        assert clip.read([1]).dtype == np.uint8


def test_reading_and_iterating_do_not_disturb_each_other(videos: Path, backend: str) -> None:
    with open_clip(video_file(videos, "open.mp4")) as clip:
        for number, frame in enumerate(clip):
            assert number_of(frame) == number
            assert numbers(clip.read([FRAMES - 1 - number])) == [FRAMES - 1 - number]


def test_onwards_is_not_reopened(videos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "decord", None)
    with open_clip(video_file(videos, "old.avi")) as clip:
        restarts = []
        monkeypatch.setattr(video.Decoder, "_restart", lambda self: restarts.append(1))
        for start in range(0, FRAMES - 8, 4):  # windows that overlap
            assert numbers(clip.read(range(start, start + 8))) == list(range(start, start + 8))
        assert not restarts


def test_a_clip_of_one_frame(tmp_path: Path, backend: str) -> None:
    with open_clip(encode(tmp_path / "one.mp4", frames=1)) as clip:
        assert clip.frames == 1
        assert clip.fps > 0
        assert clip.read([0, 0]).shape == (2, HEIGHT, WIDTH, 3)
        assert numbers(clip) == [0]


FIXED = 1 << 16
SHOWN = {
    (1, 0, 0, 1): lambda stored: stored,
    (0, 1, -1, 0): lambda stored: np.rot90(stored, -1),
    (-1, 0, 0, -1): lambda stored: np.rot90(stored, 2),
    (0, -1, 1, 0): lambda stored: np.rot90(stored, 1),
    (-1, 0, 0, 1): np.fliplr,
    (1, 0, 0, -1): np.flipud,
    (0, 1, 1, 0): lambda stored: stored.swapaxes(0, 1),
    (0, 0, 0, 0): lambda stored: stored,  # meaningless, but some files contain it
}


@pytest.mark.parametrize("matrix", SHOWN)
def test_a_turned_phone_clip_is_upright(
    videos: Path, tmp_path: Path, matrix: tuple[int, int, int, int], backend: str
) -> None:
    """The track header of an MP4 holds the display matrix: (x, y) goes to (ax + cy, bx + dy)."""
    data = bytearray(video_file(videos, "closed.mp4").read_bytes())
    a, b, c, d = (FIXED * value for value in matrix)
    upright = struct.pack(">9i", FIXED, 0, 0, 0, FIXED, 0, 0, 0, 1 << 30)
    at = data.index(upright, data.index(b"tkhd"))
    data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path = tmp_path / "turned.mp4"
    path.write_bytes(data)
    with open_clip(path) as clip:
        expected = SHOWN[matrix](numbered_frame(37)).shape
        assert (clip.height, clip.width, 3) == expected
        for frame in (clip.read([37])[0], list(clip)[37]):
            np.testing.assert_allclose(
                frame.astype(int), SHOWN[matrix](numbered_frame(37)), atol=40
            )


@pytest.mark.parametrize("name", ["cut.mp4", "cut.mkv", "cut.ts"])
def test_a_file_cut_short_has_the_frames_that_are_left(
    tmp_path: Path, name: str, backend: str
) -> None:
    muxer = {"movflags": "faststart"} if name.endswith("mp4") else {}
    path = encode(tmp_path / name, "libx264", {"bf": "2", "g": "12"}, muxer=muxer)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 7 // 10])
    with open_clip(path) as clip:
        assert 10 < clip.frames < FRAMES
        left = list(range(clip.frames))
        assert numbers(clip)[:-1] == left[:-1]  # the last frame may be incomplete
        assert numbers(clip.read(left))[:-1] == left[:-1]
        assert numbers(clip) == numbers(clip.read(left))


@pytest.mark.parametrize("name", ["excerpt.mkv", "excerpt.mp4"])
def test_an_excerpt_starts_where_it_can_be_decoded(
    videos: Path, tmp_path: Path, name: str, backend: str
) -> None:
    """Cut without re-encoding: frames shown before its first keyframe refer to missing frames."""
    path = tmp_path / name
    with av.open(str(video_file(videos, "open.mkv"))) as source, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        packets = [packet for packet in source.demux(video=0) if packet.size]
        second_key = [at for at, packet in enumerate(packets) if packet.is_keyframe][1]
        for packet in packets[second_key:]:
            packet.stream = stream
            target.mux(packet)
    with open_clip(path) as clip:
        read = numbers(clip)
        assert read == list(range(FRAMES - clip.frames, FRAMES))
        assert 30 < clip.frames < FRAMES
        assert numbers(clip.read(range(clip.frames))) == read


def test_damage_in_the_middle_is_told_where_it_is(
    videos: Path, tmp_path: Path, backend: str
) -> None:
    source = video_file(videos, "closed.mp4")
    with av.open(str(source)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    packets = sorted(packets, key=lambda packet: packet.pts)
    data = bytearray(source.read_bytes())
    lost = 30
    data[packets[lost].pos : packets[lost].pos + packets[lost].size] = bytes(packets[lost].size)
    path = tmp_path / "damaged.mp4"
    path.write_bytes(data)
    with open_clip(path) as clip:
        with pytest.raises(InputError, match=f"frame {lost} of {FRAMES} cannot be decoded.*ffmpeg"):
            clip.read([lost])
        assert numbers(clip.read([3, FRAMES - 1])) == [3, FRAMES - 1]
        with pytest.raises(InputError, match=f"frame {lost} "):
            list(clip)


@pytest.fixture(scope="module")
def fresh_process(videos: Path) -> dict[str, int]:
    """Imports and memory of a process that only iterates a clip of 200 frames of 0.9 MB."""
    path = videos / "long.mp4"
    still = np.random.default_rng(0).integers(0, 255, (480, 640, 3), dtype=np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 640, 480, "yuv420p"
        for _ in range(200):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(still, format="rgb24")))
        container.mux(stream.encode(None))
    code = f"""
import json, resource, sys
from mmcam.media import open_clip
imported = len({{"av", "decord"}} & set(sys.modules))
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with open_clip({str(path)!r}) as clip:
    for number, frame in enumerate(clip):
        if number == 30:
            early = peak()
print(json.dumps({{"imported": imported, "grown": peak() - early, "frames": number + 1}}))
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return dict(json.loads(run.stdout))


def test_memory_does_not_grow_with_length(fresh_process: dict[str, int]) -> None:
    assert fresh_process["frames"] == 200
    kilobytes = fresh_process["grown"] / (1024 if sys.platform == "darwin" else 1)
    assert kilobytes < 20 * 900  # a few of the 170 frames that came after


def test_importing_imports_no_video_library(fresh_process: dict[str, int]) -> None:
    assert fresh_process["imported"] == 0


# Files without video.


def test_a_missing_file(tmp_path: Path) -> None:
    for name in ("nowhere.mp4", "nowhere.gif"):
        with pytest.raises(InputError, match=f"{name}: there is no such file"):
            open_clip(tmp_path / name)


def test_an_empty_file(tmp_path: Path) -> None:
    for name in ("a.mp4", "a.gif"):
        (tmp_path / name).touch()
        with pytest.raises(InputError, match="is empty"):
            open_clip(tmp_path / name)


def test_no_video_at_all(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"not a video at all" * 100)
    with pytest.raises(InputError, match=r"not a video that can be read.*ffmpeg"):
        open_clip(tmp_path / "a.mp4")


def test_text_is_not_drawn_as_video(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("FFmpeg would draw this. " * 100)
    with pytest.raises(InputError):
        open_clip(tmp_path / "a.txt")


def test_sound_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), "s16", "mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
    with pytest.raises(InputError, match="there is no video in this file"):
        open_clip(path)


def test_no_frames(videos: Path, tmp_path: Path) -> None:
    """A complete header without any frame after it."""
    data = video_file(videos, "closed.mkv").read_bytes()
    path = tmp_path / "a.mkv"
    path.write_bytes(data[: data.index(b"\x1f\x43\xb6\x75")])  # the first cluster of frames
    with pytest.raises(InputError):
        open_clip(path)


@pytest.mark.parametrize("index", [-1, FRAMES])
def test_a_frame_that_is_not_there(videos: Path, index: int) -> None:
    with (
        open_clip(video_file(videos, "closed.mp4")) as clip,
        pytest.raises(InputError, match=f"no frame {index}; its frames are 0 to {FRAMES - 1}"),
    ):
        clip.read([0, index])


def test_a_closed_clip(videos: Path) -> None:
    clip = open_clip(video_file(videos, "closed.mp4"))
    clip.close()
    clip.close()
    with pytest.raises(InputError, match="closed"):
        clip.read([0])
    with pytest.raises(InputError, match="closed"):
        iter(clip)


@pytest.mark.parametrize("fps", [0, -1, float("nan"), float("inf")])
def test_a_rate_that_is_none(fps: float) -> None:
    with pytest.raises(InputError, match="not a frame rate"):
        open_clip(np.zeros((1, 4, 4, 3), np.uint8), fps=fps)


# A video under another name.


def test_a_gif_that_is_a_video(videos: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.gif"
    path.write_bytes(video_file(videos, "closed.mp4").read_bytes())
    with open_clip(path) as clip:
        assert numbers(clip.read([7])) == [7]


# Real clips.

REAL = {
    "asl_book.mkv": (109, 30, 480, 640),
    "flipping_a_pancake.mkv": (310, 30, 240, 426),
    "mmaction_arm_wrestling.mp4": (280, 28, 256, 340),
    "mmaction_cleaning_pool.mp4": (300, 30, 256, 340),
    "mmaction_cleaning_pool_32f.mp4": (32, 30, 256, 340),
    "torchvideo_high_jump.mp4": (247, 30, 256, 452),
    "v_ApplyEyeMakeup_g01_c01.avi": (164, 25, 240, 320),
}


@pytest.fixture
def real() -> Path:
    if "MMCAM_ASSETS" not in os.environ:
        pytest.skip("MMCAM_ASSETS does not name the folder of real clips")
    return Path(os.environ["MMCAM_ASSETS"]) / "video" / "clips"


@pytest.mark.assets
@pytest.mark.parametrize("name", REAL)
def test_real_clips(real: Path, name: str, backend: str) -> None:
    """Frames read at random, by either backend, are those that PyAV decodes from the start."""
    with open_clip(real / name) as clip:
        assert (clip.frames, clip.fps, clip.height, clip.width) == REAL[name]
        last = clip.frames - 1
        wanted = [last, 0, 1, last - 1, last // 2, last // 3, last - 2]
        read = dict(zip(wanted, clip.read(wanted), strict=True))
        for number, frame in enumerate(clip):
            if number in read:
                np.testing.assert_allclose(frame.astype(int), read.pop(number), atol=2)
    assert not read
    assert number == last
