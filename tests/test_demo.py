from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
from PIL import Image

from mmcam import demo, shapes


@pytest.fixture(scope="module")
def demo_output(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, list[str]]]:
    """The demo's folder and its lines, with network connections refused."""

    def refuse(*_: object) -> NoReturn:
        raise AssertionError("the demo opened a connection")

    folder = tmp_path_factory.mktemp("demo") / "new"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", refuse)
        yield folder, list(demo.run(folder))


def facts(folder: Path, part: str) -> dict:
    content: dict = json.loads((folder / part / "explanation.json").read_text())
    return content


def test_it_writes_the_usual_files_and_one_sheet(demo_output: tuple[Path, list[str]]) -> None:
    folder, lines = demo_output
    with Image.open(folder / "demo.png") as sheet:
        assert sheet.width > 1000
        assert sheet.height > 1000
    for part in ("caption", "question", "clip"):
        assert any(line.endswith(str(folder / part)) for line in lines)
        names = {file.name for file in (folder / part).iterdir()}
        assert {"explanation.json", "maps.safetensors"} <= names
        for target in facts(folder, part)["targets"]:
            assert target["overlay"] in names
    assert list((folder / "clip").glob("clip-*.mp4"))
    assert str(folder / "demo.png") in lines[-1]


def test_the_caption_and_every_visual_word_is_explained(
    demo_output: tuple[Path, list[str]],
) -> None:
    folder, lines = demo_output
    caption = facts(folder, "caption")["text"]["caption"]
    assert any(f'"{caption}"' in line for line in lines)
    # The scene was chosen because the generated caption is right.
    true_caption = shapes.caption(shapes.scene(demo.SCENE, demo.SIDE))
    assert caption == true_caption.text
    targets = facts(folder, "caption")["targets"]
    visual_words = [
        word.text for word in true_caption.words if word.mask is not None and word.text != "among"
    ]
    assert [(target["kind"], target["label"]) for target in targets] == [
        ("sentence", caption),
        *(("word", text) for text in visual_words),
    ]


def test_both_colours_are_explained_and_each_lies_on_its_half(
    demo_output: tuple[Path, list[str]],
) -> None:
    folder, _ = demo_output
    question = demo.two_tone_question(shapes.scene(demo.TWO_TONE, demo.SIDE))
    assert question is not None
    targets = facts(folder, "question")["targets"]
    assert [target["label"] for target in targets] == [*question.answers]
    assert facts(folder, "question")["text"]["top"][0]["answer"] in question.answers
    for target in targets:
        mask, peak = question.answers[target["label"]], target["peak"]
        assert mask is not None
        # Within one cell of the 12 x 12 grid.
        rows, columns = np.nonzero(mask)
        distance = np.hypot(rows + 0.5 - peak["y"], columns + 0.5 - peak["x"]).min()
        assert distance < demo.SIDE / 12


def test_the_true_action_is_predicted(demo_output: tuple[Path, list[str]]) -> None:
    folder, _ = demo_output
    clip = shapes.clip(demo.CLIP, size=demo.CLIP_SIDE)
    assert [target["label"] for target in facts(folder, "clip")["targets"]] == [clip.action]


@pytest.mark.parametrize("part", ["caption", "question", "clip"])
def test_it_prints_how_much_of_a_map_lies_on_the_evidence(
    demo_output: tuple[Path, list[str]], part: str
) -> None:
    folder, lines = demo_output
    labels = {t["label"] for t in facts(folder, part)["targets"] if t["kind"] != "sentence"}
    for label in labels:
        matching = [line for line in lines if line.startswith(f"  {label} ")]
        assert matching
        assert all("on the true evidence" in line or "no positive" in line for line in matching)


def test_the_scenes_are_not_those_of_the_training() -> None:
    for seed in (demo.SCENE, demo.TWO_TONE, demo.CLIP):
        assert seed in shapes.SPLITS["test"]


@pytest.mark.parametrize("name", ["captioner", "vqa", "action"])
def test_the_models_are_where_the_package_is(name: str) -> None:
    assert (demo.packaged(name) / "mmcam.json").is_file()
