"""Real VQA models on photos and drawings (marker `assets`)."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import mmcam
from mmcam.adapters.base.answerer import AnswerClassifier
from mmcam.adapters.base.preprocess import Preprocess
from mmcam.media import read_image

pytestmark = pytest.mark.assets

REFERENCE = [
    ("cat_dog.jpg", "what color is the dog ?", {"brown": 0.5743, "white": 0.1926, "tan": 0.1347}),
    ("cat_dog.jpg", "how many dogs are there ?", {"one": 0.7138}),
    ("cat_dog.jpg", "is there a dog ?", {"yes": 0.8412}),
    ("tabbycat_dog.jpg", "how many dogs are there ?", {"two": 0.5533}),
]
"""The model's answers, by its README."""


@pytest.fixture(scope="module")
def vqa(assets: Path) -> AnswerClassifier:
    model = mmcam.load(assets / "image/vqa_flickr8k")
    assert isinstance(model, AnswerClassifier)
    return model


def count_correct(model: AnswerClassifier, pairs: list[tuple[Path, str, str]]) -> int:
    """The number of questions that a model answers correctly; one batch per picture."""
    by_picture: dict[Path, list[tuple[str, str]]] = {}
    for path, question, answer in pairs:
        by_picture.setdefault(path, []).append((question, answer))
    correct = 0
    with torch.no_grad():
        for path, questions in by_picture.items():
            sample = read_image(path)
            samples = [replace(sample, text=question) for question, _ in questions]
            output = model.forward(model.prepare(samples, mmcam.Answers()))
            best = model.logits(output).argmax(1).tolist()
            correct += sum(model.label(i) == a for i, (_, a) in zip(best, questions, strict=True))
    return correct


@pytest.mark.parametrize(("photo", "question", "answers"), REFERENCE)
def test_answers_equal_those_of_the_readme(
    vqa: AnswerClassifier, assets: Path, photo: str, question: str, answers: dict[str, float]
) -> None:
    task = mmcam.Answers(question, top=len(answers))
    maps = mmcam.explain(vqa, assets / "image/photos" / photo, task)
    assert [e.label for e in maps] == list(answers)
    assert [e.probability for e in maps] == pytest.approx(list(answers.values()), abs=1e-3)


def test_accuracy_on_the_test_pairs(vqa: AnswerClassifier, assets: Path) -> None:
    folder = assets / "image/flickr8k_test"
    rows = [json.loads(line) for line in (folder / "vqa.jsonl").read_text().splitlines()]
    pairs = [(folder / "images" / r["image"], r["question"], r["answer"]) for r in rows]
    assert (count_correct(vqa, pairs), len(pairs)) == (867, 1251)


@pytest.mark.parametrize(
    ("question", "answers"),
    [
        ("what color is the dog ?", ["brown", "white", "black"]),
        ("what is sitting ?", ["dog", "man", "boy"]),
        ("how many dogs are there ?", ["one", "two", "three"]),
    ],
)
def test_forced_answers_have_maps_of_their_own(
    vqa: AnswerClassifier, assets: Path, question: str, answers: list[str]
) -> None:
    photo = assets / "image/photos/cat_dog.jpg"
    maps = mmcam.explain(vqa, photo, mmcam.Answers(question, answers), method="gradcam-signed")
    assert [e.label for e in maps] == answers
    flat = torch.stack([e.cam.flatten() for e in maps])
    correlation = torch.corrcoef(flat)
    assert float(correlation.triu(1).max()) < 0.995
    # An answer's map does not depend on the other answers.
    alone = mmcam.explain(
        vqa, photo, mmcam.Answers(question, answers[1:2]), method="gradcam-signed"
    )
    torch.testing.assert_close(alone[0].cam, maps[1].cam, rtol=1e-3, atol=1e-5)


class EasyVqa(nn.Module):
    """The network of easy-VQA, as its authors trained it: pictures and a bag of words."""

    def __init__(self) -> None:
        super().__init__()
        self.c1, self.c2, self.c3 = (
            nn.Conv2d(i, o, 3, padding=1) for i, o in ((3, 8), (8, 16), (16, 32))
        )
        self.img, self.q1 = nn.Linear(2048, 32), nn.Linear(27, 32)
        self.q2, self.q3, self.f1 = (nn.Linear(32, 32) for _ in range(3))
        self.f2 = nn.Linear(32, 13)

    def forward(self, pixels: Tensor, bag: Tensor) -> Tensor:
        maps = pixels
        for conv in (self.c1, self.c2, self.c3):
            maps = torch.nn.functional.max_pool2d(conv(maps), 2)
        picture = self.img(maps.permute(0, 2, 3, 1).flatten(1)).tanh()
        question = self.q3(self.q2(self.q1(bag).tanh()).tanh()).tanh()
        logits: Tensor = self.f2(self.f1(picture * question).tanh())
        return logits


WORDS = """
is shape the a image there not what does contain in present color no triangle rectangle circle teal
gray brown blue green yellow red black of
""".split()  # noqa: SIM905 - a list of single words is longer to read

ANSWERS = """
green triangle no rectangle gray red blue yes circle black yellow brown teal
""".split()  # noqa: SIM905 - a list of single words is longer to read


@pytest.fixture(scope="module")
def easy(assets: Path) -> Any:
    net = EasyVqa()
    net.load_state_dict(load_file(assets / "image/easy_vqa/weights.safetensors"))

    def bag(question: str) -> Tensor:
        words = re.sub(r"[^\w\s]", "", question.lower()).split()
        return torch.tensor([0.0, *(float(word in words) for word in WORDS)])

    preprocess = Preprocess(mean=(0.5,) * 3, std=(1.0,) * 3)
    return mmcam.wrap(net, preprocess, layer="c3", labels=ANSWERS, question=bag, name="easy-VQA")


def test_a_wrapped_network_has_its_published_accuracy(easy: AnswerClassifier, assets: Path) -> None:
    folder = assets / "image/easy_vqa"
    rows = json.loads((folder / "questions.json").read_text())
    pairs = [(folder / "images" / f"{image}.png", q, a) for q, a, image in rows]
    assert count_correct(easy, pairs) / len(pairs) == pytest.approx(0.993, abs=0.005)


def test_its_colour_map_lies_on_the_shape(easy: AnswerClassifier, assets: Path) -> None:
    """Each picture has one shape, whose pixels differ from the background."""
    folder = assets / "image/easy_vqa"
    rows = json.loads((folder / "questions.json").read_text())
    colours = [row for row in rows if row[0] == "what is the color of the shape?"][:30]
    inside, area = 0.0, 0.0
    for question, answer, image in colours:
        sample = read_image(folder / "images" / f"{image}.png")
        maps = mmcam.explain(easy, sample, mmcam.Answers(question, [answer]), method="hirescam")
        background = sample.pixels[0, 0].astype(int)
        shape = abs(sample.pixels.astype(int) - background).sum(2) > 60
        heat = maps[0].heatmap()
        inside += float(heat[shape].sum() / max(heat.sum(), 1e-9)) / len(colours)
        area += float(shape.mean()) / len(colours)
    assert len(colours) == 30
    assert inside > 2 * area
