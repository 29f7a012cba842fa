from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from mmcam.errors import InputError, OutputError
from mmcam.media import open_clip, read_image
from mmcam.render import explanation_map, overlay
from mmcam.results import drawing as draw
from mmcam.results.explanation import Explanation
from mmcam.types import Placement, Target

HEIGHT, WIDTH = 24, 36


def make_explanation(cam: Tensor, frames: int = 0, label: str = "dog") -> Explanation:
    return Explanation(
        target=Target.logit(0, label),
        cam=cam,
        score=2.345,
        probability=0.25,
        method="gradcam",
        layer="trunk",
        placement=Placement(
            size=(HEIGHT, WIDTH),
            box=(0, 0, WIDTH, HEIGHT),
            spans=((0.0, float(frames)),) if frames else (),
        ),
    )


def ramp(*grid: int) -> Tensor:
    return torch.arange(float(np.prod(grid))).reshape(grid)


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (*shape, HEIGHT, WIDTH, 3), dtype=np.uint8)


def test_a_heading_says_what_is_shown() -> None:
    explanation = make_explanation(ramp(2, 3))
    assert draw.heading(explanation) == "dog"
    assert draw.heading(replace(explanation, counterfactual=True)) == "against dog"
    assert draw.heading(make_explanation(torch.zeros(2, 3))) == "dog (no positive evidence)"


def test_a_detail_has_the_score_and_the_probability_where_there_is_one() -> None:
    explanation = make_explanation(ramp(2, 3))
    assert draw.detail(explanation) == "score 2.35  p 0.250"
    assert draw.detail(replace(explanation, probability=None)) == "score 2.35"


def test_a_picture_is_its_overlay_in_the_chosen_colours() -> None:
    explanation, pixels = make_explanation(ramp(2, 3)), noise()
    drawn = draw.draw_explanation(explanation, pixels, "viridis")
    expected = overlay(pixels, explanation.heatmap(), colormap="viridis")
    np.testing.assert_array_equal(drawn, expected)
    assert (drawn != draw.draw_explanation(explanation, pixels)).any()


def test_a_pixel_map_is_drawn_as_a_gradient_grey_outside_the_model_input() -> None:
    cam = torch.zeros(3, HEIGHT, WIDTH // 2)
    cam[0, 3, 4], cam[2, 5, 6] = 1, -1
    explanation = make_explanation(cam)
    half = replace(explanation.placement, box=(0, 0, WIDTH // 2, HEIGHT))
    drawn = draw.draw_explanation(replace(explanation, placement=half), noise())
    assert drawn.shape == (HEIGHT, WIDTH, 3)
    assert drawn[3, 4].tolist() == [255, 128, 128]
    assert drawn[5, 6].tolist() == [128, 128, 1]
    assert (drawn[:, WIDTH // 2 :] == 128).all()


def test_sheets_are_in_the_chosen_colours() -> None:
    pictures, clips = make_explanation(ramp(2, 3)), make_explanation(ramp(2, 2, 3), frames=4)
    pixels = noise()
    sheets = [draw.picture_sheet([pictures], pixels, "t", name) for name in ("jet", "inferno")]
    assert (sheets[0] != sheets[1]).any()
    with open_clip(noise(4)) as clip:
        sheets = [draw.clip_sheet(clips, clip, name) for name in ("jet", "inferno")]
    assert (sheets[0] != sheets[1]).any()


@pytest.mark.parametrize("frames", [1, 3, 20])
def test_a_clips_sheet_never_has_more_tiles_than_frames(frames: int) -> None:
    with open_clip(noise(frames)) as clip:
        sheet = draw.clip_sheet(make_explanation(ramp(2, 2, 3), frames=frames), clip)
    columns = round((sheet.shape[1] - 4) / 324)
    assert columns == min(frames, 4)


def test_frames_are_drawn_side_by_side_each_with_its_own_heat(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("mmcam.results.explanation.CHUNK_PIXELS", 4 * HEIGHT * WIDTH)
    pixels = noise(11)  # the last chunk is not full
    explanation = make_explanation(ramp(3, 2, 3), frames=len(pixels))
    with open_clip(pixels) as clip:
        drawn = list(draw.draw_frames(explanation, clip))
    assert len(drawn) == len(pixels)
    gap = (drawn[0].shape[1] - 3 * WIDTH) // 4
    heat = explanation.heatmap()
    for number, frame in enumerate(drawn):
        expected = [
            pixels[number],
            overlay(pixels[number], heat[number]),
            explanation_map(pixels[number], heat[number]),
        ]
        row = next(r for r in range(frame.shape[0]) if (
            frame[r : r + HEIGHT, gap : gap + WIDTH].tobytes() == pixels[number].tobytes()
        ))  # fmt: skip
        for place, pane in enumerate(expected):
            left = gap + place * (gap + WIDTH)
            np.testing.assert_array_equal(frame[row : row + HEIGHT, left : left + WIDTH], pane)


def test_a_single_pane_keeps_the_clips_size_below_its_label() -> None:
    pixels = noise(2)
    with open_clip(pixels) as clip:
        drawn = list(
            draw.draw_frames(make_explanation(ramp(2, 2, 3), frames=2), clip, ["original"])
        )
    for number, frame in enumerate(drawn):
        assert frame.shape[1] == WIDTH
        assert frame.shape[0] > HEIGHT
        np.testing.assert_array_equal(frame[-HEIGHT:], pixels[number])


@pytest.mark.parametrize("panes", [["overlay"], ["overlay", "original"], list(draw.PANES)])
def test_a_written_clip_has_all_frames_and_the_sources_rate(
    tmp_path: Path, panes: list[str]
) -> None:
    frames = tmp_path / "frames"
    frames.mkdir()
    calls: list[tuple[int, int]] = []
    with open_clip(noise(9), fps=12.5) as clip:
        explanation = make_explanation(ramp(2, 2, 3), frames=9)
        drawn = list(draw.draw_frames(explanation, clip, panes))
        draw.write_clip(
            tmp_path / "clip.mp4",
            explanation,
            clip,
            panes,
            frames_to=frames,
            progress=lambda done, total: calls.append((done, total)),
        )
    assert calls == [(number + 1, 9) for number in range(9)]
    with open_clip(tmp_path / "clip.mp4") as written:
        assert (written.frames, written.fps) == (9, 12.5)
        assert (written.height, written.width) == drawn[0].shape[:2]
        difference = written.read(range(9)).astype(float) - np.stack(drawn)
        assert np.abs(difference).mean() < 20  # noise at half the colours' resolution
    assert sorted(file.name for file in frames.iterdir()) == [
        f"frame-{number:06d}.png" for number in range(9)
    ]
    for number, frame in enumerate(drawn):
        written_frame = read_image(frames / f"frame-{number:06d}.png").pixels
        np.testing.assert_array_equal(written_frame, frame)


def test_frames_of_a_longer_clip_drawn_before_are_gone(tmp_path: Path) -> None:
    for frames in (5, 2):
        with open_clip(noise(frames)) as clip:
            explanation = make_explanation(ramp(2, 2, 3), frames=frames)
            draw.write_clip(tmp_path / "clip.mp4", explanation, clip, frames_to=tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "clip.mp4",
        "frame-000000.png",
        "frame-000001.png",
    ]


def test_a_clip_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    with open_clip(noise(2)) as clip, pytest.raises(OutputError):
        draw.write_clip(
            tmp_path / "none" / "clip.mp4", make_explanation(ramp(2, 2, 3), frames=2), clip
        )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("colormap", "panes", "message"),
    [
        ("infernal", ["overlay"], r"no colour map 'infernal'; nearest: inferno.*viridis"),
        ("inferno", ["overlay", "orignal"], r"no pane 'orignal'; nearest: original.*explanation"),
        ("inferno", [], r"no panes to draw; give at least one of original, overlay, explanation"),
    ],
)
def test_unknown_looks_are_refused(colormap: str, panes: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        draw.check_drawing_options(colormap, panes)
