"""The commands for captions and questions, from arguments to files."""

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
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a photo, a captioner and a VQA model."""
    folder = tmp_path_factory.mktemp("cli")
    pixels = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    write_image(folder / "photo.png", pixels)
    captioner_folder(folder / "captioner")
    vqa_folder(folder / "vqa")
    return folder


def run(*arguments: object) -> str:
    """The output of a command, with white space collapsed; errors are raised."""
    result = CliRunner().invoke(cli.app, [str(word) for word in arguments], env={"COLUMNS": "200"})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0
    return " ".join(result.output.split())


def facts(folder: Path) -> dict[str, object]:
    content: dict[str, object] = json.loads((folder / "explanation.json").read_text())
    return content


def test_a_caption_is_generated_and_explained(folder: Path, tmp_path: Path) -> None:
    output = run(
        "caption",
        folder / "photo.png",
        "--model",
        folder / "captioner",
        "--max-new-tokens",
        3,
        "--out",
        tmp_path,
    )
    text = facts(tmp_path)["text"]
    assert isinstance(text, dict)
    assert f"generated caption: {text['caption']}" in output


def test_a_caption_is_forced_and_its_words_are_chosen(folder: Path, tmp_path: Path) -> None:
    arguments = (
        "--text",
        "a dog runs a dog",
        "--word",
        "dog",
        "--word",
        "0",
        "--score",
        "log-prob",
    )
    output = run(
        "caption",
        folder / "photo.png",
        "--model",
        folder / "captioner",
        *arguments,
        "--out",
        tmp_path,
    )
    assert "given caption: a dog runs a dog (log-probability" in output
    targets = facts(tmp_path)["targets"]
    assert isinstance(targets, list)
    assert [(t["label"], t["position"]) for t in targets[1:]] == [("a", 0), ("dog", 1), ("dog", 4)]
    assert targets[1]["score"] == pytest.approx(targets[1]["log_prob"], abs=1e-4)


@pytest.mark.parametrize(("choice", "count"), [("all", 3), ("visual", 2), ("none", 0)])
def test_words_are_all_visual_or_none(
    folder: Path, tmp_path: Path, choice: str, count: int
) -> None:
    arguments = ("--text", "a dog runs", "--words", choice)
    run(
        "caption",
        folder / "photo.png",
        "--model",
        folder / "captioner",
        *arguments,
        "--out",
        tmp_path,
    )
    targets = facts(tmp_path)["targets"]
    assert isinstance(targets, list)
    assert len(targets) == 1 + count


def test_answers_are_forced_and_contrasted(folder: Path, tmp_path: Path) -> None:
    arguments = (
        "What color is the zebra of the zebra?",
        "--answer",
        "red",
        "--contrast",
        "red",
        "blue",
    )
    output = run(
        "vqa", folder / "photo.png", *arguments, "--model", folder / "vqa", "--out", tmp_path
    )
    assert "red rather than blue" in output
    assert "top answers: " in output
    assert "words outside the model's vocabulary: is, the, zebra" in output
    assert "the question is truncated: its last 4 words are left out" in output
    targets = facts(tmp_path)["targets"]
    assert isinstance(targets, list)
    assert [t["kind"] for t in targets] == ["answer", "contrast"]
    assert {"overlay-red.png", "overlay-red-rather-than-blue.png", "sheet.png"} <= {
        path.name for path in tmp_path.iterdir()
    }


def test_answers_are_searched(folder: Path) -> None:
    assert run("list", "answers", "--model", folder / "vqa") == "red blue"
    assert run("list", "answers", "--model", folder / "vqa", "--match", "BL") == "blue"
    with pytest.raises(ModelError, match="generates its answers word by word"):
        run("list", "answers", "--model", folder / "captioner")


def test_unknown_words_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(LabelError, match="lacks 'cat'"):
        run(
            *("caption", folder / "photo.png", "--model", folder / "captioner"),
            *("--text", "a cat", "--out", tmp_path / "none"),
        )
    assert not (tmp_path / "none").exists()
