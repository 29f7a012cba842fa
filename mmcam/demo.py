"""`mmcam demo`: the main job on drawn scenes with small trained models, with no download.

The scenes are of test seeds, which the models have not learnt from, and every pixel of them is
accounted for: beside each map stands how much of it lies on what it must rest on.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import numpy as np

from mmcam import shapes
from mmcam.api import explain
from mmcam.evaluators.pointing import chance, energy_inside
from mmcam.explanations import Explanations
from mmcam.media import ClipWriter, write_image
from mmcam.media.images import make_folder
from mmcam.models.registry import load
from mmcam.render import explanation_map, overlay, sheet
from mmcam.results import drawing as draw
from mmcam.results.explanation import Explanation
from mmcam.shapes import ActionClip, Question, Scene
from mmcam.tasks import Actions, Answers, Caption

SCENE, TWO_TONE, CLIP = 93, 337, 43
"""The test seeds of the picture that is captioned, of the one asked about, and of the clip.

They were chosen: of many scenes the maps are worse, as the leaderboard in README.md says.
"""

SIDE = 384
"""The side of the pictures, in pixels; the models see them at 96."""

CLIP_SIDE = 256
"""The side of the clip's frames, in pixels; the model sees them at 64."""

CLIP_RATE = 8
"""Its frames a second."""

COLUMNS = 4


def packaged(name: str) -> Path:
    """The folder of a packaged model: "captioner", "vqa" or "action"."""
    return Path(str(files("mmcam.data"))) / name


def run(folder: Path) -> Iterator[str]:
    """Explain a caption, two answers and an action, write the usual files, and say in words.

    The pictures and the clip are written too, so that other commands can be tried on them.
    """
    yield "Three small models, trained on drawn scenes; these scenes they have not seen before."
    make_folder(folder)
    rows = []
    for part in (_caption, _question, _clip):
        title, lines, tiles = part(folder)
        yield title
        yield from lines
        rows.append(sheet(tiles, columns=COLUMNS, title=title))
    write_image(folder / "demo.png", np.concatenate(rows))
    yield f"Look at {folder / 'demo.png'} first."


_Part = tuple[str, list[str], list[draw.Tile]]
"""What is said, a line for each map, and a row of the sheet."""


def _caption(folder: Path) -> _Part:
    """What a captioner says of a picture, and where it sees each word."""
    scene = shapes.scene(SCENE, SIDE)
    picture = folder / "scene.png"
    write_image(picture, scene.pixels)
    found = explain(load(packaged("captioner")), picture, Caption(words="visual"))
    assert found.text is not None
    told = {word.position: word for word in shapes.caption(scene).words}
    # What a word must rest on is known where the word is the true one at its place.
    true = [told.get(-1 if one.target.position is None else one.target.position) for one in found]
    shares = [
        _on(one, word.mask if word and word.text == one.label else None)
        for one, word in zip(found, true, strict=True)
    ]
    # The sentence, what is there first, and the colour that comes last.
    kinds = ["" if word is None else word.kind for word in true]
    last = len(kinds) - 1 - kinds[::-1].index("colour")
    tiles = [(scene.pixels, "the picture", "")]
    for at, name in ((0, "the whole caption"), (kinds.index("shape"), ""), (last, "")):
        named = name or f'"{found[at].label}"'
        tiles.append((draw.draw_explanation(found[at], scene.pixels), named, shares[at]))
    lines = [*map(_line, found, shares), _save(found, folder / "caption")]
    return f'A captioner says "{found.text["caption"]}"', lines, tiles


def _question(folder: Path) -> _Part:
    """Where a model sees each of two right answers."""
    scene = shapes.scene(TWO_TONE, SIDE)
    ask = two_tone_question(scene)
    assert ask is not None
    assert ask.about is not None
    picture = folder / "two-tone.png"
    write_image(picture, scene.pixels)
    found = explain(load(packaged("vqa")), picture, Answers(ask.text, [*ask.answers]))
    assert found.text is not None
    shares = [_on(one, ask.answers[one.label]) for one in found]
    tiles = [(scene.pixels, "the picture", "")]
    tiles += [
        (draw.draw_explanation(one, scene.pixels), f'"{one.label}"', share)
        for one, share in zip(found, shares, strict=True)
    ]
    lit = explanation_map(scene.pixels, np.where(ask.about, 1.0, 0.2))
    tiles.append((lit, "what is asked about", f"{ask.about.mean():.0%} of the picture"))
    lines = [*map(_line, found, shares), _save(found, folder / "question")]
    top = found.text["top"][0]["answer"]
    return f'Asked "{ask.text}" a model answers "{top}"; both colours forced', lines, tiles


def _clip(folder: Path) -> _Part:
    """Where and when a model sees an action."""
    clip = shapes.clip(CLIP, size=CLIP_SIDE)
    with ClipWriter(folder / "clip.mp4", CLIP_RATE, CLIP_SIDE, CLIP_SIDE) as writer:
        for frame in clip.pixels:
            writer.write(frame)
    one = (found := explain(load(packaged("action")), folder / "clip.mp4", Actions()))[0]
    actor = clip.objects[clip.actor]
    lines = [_line(one, _on(one, actor.masks)), _save(found, folder / "clip")]
    title = f'Of a clip a model says "{one.label}"; the {actor.shape} {clip.action}'
    return title, lines, _frames(one, clip)


def two_tone_question(scene: Scene) -> Question | None:
    """The scene's question with two right answers, the colours of a two-tone thing."""
    return next((ask for ask in shapes.questions(scene) if len(ask.answers) == 2), None)


def _frames(found: Explanation, clip: ActionClip) -> list[draw.Tile]:
    frames = np.linspace(1, len(clip.pixels) - 2, COLUMNS).round().astype(int).tolist()
    return [
        (overlay(pixels, heat), f"frame {frame}", "")
        for frame, pixels, heat in zip(
            frames, clip.pixels[frames], found.heatmap(frames), strict=True
        )
    ]


def _on(found: Explanation, mask: np.ndarray | None) -> str:
    """How much of a map lies where it should, beside how much of the picture that is."""
    if mask is None or found.empty:
        return ""
    heat = found.heatmap()
    share, area = energy_inside(heat, mask), chance(heat, mask)
    return f"{share:.0%} on what it must rest on, {area:.0%} of the picture"


def _line(found: Explanation, share: str) -> str:
    peak = found.peak()
    where = f"strongest at x {peak.x:.0f}, y {peak.y:.0f}"
    where += "" if peak.frame is None else f", frame {peak.frame}"
    shown = "no positive evidence" if found.empty else where
    return f"  {draw.heading(found):22s} {draw.detail(found):26s} {shown:32s} {share}".rstrip()


def _save(found: Explanations, folder: Path) -> str:
    found.save(folder, command=["mmcam", "demo"])
    return f"  written to {folder}"
