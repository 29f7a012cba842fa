"""Clips that are not videos: animations, folders of frames, arrays."""

from __future__ import annotations

from pathlib import Path

import jaxtyping
import numpy as np
import pytest
from PIL import Image

from mmcam.errors import InputError
from mmcam.media import open_clip
from tests.media.coded import HEIGHT, WIDTH, numbered_frame, numbers


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Switch off the run-time checks of shapes and types, as for a user."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


# Animated pictures.


@pytest.fixture
def colours() -> list[np.ndarray]:
    """Frames that survive a palette: one colour each, and a corner that shows flips."""
    frames = [np.full((6, 8, 3), 20 * number, np.uint8) for number in range(12)]
    for frame in frames:
        frame[0, 0] = 255
    return frames


@pytest.mark.parametrize("suffix", ["gif", "webp", "png"])
def test_animations(tmp_path: Path, colours: list[np.ndarray], suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    first, *rest = map(Image.fromarray, colours)
    options = {"lossless": True} if suffix == "webp" else {}
    first.save(path, save_all=True, append_images=rest, duration=40, loop=0, **options)
    with open_clip(path) as clip:
        assert clip.frames == 12
        assert clip.fps == pytest.approx(25)
        assert (np.stack(list(clip)) == colours).all()
        assert (clip.read([11, 2, 2]) == [colours[11], colours[2], colours[2]]).all()


def test_a_truncated_gif(tmp_path: Path, colours: list[np.ndarray]) -> None:
    path = tmp_path / "a.gif"
    first, *rest = map(Image.fromarray, colours)
    first.save(path, save_all=True, append_images=rest, duration=40)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    with open_clip(path) as clip:
        assert 3 < clip.frames < 12
        assert (np.stack(list(clip)) == colours[: clip.frames]).all()


def test_a_broken_gif(tmp_path: Path) -> None:
    (tmp_path / "a.gif").write_bytes(b"GIF89a" + bytes(7) + b"\xff" * 50)
    with pytest.raises(InputError):
        open_clip(tmp_path / "a.gif")


def test_a_picture_is_a_clip_of_one_frame(tmp_path: Path) -> None:
    Image.fromarray(numbered_frame(9)).save(tmp_path / "a.png")
    with open_clip(tmp_path / "a.png", fps=10) as clip:
        assert (clip.frames, clip.fps) == (1, 10)
        assert (clip.read([0])[0] == numbered_frame(9)).all()


# Folders.


def test_a_folder_in_natural_order(tmp_path: Path) -> None:
    for number in range(12):
        Image.fromarray(numbered_frame(number)).save(tmp_path / f"Frame{number}.PNG")
    (tmp_path / "notes.txt").write_text("not a frame")
    (tmp_path / "._Frame1.PNG").write_text("metadata of a file system")
    with open_clip(tmp_path) as clip:
        assert (clip.path, clip.frames, clip.fps) == (str(tmp_path), 12, 25)
        assert (np.stack(list(clip)) == [numbered_frame(number) for number in range(12)]).all()
        assert (clip.read([10, 2]) == [numbered_frame(10), numbered_frame(2)]).all()
    with open_clip(str(tmp_path), fps=12.5) as clip:
        assert clip.fps == 12.5


def test_a_folder_without_pictures(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no pictures in this folder"):
        open_clip(tmp_path)


@pytest.mark.parametrize("size", [(64, 95), (96, 64)])
def test_a_folder_of_several_sizes(tmp_path: Path, size: tuple[int, int]) -> None:
    Image.fromarray(numbered_frame(0)).save(tmp_path / "1.png")
    Image.new("RGB", size[::-1]).save(tmp_path / "2.png")
    message = rf"2\.png: {size[1]} x {size[0]} pixels, but the first frame has 96 x 64"
    if size == (96, 64):  # the frame may be stored rotated
        with open_clip(tmp_path) as clip, pytest.raises(InputError, match=message):
            list(clip)
    else:
        with pytest.raises(InputError, match=message):
            open_clip(tmp_path)


def test_a_folder_with_a_broken_frame(tmp_path: Path) -> None:
    Image.fromarray(numbered_frame(0)).save(tmp_path / "1.png")
    (tmp_path / "2.png").write_text("broken")
    with pytest.raises(InputError, match=r"2\.png"):
        open_clip(tmp_path)


# Arrays.


def test_an_array() -> None:
    pixels = np.stack([numbered_frame(number) for number in range(5)])
    with open_clip(pixels, fps=12) as clip:
        assert (clip.path, clip.frames, clip.fps) == ("array", 5, 12)
        assert clip.source is pixels
        assert (clip.height, clip.width) == (HEIGHT, WIDTH)
        assert numbers(clip.read([4, 0, 0])) == [4, 0, 0]
        assert numbers(clip) == [0, 1, 2, 3, 4]
        clip.read([0])[:] = 0
        next(iter(clip))[:] = 0
        assert (pixels[0] == numbered_frame(0)).all()


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 4, 4, 3)), "float64"),
        (np.zeros((4, 4, 3), np.uint8), r"\[4, 4, 3\]"),
        (np.zeros((2, 3, 4, 4), np.uint8), r"channels first"),
        (np.zeros((0, 4, 4, 3), np.uint8), "holds no frames"),
    ],
)
def test_a_wrong_array(array: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        open_clip(array)


@pytest.mark.usefixtures("unchecked")
def test_something_else() -> None:
    with pytest.raises(InputError, match="int: not a clip"):
        open_clip(7)  # type: ignore[arg-type]
