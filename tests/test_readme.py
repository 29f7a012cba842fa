"""What the README and the guides say is so."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
import transformers
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from typer.testing import CliRunner

import mmcam
from mmcam import METHODS
from mmcam.adapters.networks.c3d import C3D
from mmcam.adapters.pytorchvideo import kinetics_names
from mmcam.cli import app
from mmcam.media import ClipWriter
from mmcam.models import FAMILIES
from tests.adapters.tiny_generative import BLIP_VQA, case_of, folder
from tests.models.captioners import WORDS, CnnLstm

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_its_row(name: str) -> None:
    row = METHODS[name]
    assert f"| `{name}` | {row.summary} | {row.source} |" in README


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_has_its_row(name: str) -> None:
    row = FAMILIES[name]
    assert f"| `{name}` | `{row.example}` | {row.summary} |" in README


def test_its_pictures_and_files_are_there() -> None:
    pictures = re.findall(r"\]\(([^)]+)\)", README)
    assert pictures
    scripts = re.findall(r"python (examples/\S+\.py)", README)
    for path in [*pictures, *scripts]:
        assert (ROOT / path).is_file(), path


GUIDES = [ROOT / f"examples/guides/{name}.md" for name in ("your_own_model", "write_an_adapter")]
"""The third one, of other tools, is run by test_peers."""

BLOCKS = re.findall(r"```\n(.*?)```", README, re.DOTALL)
COMMANDS = [line for block in BLOCKS for line in block.splitlines() if line.startswith("mmcam ")]
SNIPPETS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
PRETRAINED = {
    "hf:Salesforce/blip-image-captioning-base": "blip",
    "hf:Salesforce/blip-vqa-base": "blip-vqa",
    "my_captioner/": "blip",
}
"""Models that the README names and nobody has here: tiny ones of the same type stand for them."""


class OwnNetwork(nn.Module):
    """The network of a reader: four stages, 1,000 classes."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 4, 6, 8, 10)
        for number, (before, after) in enumerate(pairwise(widths), 1):
            stage = nn.Sequential(nn.Conv2d(before, after, 3, 2, 1), nn.ReLU())
            self.add_module(f"layer{number}", stage)
        self.classes = nn.Linear(10, 1000)

    def forward(self, x: Tensor) -> Tensor:
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)
        return self.classes(x.mean((2, 3)))


@pytest.fixture(scope="module")
def tiny_folders() -> dict[str, str]:
    """Hub names and folders of the README -> small models of the same type."""
    folders = {"blip": folder(case_of("blip")), "blip-vqa": folder(BLIP_VQA)}
    return {name: f"hf:{folders[tiny]}" for name, tiny in PRETRAINED.items()}


@pytest.fixture
def reader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_folders: dict[str, str]
) -> dict[str, Any]:
    """A reader's working folder and names; pretrained models are untrained ones of the family."""
    monkeypatch.chdir(tmp_path)
    load = mmcam.load

    def load_untrained(model: str, *, weights: Any = None, **options: Any) -> Any:
        name = tiny_folders.get(str(model), str(model))
        is_pretrained = weights is None and name.partition(":")[0] in FAMILIES
        weights = "random" if is_pretrained and not name.startswith("hf:") else weights
        model: Any = load(name, weights=weights, **options)
        if name.startswith("torchvision:"):
            model.labels = torchvision.models.ResNet50_Weights.DEFAULT.meta["categories"]
        if name.startswith("pytorchvideo:"):
            model.labels = kinetics_names()
        return model

    monkeypatch.setattr(mmcam, "load", load_untrained)
    monkeypatch.setattr("mmcam.models.registry.load", load_untrained)
    noise = np.random.default_rng(0).integers(0, 256, (6, 160, 200, 3), dtype=np.uint8)
    pictures = ("photo.jpg", "a.jpg", "b.jpg", "val/tabby/one.jpg", "val/boxer/two.jpg")
    photo = "COCO/val2017/000000000001.jpg"
    for name, pixels in zip((*pictures, photo), noise, strict=True):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(name)
    with ClipWriter(Path("clip.mp4"), 30, 80, 96) as writer:
        for shade in range(20):
            writer.write(np.full((80, 96, 3), 10 * shade, np.uint8))
    Path("clips").mkdir()
    shutil.copy("clip.mp4", "clips/clip.mp4")
    Path("val.csv").write_text("clip.mp4,3\n")
    for name in ("data/captioner", "data/vqa", "data/action"):
        shutil.copytree(ROOT / name, name)
    shutil.copytree(ROOT / "data/vqa", "my_vqa")
    Path("sports1m.txt").write_text("".join(f"sport {i}\n" for i in range(487)))
    annotations = {
        "images": [{"id": 1, "file_name": "000000000001.jpg", "height": 160, "width": 200}],
        "categories": [{"id": 1, "name": "dog"}],
    }
    box = {"bbox": [10, 10, 90, 80], "segmentation": [[10, 10, 100, 10, 100, 90, 10, 90]]}
    instances = [{"image_id": 1, "category_id": 1, "iscrowd": 0, **box}]
    captions = [{"image_id": 1, "caption": "a brown dog runs"}]
    Path("COCO/annotations").mkdir()
    for kind, rows in (("instances", instances), ("captions", captions)):
        path = Path(f"COCO/annotations/{kind}_val2017.json")
        path.write_text(json.dumps({**annotations, "annotations": rows}))
    transform = torchvision.transforms.Compose(
        [torchvision.transforms.Resize((64, 64)), torchvision.transforms.ToTensor()]
    )
    return {
        "my_network": OwnNetwork(),
        "my_transform": transform,
        "images": torch.rand(4, 3, 64, 64),
        "labels": torch.tensor([3, 1, 4, 1]),
    }


@pytest.fixture
def own_models(reader: dict[str, Any]) -> dict[str, Any]:
    """The names of the guides: data, and networks that nobody wrote for mmcam."""
    blip = folder(case_of("blip"))
    torch.manual_seed(0)
    return reader | {
        "clips": reader["images"][:, :, None].expand(-1, -1, 2, -1, -1),
        "grey_network": network_of(1),
        "five_band_network": network_of(5),
        "loader": DataLoader(TensorDataset(torch.rand(5, 1, 48, 64)), batch_size=2),
        "my_blip": transformers.AutoModelForImageTextToText.from_pretrained(blip),
        "my_processor": transformers.AutoProcessor.from_pretrained(blip),
        "my_captioner": CnnLstm(),
        "words": WORDS,
        "my_vqa": AnswerNetwork(),
        "tokens_of": lambda question: torch.tensor([len(word) for word in question.split()]),
    }


def network_of(channels: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(channels, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    )


class AnswerNetwork(nn.Module):
    """A network of a picture and a question as numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 8, 8)
        self.embed = nn.Embedding(20, 6)
        self.head = nn.Linear(6, 2)

    def forward(self, pixels: Tensor, question: Tensor) -> Tensor:
        maps = self.conv(pixels).relu()
        return self.head((maps.mean((2, 3)) * self.embed(question).mean(1)).tanh())


def test_it_has_commands_and_snippets() -> None:
    assert len(COMMANDS) >= 15
    assert len(SNIPPETS) >= 5


def test_its_commands_run(reader: dict[str, Any]) -> None:
    """All of them, one after the other, as they stand; only pretrained weights are left out."""
    for command in COMMANDS:
        words = shlex.split(command)[1:]
        if "c3d.pth" in words:
            torch.save(C3D(487).state_dict(), "c3d.pth")
        if words[0] == "page":
            for number in (1, 2):
                shutil.copytree("mmcam-out", f"run-{number}", dirs_exist_ok=True)
        ended = CliRunner().invoke(app, words)
        assert ended.exit_code == 0, (command, ended.output, ended.exception)
        for path in (words[at + 1] for at, word in enumerate(words) if word == "--out"):
            assert Path(path).exists(), command


def test_its_snippets_run(reader: dict[str, Any]) -> None:
    """All of them in one program, from the top down."""
    for snippet in SNIPPETS:
        exec(compile(snippet, "README.md", "exec"), reader)
    assert Path("out/explanation.json").is_file()
    assert reader["summary"]["failed"] == 0


@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: path.stem)
def test_the_snippets_of_a_guide_run(own_models: dict[str, Any], guide: Path) -> None:
    """All of them in one program, from the top down."""
    snippets = re.findall(r"```python\n(.*?)```", guide.read_text(encoding="utf-8"), re.DOTALL)
    assert snippets
    assert f"examples/guides/{guide.name}" in README
    for snippet in snippets:
        assert len(snippet.splitlines()) <= (15 if guide.stem == "your_own_model" else 60)
        exec(compile(snippet, str(guide), "exec"), own_models)
