from __future__ import annotations

import socket
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest

import mmcam
from mmcam import demo
from mmcam.store import Explanations

PLACES = {"red": (0.25, 0.3), "green": (0.7, 0.35), "blue": (0.45, 0.75)}
RADIUS, CELL = 30, 16


def distance(x: float, y: float) -> np.ndarray:
    """How far the middle of each pixel is from a point."""
    down, across = np.mgrid[: demo.HEIGHT, : demo.WIDTH] + 0.5
    return np.hypot(across - x, down - y)


def share_near(heatmap: np.ndarray, x: float, y: float) -> float:
    """The share of a heatmap that lies on a disc or within a cell of it."""
    return float(heatmap[distance(x, y) < RADIUS + CELL].sum() / heatmap.sum())


def centre(pixels: np.ndarray, colour: str) -> tuple[float, float]:
    """Where the middle of the disc of that colour is."""
    y, x = np.nonzero(np.abs(pixels.astype(int) - demo.COLOURS[colour]).sum(2) < 30)
    return float(x.mean() + 0.5), float(y.mean() + 0.5)


@pytest.fixture(scope="module")
def clip() -> np.ndarray:
    return demo.clip()


@pytest.fixture(scope="module")
def moves(clip: np.ndarray) -> Explanations:
    labels = [f"{colour} moves" for colour in demo.COLOURS]
    return mmcam.explain(demo.model(clips=True), clip, mmcam.Actions(labels))


@pytest.mark.parametrize("colour", demo.COLOURS)
def test_each_colours_map_lies_on_its_disc(colour: str) -> None:
    found = mmcam.explain(
        demo.model(clips=False), demo.scene(PLACES), mmcam.Classes(list(demo.COLOURS))
    )[colour]
    x, y = PLACES[colour][0] * demo.WIDTH, PLACES[colour][1] * demo.HEIGHT
    peak = found.peak()
    assert np.hypot(peak.x - x, peak.y - y) < RADIUS
    assert share_near(found.heatmap(), x, y) > 0.8


@pytest.mark.parametrize("colour", demo.COLOURS)
def test_a_picture_of_one_colour_is_named_by_it_and_the_others_have_no_evidence(
    colour: str,
) -> None:
    found = mmcam.explain(
        demo.model(clips=False), demo.scene({colour: (0.5, 0.5)}), mmcam.Classes(top=3)
    )
    assert found[0].label == colour
    assert not found[0].empty
    assert [explanation.empty for explanation in found[1:]] == [True, True]


@pytest.mark.parametrize(("colour", "half"), [("red", slice(0, 16)), ("blue", slice(16, 32))])
def test_movement_is_found_in_the_half_of_the_clip_in_which_it_is(
    moves: Explanations, colour: str, half: slice
) -> None:
    found = moves[f"{colour} moves"]
    heatmap = found.heatmap()
    assert heatmap.shape == (demo.FRAMES, demo.HEIGHT, demo.WIDTH)
    assert heatmap[half].sum() > 0.99 * heatmap.sum()
    first, second = found.window_scores
    assert (first > 100 * second) if colour == "red" else (second > 100 * first)
    frame = found.peak().frame
    assert frame is not None
    assert half.start <= frame < half.stop


@pytest.mark.parametrize(("colour", "frames"), [("red", [2, 8, 13]), ("blue", [18, 24, 29])])
def test_movement_is_found_where_the_disc_is(
    moves: Explanations, clip: np.ndarray, colour: str, frames: list[int]
) -> None:
    found = moves[f"{colour} moves"]
    for frame, heatmap in zip(frames, found.heatmap(frames), strict=True):
        assert share_near(heatmap, *centre(clip[frame], colour)) > 0.8
    x, y, at = found.peak()
    assert at is not None
    assert np.hypot(*np.subtract((x, y), centre(clip[at], colour))) < RADIUS + CELL


def test_what_does_not_move_is_not_found(moves: Explanations) -> None:
    still = moves["green moves"]
    assert abs(still.score) < 0.01 * moves["blue moves"].score
    assert still.maximum < 0.01 * moves["blue moves"].maximum


def test_the_demo_writes_its_files_and_needs_no_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> NoReturn:
        raise AssertionError("the demo opened a connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    lines = list(demo.run(tmp_path / "new"))
    files = {str(file.relative_to(tmp_path / "new")) for file in (tmp_path / "new").rglob("*.*")}
    assert files == {
        "demo.png",
        "picture/sheet.png",
        "picture/explanation.json",
        "picture/maps.safetensors",
        "clip/explanation.json",
        "clip/maps.safetensors",
        *(f"picture/overlay-{colour}.png" for colour in demo.COLOURS),
        *(f"clip/overlay-{colour}-moves.png" for colour in demo.COLOURS),
        *(f"clip/clip-{colour}-moves.mp4" for colour in demo.COLOURS),
    }
    assert "not a trained model" in lines[0]
    assert any("green moves" in line and "no positive evidence" in line for line in lines)
