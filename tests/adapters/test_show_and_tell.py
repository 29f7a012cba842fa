"""Captioners from model folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import mmcam
from mmcam.adapters.base.recurrent_captioner import RecurrentCaptioner
from mmcam.errors import ModelError, WeightsError
from mmcam.models.registry import load

WORDS = ["<pad>", "<start>", "<end>", "<unk>", "a", "dog", "runs"]

CNN = {"family": "torchvision", "name": "resnet18", "weights": "cnn.safetensors"}

SQUEEZENET = {"family": "torchvision", "name": "squeezenet1_1"}

MANIFEST: dict[str, Any] = {
    "schema_version": 1,
    "family": "show_and_tell",
    "args": {"embedding": 8, "hidden": 8},
    "cnn": CNN,
    "weights": "weights.safetensors",
    "vocabulary": "vocab.json",
    "preprocess": {"resize": [64, 64]},
}


def write_folder(folder: Path, **change: Any) -> Path:
    """A model folder with an untrained CNN and a decoder's untrained weights plus 1."""
    folder.mkdir(exist_ok=True)
    manifest = {**MANIFEST, **change}
    (folder / "vocab.json").write_text(json.dumps(WORDS))
    bare = {**manifest, "weights": None, "cnn": {**CNN, "weights": None}}
    (folder / "mmcam.json").write_text(json.dumps(bare))
    torch.manual_seed(0)
    state = load(folder).model.state_dict()
    decoder = {k: v for k, v in state.items() if not k.startswith(("cnn.", "pool."))}
    save_file(
        {k: v.contiguous().clone() + 1 for k, v in decoder.items()}, folder / "weights.safetensors"
    )
    torch.manual_seed(1)
    import torchvision

    save_file(torchvision.models.resnet18().state_dict(), folder / "cnn.safetensors")
    (folder / "mmcam.json").write_text(json.dumps(manifest))
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("models") / "captioner")


def copy_folder(folder: Path, tmp_path: Path, **change: Any) -> Path:
    """A copy of the folder with changed values in its manifest."""
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "mmcam.json").write_text(json.dumps({**MANIFEST, **change}))
    return tmp_path


@pytest.mark.parametrize("family", ["show_and_tell", "show_attend_tell"])
def test_a_folder_is_sufficient(family: str, tmp_path: Path) -> None:
    model = load(write_folder(tmp_path / family, family=family))
    assert isinstance(model, RecurrentCaptioner)
    assert model.layers == ("cnn",)
    assert model.encoder == "cnn"
    assert model.weights is not None
    assert model.weights.source.endswith("weights.safetensors")
    pixels = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    methods = ["gradcam", "attention"] if family == "show_attend_tell" else ["gradcam"]
    maps = mmcam.explain(model, pixels, mmcam.Caption("a dog runs"), method=methods)
    assert maps.select("dog", method="gradcam")[0].cam.shape == (2, 2)
    assert maps.select("dog", method="gradcam")[0].heatmap().shape == (50, 70)
    deeper = mmcam.explain(model, pixels, mmcam.Caption("a dog"), layers="cnn.layer3")
    assert deeper["dog"].cam.shape == (4, 4)


def test_the_cnn_has_its_weights_and_the_decoder_its_own(folder: Path) -> None:
    from mmcam.adapters.base.weights import read_state

    state = load(folder).model.state_dict()
    cnn, decoder = (read_state(folder / f"{name}.safetensors") for name in ("cnn", "weights"))
    assert torch.equal(state["cnn.layer2.0.conv1.weight"], cnn["layer2.0.conv1.weight"])
    assert all(torch.equal(state[key], value) for key, value in decoder.items())


def test_weights_may_be_named_part_by_part(folder: Path, tmp_path: Path) -> None:
    parts = {"cnn": "cnn.safetensors", "decoder": "weights.safetensors"}
    cnn = {key: value for key, value in CNN.items() if key != "weights"}
    model = load(copy_folder(folder, tmp_path, weights=parts, cnn=cnn))
    assert all(
        torch.equal(a, b)
        for a, b in zip(
            model.model.state_dict().values(), load(folder).model.state_dict().values(), strict=True
        )
    )


def test_one_file_may_hold_the_cnn_too(folder: Path, tmp_path: Path) -> None:
    model = load(folder).model
    state = {key: value.contiguous().clone() for key, value in model.state_dict().items()}
    state["cnn.conv1.weight"] += 1
    save_file(state, tmp_path / "all.safetensors")
    loaded = load(folder, weights=tmp_path / "all.safetensors").model.state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in state.items())


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"cnn": None}, ModelError, 'names its "cnn"'),
        ({"vocabulary": None}, ModelError, '"vocabulary"'),
        ({"cnn": {"family": "show_and_tell"}}, ModelError, '"cnn"'),
        ({"cnn": {"name": "resnet18"}}, ModelError, "names no family"),
        ({"cnn": "resnet18"}, ModelError, "must be the recipe"),
        ({"cnn": {**CNN, "weights": "no.safetensors"}}, ModelError, "no such file"),
        ({"cnn": {**CNN, "weights": "/etc/passwd"}}, ModelError, "outside the folder"),
        ({"cnn": SQUEEZENET}, ModelError, "no linear layer"),
        ({"args": {"hidden": 9, "embedding": 8}}, WeightsError, "of another shape"),
        ({"args": {"heads": 9}}, ModelError, 'fix "args"'),
        ({"weights": {"a": "cnn.safetensors", "b": "weights.safetensors"}}, ModelError, "names 2"),
        ({"special": {"end": "<stop>"}}, ModelError, "no '<stop>'"),
    ],
)  # fmt: skip
def test_a_broken_folder_is_refused(
    folder: Path, tmp_path: Path, change: Any, error: Any, message: str
) -> None:
    with pytest.raises(error) as caught:
        load(copy_folder(folder, tmp_path, **change))
    assert message in str(caught.value)


def test_a_captioner_cannot_be_loaded_by_name_alone() -> None:
    with pytest.raises(ModelError, match="needs a model folder"):
        load("show_and_tell")
