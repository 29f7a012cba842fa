"""A VQA network that mmcam has never seen: its answers, the words of the question, and errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jaxtyping
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchvision.transforms.functional import to_tensor

import mmcam
from mmcam.errors import LabelError, LayerError, ModelError
from tests.snapshots import assert_as_found, snapshot

WORDS = {word: i for i, word in enumerate(("", "what", "is", "the", "ball", "dog", "colour"), 0)}
ANSWERS = ["red", "green", "two", "yellow and red"]
QUESTION = "what colour is the ball"


class GatedPooling(nn.Module):
    """The sum of the embedded words gates the channels of a map, whose cells it also attends to."""

    def __init__(self) -> None:
        super().__init__()
        self.cnn = nn.Sequential(nn.Conv2d(3, 6, 3, stride=2), nn.ReLU(), nn.Conv2d(6, 8, 3))
        self.embed = nn.Embedding(len(WORDS), 8, padding_idx=0)
        self.drop = nn.Dropout(0.5)
        self.out = nn.Linear(8, len(ANSWERS))

    def forward(self, pixels: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        maps = self.cnn(pixels)
        gate = self.embed(tokens).sum(1)
        scores = torch.einsum("nchw,nc->nhw", maps, gate)
        attention = scores.flatten(1).softmax(1).view_as(scores)
        pooled = (maps * attention[:, None]).sum((2, 3)) * gate.tanh()
        return self.out(self.drop(pooled)), attention[:, None]


def tokens_of(question: str) -> Tensor:
    return torch.tensor([WORDS[word] for word in question.split()])


def words_of(question: str) -> list[tuple[str, int, int]]:
    return [(word, i, i + 1) for i, word in enumerate(question.split())]


def picture(seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(0, 256, (17, 21, 3), dtype=np.uint8)


def wrapped_net(net: nn.Module, **options: Any) -> Any:
    given = {"encode_question": tokens_of, "answers": ANSWERS, "layer": "cnn", **options}
    return mmcam.wrap_vqa(net, to_tensor, **given)


def test_answers_agree_with_gradients_by_hand() -> None:
    net = GatedPooling().eval()
    task = mmcam.Answers(QUESTION, ["yellow and red", "two"])
    maps = mmcam.explain(wrapped_net(net), picture(), task, method="gradcam-signed")
    feature_maps: list[Tensor] = []
    net.cnn.register_forward_hook(lambda *call: feature_maps.append(call[-1]))
    logits, _ = net(to_tensor(picture())[None], tokens_of(QUESTION)[None])
    for answer in ("two", "yellow and red"):
        score = logits[0, ANSWERS.index(answer)]
        (gradient,) = torch.autograd.grad(score, feature_maps, retain_graph=True)
        expected = (gradient.mean((2, 3), keepdim=True) * feature_maps[0]).sum(1)[0]
        torch.testing.assert_close(maps[answer].cam, expected.detach(), rtol=1e-4, atol=1e-7)
        assert maps[answer].score == pytest.approx(float(score.detach()), rel=1e-5)
        assert maps[answer].words == ()


def test_words_of_the_question_are_attributed() -> None:
    net = GatedPooling().eval()
    model = wrapped_net(net, words=words_of, word_embedding="embed")
    (explanation,) = mmcam.explain(model, picture(), mmcam.Answers(QUESTION, "green"))
    embedded = net.embed(tokens_of(QUESTION)[None]).detach().requires_grad_(True)
    net.embed.register_forward_hook(lambda *call: embedded)
    score = net(to_tensor(picture())[None], tokens_of(QUESTION)[None])[0][0, 1]
    (gradient,) = torch.autograd.grad(score, embedded)
    expected = (gradient * embedded).sum(2)[0].tolist()
    assert [word for word, _ in explanation.words] == QUESTION.split()
    assert [value for _, value in explanation.words] == pytest.approx(expected, rel=1e-4)


def test_attention_of_a_batch_of_questions_and_a_model_in_training() -> None:
    net = GatedPooling().train()
    before = snapshot(net)
    model = wrapped_net(net, attention=True)
    questions = [QUESTION, "what is the dog"]
    tasks = [mmcam.Answers(question, "red") for question in questions]
    results = mmcam.explain(model, [picture(), picture(1)], tasks, method="attention")
    assert_as_found(net, before)
    net.eval()
    for seed, (maps, question) in enumerate(zip(results, questions, strict=True)):
        _, attention = net(to_tensor(picture(seed))[None], tokens_of(question)[None])
        torch.testing.assert_close(maps["red"].cam, attention[0, 0].detach())


class MeanOfWords(GatedPooling):
    """Its logits change with every further token, the padding included."""

    def forward(self, pixels: Tensor, *question: Tensor) -> tuple[Tensor, Tensor]:
        words = torch.cat([part.view(len(pixels), -1) for part in question], 1).float().cos()
        gate = self.out.weight.mean() + words.mean(1)
        maps = self.cnn(pixels) * gate[:, None, None, None]
        return self.out(maps.mean((2, 3)).cos()), maps[:, None, 0]


@pytest.mark.parametrize("door", ["wrap", "wrap_vqa"])
@pytest.mark.parametrize(
    "encode",
    [
        tokens_of,
        lambda question: tokens_of(question)[:, None].expand(-1, 2),
        lambda question: tuple(tokens_of(question)),
    ],
    ids=["vector", "matrix", "tuple"],
)
def test_questions_of_different_lengths_do_not_depend_on_each_other(
    door: str, encode: Callable[[str], Any]
) -> None:
    net = MeanOfWords()
    model = (
        mmcam.wrap(net, to_tensor, question=encode, labels=ANSWERS, layer="cnn")
        if door == "wrap"
        else wrapped_net(net, encode_question=encode)
    )
    questions = [QUESTION, "what is the dog", "the ball", "what is the ball"]
    samples = [mmcam.Sample(pixels=picture(i), text=text) for i, text in enumerate(questions)]
    task = mmcam.Answers(answers=["red", "two"])
    batch = mmcam.explain(model, samples, task)
    for together, sample in zip(batch, samples, strict=True):
        for one, other in zip(together, mmcam.explain(model, sample, task), strict=True):
            assert one.score == pytest.approx(other.score, rel=1e-5)
            torch.testing.assert_close(one.cam, other.cam, rtol=1e-4, atol=1e-6)


def test_wrap_with_a_question_is_the_same() -> None:
    net = GatedPooling()
    task = mmcam.Answers(QUESTION, top=2)
    plain = mmcam.wrap(net, to_tensor, question=tokens_of, labels=ANSWERS, layer="cnn")
    first, second = (mmcam.explain(each, picture(), task) for each in (plain, wrapped_net(net)))
    assert first.text == second.text
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one.cam, other.cam)


@pytest.mark.parametrize(
    "answers", [[1, 2, 3, 4], np.arange(1, 5), torch.arange(1, 5), {3: 4, 1: 2, 0: 1, 2: 3}]
)
def test_numbers_are_answers_too(answers: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    model = wrapped_net(GatedPooling(), answers=answers)
    assert model.labels == ("1", "2", "3", "4")
    task = mmcam.Answers(QUESTION, answers=np.array([2, 4]))
    scores = {e.label: e.score for e in mmcam.explain(model, picture(), task)}
    named = mmcam.explain(wrapped_net(model.model), picture(), mmcam.Answers(QUESTION, top=4))
    assert scores == {
        "2": pytest.approx(named["green"].score, rel=1e-5),
        "4": pytest.approx(named["yellow and red"].score, rel=1e-5),
    }


def test_a_word_embedding_may_be_given_as_a_module() -> None:
    net = GatedPooling()
    assert wrapped_net(net, words=words_of, word_embedding=net.embed).word_embedding == "embed"
    with pytest.raises(LayerError, match="the Linear given as a layer is not a part of Gated"):
        wrapped_net(net, words=words_of, word_embedding=nn.Linear(1, 1))


def test_unknown_words_and_answers_are_refused() -> None:
    model = wrapped_net(GatedPooling())
    with pytest.raises(LabelError, match=r"'is it red' cannot be encoded \(KeyError: 'it'\)"):
        mmcam.explain(model, picture(), mmcam.Answers("is it red"))
    with pytest.raises(LabelError, match=r"has no label 'rad'; nearest: red"):
        mmcam.explain(model, picture(), mmcam.Answers(QUESTION, "rad"))
    with pytest.raises(ModelError, match=r"became a str; let the function"):
        mmcam.explain(
            wrapped_net(GatedPooling(), encode_question=str.upper), picture(), mmcam.Answers("a")
        )


@pytest.mark.parametrize("words", [[("what", 1, 1)], [("a", 2, 3), ("b", 0, 1)], [("a", 0)]])
def test_wrong_places_of_words_are_refused(words: Any) -> None:
    model = wrapped_net(GatedPooling(), words=lambda text: words, word_embedding="embed")
    with pytest.raises(ModelError, match=r"words gives .*let it return \(word, start, stop\)"):
        mmcam.explain(model, picture(), mmcam.Answers(QUESTION))


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"answers": []}, r"with answers=\[\]; give the names"),
        ({"answers": "red"}, r"with answers='red'; give the names"),
        ({"words": words_of}, "with words but without word_embedding"),
        ({"word_embedding": "embed"}, "with word_embedding but without words"),
        (
            {"words": words_of, "word_embedding": "embedding"},
            r"GatedPooling has no layer 'embedding'; nearest: embed",
        ),
    ],
)
def test_arguments_that_do_not_go_together_are_refused(
    options: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ModelError, match=reason):
        wrapped_net(GatedPooling(), **options)
