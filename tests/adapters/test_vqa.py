"""VQA models from folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import mmcam
from mmcam.adapters.base.answerer import AnswerClassifier
from mmcam.errors import ModelError, WeightsError
from mmcam.models.registry import load

CNN = {"family": "torchvision", "name": "resnet18"}

MANIFEST: dict[str, Any] = {
    "schema_version": 1,
    "family": "lstm_vqa",
    "args": {"embedding": 8, "hidden": 8},
    "cnn": CNN,
    "weights": "weights.safetensors",
    "vocabulary": "vocab.json",
    "labels": "answers.txt",
    "max_question_tokens": 5,
    "preprocess": {"resize": [64, 64]},
}


def write_folder(folder: Path, **change: Any) -> Path:
    """A model folder with an untrained model's weights."""
    folder.mkdir(exist_ok=True)
    manifest = {**MANIFEST, **change}
    (folder / "vocab.json").write_text(json.dumps(["<pad>", "<unk>", "?", "what", "color"]))
    (folder / "answers.txt").write_text("red\nblue\n")
    (folder / "mmcam.json").write_text(json.dumps({**manifest, "weights": None}))
    torch.manual_seed(0)
    state = load(folder).model.state_dict()
    save_file({k: v.contiguous().clone() for k, v in state.items()}, folder / "weights.safetensors")
    (folder / "mmcam.json").write_text(json.dumps(manifest))
    return folder


@pytest.mark.parametrize("family", ["lstm_vqa", "co_attention"])
def test_a_folder_is_sufficient(family: str, tmp_path: Path) -> None:
    model = load(write_folder(tmp_path / family, family=family))
    assert isinstance(model, AnswerClassifier)
    assert model.labels == ("red", "blue")
    assert model.encoder == "cnn"
    pixels = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    maps = mmcam.explain(model, pixels, mmcam.Answers("What color color color color?", ["blue"]))
    assert maps["blue"].cam.shape == (2, 2)
    assert maps["blue"].heatmap().shape == (50, 70)
    assert len(maps["blue"].words) == 5
    assert maps.text is not None
    assert maps.text["unread_words"] == 1


@pytest.mark.parametrize("name", ["alexnet", "vgg11", "resnet18", "mobilenet_v2"])
def test_the_cnns_of_the_papers_work(name: str, tmp_path: Path) -> None:
    cnn = {"family": "torchvision", "name": name}
    (tmp_path / "vocab.json").write_text(json.dumps(["<pad>", "<unk>", "?", "what"]))
    (tmp_path / "answers.txt").write_text("red\nblue\n")
    manifest = {**MANIFEST, "cnn": cnn, "weights": None, "preprocess": {"resize": [224, 224]}}
    (tmp_path / "mmcam.json").write_text(json.dumps(manifest))
    model = load(tmp_path)
    maps = mmcam.explain(model, np.zeros((64, 64, 3), np.uint8), mmcam.Answers("what?", top=2))
    assert len(maps) == 2
    assert maps[0].cam.ndim == 2


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"cnn": None}, ModelError, 'its "cnn"'),
        (
            {"cnn": {"family": "hf", "name": "poolformer"}},
            ModelError,
            "hf:poolformer has no default layer to split it after; choose",
        ),
        (
            {"cnn": {"family": "torchvision", "name": "r3d_18"}},
            ModelError,
            "torchvision:r3d_18 is a model of clips, and the cnn takes pictures; choose",
        ),
        ({"labels": None}, ModelError, 'its answers ("labels"'),
        ({"vocabulary": None}, ModelError, 'its "vocabulary"'),
        ({"max_question_tokens": "14"}, ModelError, "must be a number of words"),
        ({"args": {"embedding": 9, "hidden": 8}}, WeightsError, "of another shape"),
        ({"special": {"unknown": "[UNK]"}}, ModelError, r"no '[UNK]' (unknown)"),
    ],
)
def test_a_broken_folder_is_refused(tmp_path: Path, change: Any, error: Any, message: str) -> None:
    folder = write_folder(tmp_path / "vqa")
    (folder / "mmcam.json").write_text(json.dumps({**MANIFEST, **change}))
    with pytest.raises(error) as caught:
        load(folder)
    assert message in str(caught.value)
