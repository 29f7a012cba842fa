"""`mmcam demo`: explain small trained models on synthetic scenes, without any download.

The scenes come from test seeds, which were not used in training. The pixels that are evidence for
each word, answer and action are known, so the demo prints how much of each map lies on them.
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
"""The test seeds of the captioned picture, of the picture with the question, and of the clip.

They are hand-picked: for many scenes the maps are worse, see the leaderboard in README.md.
"""

SIDE = 384
"""The side of the pictures, in pixels; the models' input is 96 x 96."""

CLIP_SIDE = 256
"""The side of the clip's frames, in pixels; the model's input is 64 x 64."""

CLIP_RATE = 8
"""The clip's frame rate, in frames per second."""

COLUMNS = 4
"""The number of tiles in a row of the sheet."""


def packaged(name: str) -> Path:
    """The folder of a model in the package: "captioner", "vqa" or "action"."""
    return Path(str(files("mmcam.data"))) / name


def run(folder: Path) -> Iterator[str]:
    """Explain a caption, two answers and an action, save the results, and yield report lines.

    The pictures and the clip are written too, as input for other commands.

    Raises:
        OutputError: a file cannot be written.
    """
    yield "Three small models, trained on synthetic scenes; the scenes below are test scenes."
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
"""A title, a line for each map, and a row of the sheet."""


def _caption(folder: Path) -> _Part:
    """Explain the caption that a model generates, and its visual words."""
    scene = shapes.scene(SCENE, SIDE)
    picture = folder / "scene.png"
    write_image(picture, scene.pixels)
    explanations = explain(load(packaged("captioner")), picture, Caption(words="visual"))
    assert explanations.text is not None
    true_words = {word.position: word for word in shapes.caption(scene).words}
    positions = [explanation.target.position for explanation in explanations]
    words = [None if position is None else true_words.get(position) for position in positions]
    # The evidence for a word is known if it equals the true word at its position.
    shares = [
        _share_on(explanation, word.mask if word and word.text == explanation.label else None)
        for explanation, word in zip(explanations, words, strict=True)
    ]
    # The whole caption, the first shape and the last colour.
    kinds = ["" if word is None else word.kind for word in words]
    last_colour = len(kinds) - 1 - kinds[::-1].index("colour")
    tiles = [(scene.pixels, "the picture", "")]
    for index in (0, kinds.index("shape"), last_colour):
        title = f'"{explanations[index].label}"' if index else "the whole caption"
        tiles.append(
            (draw.draw_explanation(explanations[index], scene.pixels), title, shares[index])
        )
    lines = [*map(_line, explanations, shares), _save(explanations, folder / "caption")]
    return f'A captioner generates "{explanations.text["caption"]}"', lines, tiles


def _question(folder: Path) -> _Part:
    """Explain both correct answers to a question about a two-tone thing."""
    scene = shapes.scene(TWO_TONE, SIDE)
    question = two_tone_question(scene)
    assert question is not None
    assert question.about is not None
    picture = folder / "two-tone.png"
    write_image(picture, scene.pixels)
    task = Answers(question.text, [*question.answers])
    explanations = explain(load(packaged("vqa")), picture, task)
    assert explanations.text is not None
    shares = [
        _share_on(explanation, question.answers[explanation.label]) for explanation in explanations
    ]
    tiles = [(scene.pixels, "the picture", "")]
    tiles += [
        (draw.draw_explanation(explanation, scene.pixels), f'"{explanation.label}"', share)
        for explanation, share in zip(explanations, shares, strict=True)
    ]
    highlighted = explanation_map(scene.pixels, np.where(question.about, 1.0, 0.2))
    area = f"{question.about.mean():.0%} of the picture"
    tiles.append((highlighted, "region of the question", area))
    lines = [*map(_line, explanations, shares), _save(explanations, folder / "question")]
    top = explanations.text["top"][0]["answer"]
    title = f'A model answers "{question.text}" with "{top}"; both colours are explained'
    return title, lines, tiles


def _clip(folder: Path) -> _Part:
    """Explain the action that a model predicts for a clip."""
    clip = shapes.clip(CLIP, size=CLIP_SIDE)
    with ClipWriter(folder / "clip.mp4", CLIP_RATE, CLIP_SIDE, CLIP_SIDE) as writer:
        for frame in clip.pixels:
            writer.write(frame)
    explanations = explain(load(packaged("action")), folder / "clip.mp4", Actions())
    explanation = explanations[0]
    actor = clip.objects[clip.actor]
    share = _share_on(explanation, actor.masks)
    lines = [_line(explanation, share), _save(explanations, folder / "clip")]
    title = (
        f'A model predicts "{explanation.label}" for a clip where the {actor.shape} {clip.action}'
    )
    return title, lines, _frames(explanation, clip)


def two_tone_question(scene: Scene) -> Question | None:
    """The scene's question about a two-tone thing, if any; both of its colours are correct."""
    questions = shapes.questions(scene)
    return next((question for question in questions if len(question.answers) == 2), None)


def _frames(explanation: Explanation, clip: ActionClip) -> list[draw.Tile]:
    frames = np.linspace(1, len(clip.pixels) - 2, COLUMNS).round().astype(int).tolist()
    return [
        (overlay(pixels, heatmap), f"frame {frame}", "")
        for frame, pixels, heatmap in zip(
            frames, clip.pixels[frames], explanation.heatmap(frames), strict=True
        )
    ]


def _share_on(explanation: Explanation, mask: np.ndarray | None) -> str:
    """The shares of a map and of the picture that lie on the true evidence."""
    if mask is None or explanation.empty:
        return ""
    heatmap = explanation.heatmap()
    share, area = energy_inside(heatmap, mask), chance(heatmap, mask)
    return f"{share:.0%} on the true evidence, {area:.0%} of the picture"


def _line(explanation: Explanation, share: str) -> str:
    peak = explanation.peak()
    location = f"strongest at x {peak.x:.0f}, y {peak.y:.0f}"
    location += "" if peak.frame is None else f", frame {peak.frame}"
    result = "no positive evidence" if explanation.empty else location
    heading, detail = draw.heading(explanation), draw.detail(explanation)
    return f"  {heading:22s} {detail:26s} {result:32s} {share}".rstrip()


def _save(explanations: Explanations, folder: Path) -> str:
    explanations.save(folder, command=["mmcam", "demo"])
    return f"  written to {folder}"
