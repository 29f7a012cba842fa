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
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, list[str]]]:
    """The demo's folder and what it said, on a machine without a network."""

    def refuse(*_: object) -> NoReturn:
        raise AssertionError("the demo opened a connection")

    folder = tmp_path_factory.mktemp("demo") / "new"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", refuse)
        yield folder, list(demo.run(folder))


def facts(folder: Path, part: str) -> dict:
    content: dict = json.loads((folder / part / "explanation.json").read_text())
    return content


def test_it_writes_the_usual_files_and_one_sheet(shown: tuple[Path, list[str]]) -> None:
    folder, lines = shown
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


def test_the_caption_and_every_visual_word_is_explained(shown: tuple[Path, list[str]]) -> None:
    folder, lines = shown
    said = facts(folder, "caption")["text"]["caption"]
    assert any(f'"{said}"' in line for line in lines)
    # The scene was chosen as one of which all is said right.
    told = shapes.caption(shapes.scene(demo.SCENE, demo.SIDE))
    assert said == told.text
    found = facts(folder, "caption")["targets"]
    seen = [word.text for word in told.words if word.mask is not None and word.text != "among"]
    assert [(target["kind"], target["label"]) for target in found] == [
        ("sentence", said),
        *(("word", text) for text in seen),
    ]


def test_both_colours_are_forced_and_each_lies_on_its_half(shown: tuple[Path, list[str]]) -> None:
    folder, _ = shown
    ask = demo.two_tone_question(shapes.scene(demo.TWO_TONE, demo.SIDE))
    assert ask is not None
    targets = facts(folder, "question")["targets"]
    assert [target["label"] for target in targets] == [*ask.answers]
    assert facts(folder, "question")["text"]["top"][0]["answer"] in ask.answers
    for target in targets:
        mask, peak = ask.answers[target["label"]], target["peak"]
        assert mask is not None
        # Within a cell of the 12 x 12.
        rows, columns = np.nonzero(mask)
        far = np.hypot(rows + 0.5 - peak["y"], columns + 0.5 - peak["x"]).min()
        assert far < demo.SIDE / 12


def test_the_clip_is_said_to_show_what_it_shows(shown: tuple[Path, list[str]]) -> None:
    folder, _ = shown
    clip = shapes.clip(demo.CLIP, size=demo.CLIP_SIDE)
    assert [target["label"] for target in facts(folder, "clip")["targets"]] == [clip.action]


@pytest.mark.parametrize("part", ["caption", "question", "clip"])
def test_it_says_how_much_of_a_map_lies_where_it_should(
    shown: tuple[Path, list[str]], part: str
) -> None:
    folder, lines = shown
    labels = {t["label"] for t in facts(folder, part)["targets"] if t["kind"] != "sentence"}
    for label in labels:
        said = [line for line in lines if line.startswith(f"  {label} ")]
        assert said
        assert all("on what it must rest on" in line or "no positive" in line for line in said)


def test_the_scenes_are_not_those_of_the_training() -> None:
    for seed in (demo.SCENE, demo.TWO_TONE, demo.CLIP):
        assert seed in shapes.SPLITS["test"]


@pytest.mark.parametrize("name", ["captioner", "vqa", "action"])
def test_the_models_are_where_the_package_is(name: str) -> None:
    assert (demo.packaged(name) / "mmcam.json").is_file()
