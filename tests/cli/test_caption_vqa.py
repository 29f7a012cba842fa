"""The commands for captions and questions, from words on a line to files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from mmcam import cli
from mmcam.errors import LabelError, ModelError
from mmcam.media import write_image
from tests.adapters.test_show_and_tell import write_folder as captioner_folder
from tests.adapters.test_vqa import write_folder as vqa_folder


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A photo, a captioner and a model of answers."""
    folder = tmp_path_factory.mktemp("cli")
    pixels = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    write_image(folder / "photo.png", pixels)
    captioner_folder(folder / "captioner")
    vqa_folder(folder / "vqa")
    return folder


def run(*words: object) -> str:
    """What a command prints; errors come through as they are."""
    ended = CliRunner().invoke(cli.app, [str(word) for word in words], env={"COLUMNS": "200"})
    if ended.exception is not None and not isinstance(ended.exception, SystemExit):
        raise ended.exception
    assert ended.exit_code == 0
    return " ".join(ended.output.split())


def facts(folder: Path) -> dict[str, object]:
    read: dict[str, object] = json.loads((folder / "explanation.json").read_text())
    return read


def test_a_caption_is_said_and_explained(here: Path, tmp_path: Path) -> None:
    said = run(
        "caption",
        here / "photo.png",
        "--model",
        here / "captioner",
        "--max-new-tokens",
        3,
        "--out",
        tmp_path,
    )
    text = facts(tmp_path)["text"]
    assert isinstance(text, dict)
    assert f"the model says: {text['caption']}" in said


def test_a_caption_is_forced_and_its_words_are_chosen(here: Path, tmp_path: Path) -> None:
    words = ("--text", "a dog runs a dog", "--word", "dog", "--word", "0", "--score", "log-prob")
    said = run(
        "caption", here / "photo.png", "--model", here / "captioner", *words, "--out", tmp_path
    )
    assert "explained: a dog runs a dog (log-probability" in said
    targets = facts(tmp_path)["targets"]
    assert isinstance(targets, list)
    assert [(t["label"], t["position"]) for t in targets[1:]] == [("a", 0), ("dog", 1), ("dog", 4)]
    assert targets[1]["score"] == pytest.approx(targets[1]["log_prob"], abs=1e-4)


@pytest.mark.parametrize(("choice", "count"), [("all", 3), ("visual", 2), ("none", 0)])
def test_words_are_all_visual_or_none(here: Path, tmp_path: Path, choice: str, count: int) -> None:
    words = ("--text", "a dog runs", "--words", choice)
    run("caption", here / "photo.png", "--model", here / "captioner", *words, "--out", tmp_path)
    targets = facts(tmp_path)["targets"]
    assert isinstance(targets, list)
    assert len(targets) == 1 + count


def test_answers_are_forced_and_contrasted(here: Path, tmp_path: Path) -> None:
    asked = (
        "What color is the zebra of the zebra?",
        "--answer",
        "red",
        "--contrast",
        "red",
        "blue",
    )
    said = run("vqa", here / "photo.png", *asked, "--model", here / "vqa", "--out", tmp_path)
    assert "red rather than blue" in said
    assert "top answers: " in said
    assert "words outside the model's vocabulary: is, the, zebra" in said
    assert "the question is truncated: its last 4 words are left out" in said
    targets = facts(tmp_path)["targets"]
    assert isinstance(targets, list)
    assert [t["kind"] for t in targets] == ["answer", "contrast"]
    assert {"overlay-red.png", "overlay-red-rather-than-blue.png", "sheet.png"} <= {
        path.name for path in tmp_path.iterdir()
    }


def test_answers_are_searched(here: Path) -> None:
    assert run("list", "answers", "--model", here / "vqa") == "red blue"
    assert run("list", "answers", "--model", here / "vqa", "--match", "BL") == "blue"
    with pytest.raises(ModelError, match="writes its answers word by word"):
        run("list", "answers", "--model", here / "captioner")


def test_what_cannot_be_said_is_told(here: Path, tmp_path: Path) -> None:
    with pytest.raises(LabelError, match="lacks 'cat'"):
        run(
            *("caption", here / "photo.png", "--model", here / "captioner"),
            *("--text", "a cat", "--out", tmp_path / "none"),
        )
    assert not (tmp_path / "none").exists()
