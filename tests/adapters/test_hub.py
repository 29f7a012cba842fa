"""Published weights, downloaded: pytest -m hub."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import mmcam
from mmcam.adapters.base.answerer import AnswerClassifier
from mmcam.adapters.base.classifier import Classifier
from mmcam.adapters.transformers.generation import GenerativeAdapter
from mmcam.models.registry import load

pytestmark = pytest.mark.hub


@pytest.mark.parametrize(
    "name", ["hf:microsoft/resnet-50", "torchvision:resnet18", "timm:resnet18.a1_in1k"]
)
def test_published_classifiers_find_a_cat_and_its_place(name: str, assets: Path) -> None:
    """The Grad-CAM authors' own picture; the cat's box was measured on it."""
    picture = np.asarray(Image.open(assets / "image/photos/cat_dog.jpg").convert("RGB"))
    adapter = load(name)
    assert adapter.weights is not None
    explanation = mmcam.explain(adapter, picture, mmcam.Classes(["tiger cat"]))["tiger cat"]
    x, y, _ = explanation.peak()
    assert 128 <= x <= 571
    assert 257 <= y <= 480


def test_published_x3d_has_the_classes_of_kinetics() -> None:
    adapter = load("pytorchvideo:x3d_xs")
    assert isinstance(adapter, Classifier)
    clip = np.random.default_rng(0).integers(0, 256, (48, 64, 80, 3), dtype=np.uint8)
    (explanation,) = mmcam.explain(adapter, clip, mmcam.Actions([399]))
    assert explanation.cam.shape[0] % 4 == 0
    assert explanation.cam.any()


@pytest.mark.parametrize(
    "name",
    [
        "hf:Salesforce/blip-image-captioning-base",
        "hf:nlpconnect/vit-gpt2-image-captioning",
        "hf:microsoft/git-base-coco",
        "hf:HuggingFaceTB/SmolVLM-256M-Instruct",
    ],
)
def test_published_captioners_mention_a_cat_or_a_dog(name: str, assets: Path) -> None:
    """On the Grad-CAM authors' own picture; generation ends by itself."""
    picture = np.asarray(Image.open(assets / "image/photos/cat_dog.jpg").convert("RGB"))
    adapter = load(name)
    assert isinstance(adapter, GenerativeAdapter)
    generated = mmcam.explain(adapter, picture, mmcam.Caption(max_new_tokens=60))
    words = {explanation.label.lower() for explanation in generated}
    assert words & {"cat", "kitten", "dog", "puppy"}
    forced = mmcam.explain(adapter, picture, mmcam.Caption("a dog and a cat", words=["dog", "cat"]))
    for word in ("dog", "cat"):
        assert forced[word].heatmap().shape == picture.shape[:2]
        assert forced[word].target.log_prob is not None
    assert not np.allclose(forced["dog"].heatmap(), forced["cat"].heatmap(), equal_nan=True)


@pytest.mark.parametrize(
    "name",
    [
        "hf:dandelin/vilt-b32-finetuned-vqa",
        "hf:Salesforce/blip-vqa-base",
        "hf:microsoft/git-base-textvqa",
    ],
)
def test_published_vqa_models_find_a_cat_and_a_dog(name: str, assets: Path) -> None:
    """On the Grad-CAM authors' own picture; the cat's box was measured on it."""
    picture = np.asarray(Image.open(assets / "image/photos/cat_dog.jpg").convert("RGB"))
    adapter = load(name)
    assert isinstance(adapter, (AnswerClassifier, GenerativeAdapter))
    question = "What animals are in the picture?"
    generated = mmcam.explain(adapter, picture, mmcam.Answers(question))
    assert generated[0].label
    task = mmcam.Answers(question, ["cat", "dog", "airplane"], contrast=("cat", "dog"))
    forced = mmcam.explain(adapter, picture, task)
    assert forced["airplane"].score < max(forced["cat"].score, forced["dog"].score)
    assert [text for text, _ in forced["cat"].words] == [*question[:-1].split(), "?"]
    for explanation in forced:
        assert explanation.heatmap().shape == picture.shape[:2]
    assert not np.allclose(forced["dog"].heatmap(), forced["cat"].heatmap(), equal_nan=True)
