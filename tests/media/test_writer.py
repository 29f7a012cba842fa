from __future__ import annotations

import os
import resource
from fractions import Fraction
from pathlib import Path

import av
import jaxtyping
import numpy as np
import pytest

from mmcam.errors import OutputError
from mmcam.media import ClipWriter, open_clip, writer


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Switch off the run-time checks of shapes and types, as for a user."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


def ramp(number: int, height: int = 32, width: int = 48) -> np.ndarray:
    """A frame whose brightness shows its number, with a horizontal gradient that shows flips."""
    frame = np.full((height, width, 3), 10 + 8 * number, np.uint8)
    return frame + np.linspace(0, 60, width).astype(np.uint8)[:, None]


def write(path: Path, frames: int = 20, fps: float = 25, height: int = 32, width: int = 48) -> Path:
    with ClipWriter(path, fps, height, width) as clip:
        for number in range(frames):
            clip.write(ramp(number, height, width))
    return path


def test_what_is_written_is_read(tmp_path: Path) -> None:
    with open_clip(write(tmp_path / "a.mp4")) as clip:
        assert (clip.frames, clip.fps, clip.height, clip.width) == (20, 25, 32, 48)
        for number, frame in enumerate(clip):
            np.testing.assert_allclose(frame.astype(int), ramp(number), atol=4)
    assert os.listdir(tmp_path) == ["a.mp4"]


def test_a_browser_plays_it(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4")
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264"
        assert stream.codec_context.pix_fmt == "yuv420p"
    data = path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")  # playback starts before the download ends


def test_colours_survive(tmp_path: Path) -> None:
    """Colours are preserved only if the file states its colour matrix."""
    colours = np.array([[200, 30, 30], [30, 200, 30], [30, 30, 200]], np.uint8)
    frame = colours.repeat(16, 0)[None].repeat(16, 0)
    with ClipWriter(tmp_path / "a.mp4", 25, 16, 48) as clip:
        clip.write(frame)
    with open_clip(tmp_path / "a.mp4") as clip:
        read = clip.read([0])[0, 8, 8::16].astype(int)
    np.testing.assert_allclose(read, colours, atol=4)


@pytest.mark.parametrize(
    ("fps", "exact"),
    [
        (29.97, Fraction(30000, 1001)),
        (30000 / 1001, Fraction(30000, 1001)),
        (23.976, Fraction(24000, 1001)),
        (59.94, Fraction(60000, 1001)),
        (30, Fraction(30)),
        (12.5, Fraction(25, 2)),
        (28.77, Fraction(2877, 100)),
        (1, Fraction(1)),
        (Fraction(1, 3), Fraction(1, 3)),
    ],
)
def test_rates_are_exact(tmp_path: Path, fps: float, exact: Fraction) -> None:
    assert writer.exact_rate(fps) == exact
    with av.open(str(write(tmp_path / "a.mp4", fps=fps))) as container:
        assert container.streams.video[0].average_rate == exact
        assert container.streams.video[0].frames == 20


@pytest.mark.parametrize(("height", "width"), [(31, 48), (32, 47), (31, 47), (1, 1)])
def test_odd_sizes_are_padded_by_the_edge(tmp_path: Path, height: int, width: int) -> None:
    with open_clip(write(tmp_path / "a.mp4", 1, 25, height, width)) as clip:
        assert (clip.height, clip.width) == (height + height % 2, width + width % 2)
        expected = np.pad(ramp(0, height, width), ((0, height % 2), (0, width % 2), (0, 0)), "edge")
        np.testing.assert_allclose(clip.read([0])[0].astype(int), expected, atol=4)


def test_an_exception_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_text("old")

    def fail() -> None:
        with ClipWriter(path, 25, 32, 48) as clip:
            clip.write(ramp(0))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.mp4"]


def test_no_frames(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="no frame was written"):
        write(tmp_path / "a.mp4", frames=0)
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (np.zeros((48, 32, 3), np.uint8), "32 x 48 pixels does not fit a clip of 48 x 32"),
        (np.zeros((32, 48, 3)), r"float64.*uint8 \[h w 3\]"),
        (np.zeros((32, 48), np.uint8), r"\[32, 48\]"),
    ],
)
def test_a_wrong_frame(tmp_path: Path, frame: np.ndarray, message: str) -> None:
    with (
        pytest.raises(OutputError, match=message),
        ClipWriter(tmp_path / "a.mp4", 25, 32, 48) as clip,
    ):
        clip.write(frame)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("fps", [0, -25, float("nan"), float("inf")])
def test_a_rate_that_is_none(tmp_path: Path, fps: float) -> None:
    with pytest.raises(OutputError, match="not a frame rate"):
        ClipWriter(tmp_path / "a.mp4", fps, 32, 48)


def test_a_size_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="0 x 32 pixels"):
        ClipWriter(tmp_path / "a.mp4", 25, 32, 0)


def test_a_size_that_no_encoder_takes(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"20000 x 20000.*smaller"):
        write(tmp_path / "a.mp4", 1, 25, 20000, 20000)
    assert not list(tmp_path.iterdir())


def test_writing_to_no_folder(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="check the folder"):
        write(tmp_path / "nowhere" / "a.mp4")


@pytest.mark.parametrize("room", [10, 20_000])
def test_a_full_disk_leaves_nothing(tmp_path: Path, room: int) -> None:
    """A limit on the file size simulates a full disk."""
    noise = np.random.default_rng(0).integers(0, 256, (40, 64, 96, 3), dtype=np.uint8)

    def write_noise() -> None:
        with ClipWriter(tmp_path / "a.mp4", 25, 64, 96) as clip:
            for frame in noise:
                clip.write(frame)

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        with pytest.raises(OutputError, match=r"a\.mp4: cannot be written"):
            write_noise()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.iterdir())


def test_another_encoder_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first encoder is missing, the second does not open, the third works."""
    broken = {"preset": "no such preset"}
    monkeypatch.setattr(writer, "ENCODERS", {"nowhere": {}, "libx264rgb": broken, "libx264": {}})
    with open_clip(write(tmp_path / "a.mp4")) as clip:
        assert clip.frames == 20


def test_no_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(av, "codecs_available", set())
    with pytest.raises(OutputError, match=r"no H\.264 encoder here.*libx264: pip install"):
        write(tmp_path / "a.mp4")
    assert not list(tmp_path.iterdir())
