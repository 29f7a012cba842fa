"""VQA models: scores, contrasts, the words of the question, and both gradient strategies."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import mmcam
from mmcam.adapters.base.answerer import AnswerClassifier
from mmcam.adapters.base.vocabulary import QuestionTokenizer
from mmcam.engine.pictures import explain_samples
from mmcam.errors import LabelError, ModelError
from mmcam.methods.plan import Plan
from tests.adapters.tiny_answerers import ANSWERS, WORDS, answerer

KINDS = ("lstm_vqa", "co_attention")
QUESTION = "What color is the dog?"


def picture(seed: int = 0, text: str = "") -> mmcam.Sample:
    pixels = np.random.default_rng(seed).integers(0, 256, (16, 20, 3), dtype=np.uint8)
    return mmcam.Sample(pixels=pixels, text=text)


def logits_of(model: AnswerClassifier, sample: mmcam.Sample, question: str) -> Tensor:
    """The logits of the model's own forward, without the adapter."""
    tokens = torch.tensor([[WORDS.index(word) for word in question.split()]])
    pixels = model.prepare([sample], mmcam.Answers(question)).pixels
    with torch.no_grad():
        output = model.model(pixels, tokens, torch.tensor([tokens.shape[1]]))
    return (output[0] if isinstance(output, tuple) else output)[0]


@pytest.mark.parametrize("kind", KINDS)
def test_forced_answers_have_their_logits_and_probabilities(kind: str) -> None:
    model = answerer(kind)
    logits = logits_of(model, picture(), "what color is the dog ?")
    task = mmcam.Answers(QUESTION, ["yellow", "RED", "yellow and red"], contrast=("red", "no"))
    maps = mmcam.explain(model, picture(), task)
    assert [(e.label, e.target.kind) for e in maps] == [
        ("yellow", "answer"),
        ("red", "answer"),
        ("yellow and red", "answer"),
        ("red rather than no", "contrast"),
    ]
    for explanation, index in zip(maps, (1, 0, 3), strict=False):
        assert explanation.score == pytest.approx(float(logits[index]), abs=1e-5)
        assert explanation.probability == pytest.approx(float(logits.softmax(0)[index]), abs=1e-6)
    assert maps[3].score == pytest.approx(float(logits[0] - logits[4]), abs=1e-5)
    assert maps[3].probability is None


@pytest.mark.parametrize("kind", KINDS)
def test_the_models_own_first_answers(kind: str) -> None:
    model = answerer(kind)
    maps = mmcam.explain(model, picture(), mmcam.Answers(QUESTION, top=5))
    logits = logits_of(model, picture(), "what color is the dog ?")
    assert [e.label for e in maps] == [ANSWERS[i] for i in logits.argsort(descending=True)]
    assert maps.text is not None
    assert [answer["answer"] for answer in maps.text["top"]] == [e.label for e in maps]
    assert sum(answer["probability"] for answer in maps.text["top"]) == pytest.approx(1, abs=1e-5)


def test_a_contrast_is_the_difference_of_two_gradients() -> None:
    task = mmcam.Answers(QUESTION, ["red", "no"], contrast=("red", "no"))
    maps = mmcam.explain(answerer(), picture(), task, method="gradcam-signed")
    red, no, contrast = (e.cam for e in maps)
    torch.testing.assert_close(contrast, red - no, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("score", ["logit", "log-prob", "mean-contrast"])
def test_a_contrast_is_that_of_the_score(score: str) -> None:
    task = mmcam.Answers(QUESTION, ["red", "no"], contrast=("red", "no"), score=score)
    red, no, contrast = mmcam.explain(answerer(), picture(), task, method="gradcam-signed")
    assert contrast.score == pytest.approx(red.score - no.score, rel=1e-5)
    torch.testing.assert_close(contrast.cam, red.cam - no.cam, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_strategies_and_batch_sizes_give_the_same(kind: str) -> None:
    samples = [
        picture(0, "what color is the dog ?"),
        picture(1, "how many dogs ?"),
        picture(2, "the dog"),
    ]
    plan = Plan.of(["gradcam", "layercam"], False)
    task = mmcam.Answers(None, list(ANSWERS), contrast=("red", "no"))
    results = {
        strategy: explain_samples(answerer(kind, gradient_strategy=strategy), samples, task, plan)
        for strategy in ("loop", "batched")
    }
    alone = [explain_samples(answerer(kind), [sample], task, plan)[0] for sample in samples]
    for results_of in (results["batched"], alone):
        for expected, result in zip(results["loop"], results_of, strict=True):
            assert len(expected.explanations) == 12
            for a, b in zip(expected.explanations, result.explanations, strict=True):
                assert (a.label, a.method) == (b.label, b.method)
                assert a.score == pytest.approx(b.score, abs=1e-5)
                torch.testing.assert_close(a.cam, b.cam, rtol=1e-4, atol=1e-6)
                assert [text for text, _ in a.words] == [text for text, _ in b.words]
                assert [part for _, part in a.words] == pytest.approx(
                    [part for _, part in b.words], abs=1e-5
                )


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_agree_with_finite_differences(kind: str) -> None:
    model = answerer(kind)
    model.model.double()
    net: Any = model.model
    maps = net.cnn(model.prepare([picture()], mmcam.Answers(QUESTION)).pixels).detach()
    tokens, lengths = torch.tensor([[3, 4, 5, 6, 7, 2]]), torch.tensor([6])
    words = net.embed(tokens).detach()

    class Constant(nn.Module):
        def __init__(self, output: Tensor) -> None:
            super().__init__()
            self.output = output

        def forward(self, inputs: Tensor) -> Tensor:
            return self.output

    def score(maps: Tensor, words: Tensor) -> float:
        cnn, embed = net.cnn, net.embed
        net.cnn, net.embed = Constant(maps), Constant(words)
        try:
            output = net(torch.zeros(1, 3, 8, 10).double(), tokens, lengths)
        finally:
            net.cnn, net.embed = cnn, embed
        return float((output[0] if isinstance(output, tuple) else output)[0, 1])

    explanation = mmcam.explain(
        model, picture(), mmcam.Answers(QUESTION, ["yellow"]), method="hirescam"
    )[0]
    expected = torch.zeros(maps.shape[2:], dtype=torch.float64)
    for index in itertools.product(*map(range, maps.shape[1:])):
        step = torch.zeros_like(maps)
        step[(0, *index)] = 1e-5
        slope = (score(maps + step, words) - score(maps - step, words)) / 2e-5
        expected[index[1:]] += slope * maps[(0, *index)]
    torch.testing.assert_close(explanation.cam, expected.clamp(min=0), rtol=1e-5, atol=1e-7)
    parts = []
    for number in range(6):
        part = 0.0
        for channel in range(words.shape[2]):
            step = torch.zeros_like(words)
            step[0, number, channel] = 1e-5
            slope = (score(maps, words + step) - score(maps, words - step)) / 2e-5
            part += slope * float(words[0, number, channel])
        parts.append(part)
    assert [text for text, _ in explanation.words] == ["what", "color", "is", "the", "dog", "?"]
    assert [part for _, part in explanation.words] == pytest.approx(parts, rel=1e-4, abs=1e-8)


def test_the_cnn_runs_once_for_all_answers() -> None:
    model = answerer()
    net: Any = model.model
    mmcam.explain(model, picture(), mmcam.Answers(QUESTION, list(ANSWERS)))
    assert net.cnn.runs == 1


def test_duplicate_answers_are_merged_and_prefixes_are_not() -> None:
    maps = mmcam.explain(
        answerer(),
        picture(),
        mmcam.Answers(QUESTION, ["yellow", "yellow and red", "yellow", "Red"]),
    )
    assert [e.label for e in maps] == ["yellow", "yellow and red", "red"]
    assert not torch.equal(maps["yellow"].cam, maps["yellow and red"].cam)


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (mmcam.Answers(QUESTION, ["yelow"]), "no label 'yelow'; nearest: yellow"),
        (mmcam.Answers(QUESTION, top=6), "more than the 5 answers"),
        (mmcam.Answers("  "), "is empty; ask something"),
        (mmcam.Answers(), "is empty; ask something"),
        (mmcam.Answers("какого цвета собака?"), "no word of the question"),
        (mmcam.Answers(QUESTION, contrast=("red", "blue")), "no label 'blue'"),
        (mmcam.Answers(QUESTION, contrast=("red", "Red")), "both are the answer 'red' of lstm_vqa"),
        (mmcam.Caption("a dog"), "answers questions"),
    ],
)
def test_impossible_tasks_are_refused(task: Any, message: str) -> None:
    with pytest.raises(LabelError) as caught:
        mmcam.explain(answerer(), picture(), task)
    assert message in str(caught.value)


@pytest.mark.parametrize("wrong", [{"answers": []}, {"top": 0}, {"contrast": ("red", "red")}])
def test_invalid_answers_are_refused(wrong: Any) -> None:
    with pytest.raises(LabelError):
        mmcam.Answers(QUESTION, **wrong)


def test_questions_are_tokenized_as_in_training() -> None:
    tokenize = QuestionTokenizer(WORDS, max_tokens=8)
    question = tokenize("What  color is the DOG?")
    assert question.arguments[0].tolist() == [3, 4, 5, 6, 7, 2]
    assert int(question.arguments[1]) == 6
    assert question.unknown == ()
    assert question.unread == 0
    assert tokenize("what color is the dog ?").arguments[0].tolist() == [3, 4, 5, 6, 7, 2]
    assert tokenize("the purple dog, what?!").unknown == ("purple",)
    with pytest.raises(ModelError, match="no '<unk>'"):
        QuestionTokenizer(("<pad>", "a"))


def test_a_question_of_500_words_is_cut_off_at_the_limit(tmp_path: Path) -> None:
    long = " ".join(["what color is the"] * 125) + " zebra?"
    maps = mmcam.explain(answerer(), picture(), mmcam.Answers(long, ["red"]))
    short = mmcam.explain(
        answerer(), picture(), mmcam.Answers("what color is the what color is the", ["red"])
    )
    assert maps.text is not None
    assert maps.text["unread_words"] == 494
    assert len(maps["red"].words) == 8
    torch.testing.assert_close(maps["red"].cam, short["red"].cam)
    maps.save(tmp_path)


def test_unknown_words_are_recorded(tmp_path: Path) -> None:
    maps = mmcam.explain(answerer(), picture(), mmcam.Answers("what color is the zebra?", ["red"]))
    maps.save(tmp_path)
    facts = json.loads((tmp_path / "explanation.json").read_text())
    assert facts["task"] == "answers"
    assert facts["text"]["question"] == "what color is the zebra?"
    assert facts["text"]["unknown_words"] == ["zebra"]
    parts = facts["targets"][0]["question_words"]
    assert [part["text"] for part in parts] == ["what", "color", "is", "the", "zebra", "?"]
    assert all(isinstance(part["part"], float) for part in parts)


def test_co_attention_is_a_further_map() -> None:
    model = answerer("co_attention")
    maps = mmcam.explain(
        model, picture(), mmcam.Answers(QUESTION, ["red", "no"]), method=["gradcam", "attention"]
    )
    attention = [e.cam for e in maps if e.method == "attention"]
    torch.testing.assert_close(attention[0], attention[1])  # it does not depend on the answer
    assert float(attention[0].sum()) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_pixel_maps_and_rescoring_explain_answers_too(kind: str) -> None:
    methods = ["gradient", "guided-gradcam", "ablationcam", "occlusion"]
    maps = mmcam.explain(
        answerer(kind), picture(), mmcam.Answers(QUESTION, ["red"]), method=methods
    )
    assert [e.method for e in maps] == methods
    assert all(e.words for e in maps)
    assert all(e.cam.isfinite().all() for e in maps)


class Bag(nn.Module):
    """A user's own network: a bag of words times a picture."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.words = nn.Linear(5, 4)
        self.out = nn.Linear(4, 3)

    def forward(self, pixels: Tensor, bag: Tensor) -> Tensor:
        logits: Tensor = self.out(self.conv(pixels).relu().mean((2, 3)) * self.words(bag))
        return logits


def test_a_users_own_module_answers_questions() -> None:
    words = ["is", "it", "a", "red", "dog"]

    def bag(question: str) -> Tensor:
        return torch.tensor([float(word in question.split()) for word in words])

    net = Bag()
    model = mmcam.wrap(net, layer="conv", labels=["yes", "no", "red"], question=bag)
    maps = mmcam.explain(
        model, np.zeros((32, 32, 3), np.uint8), mmcam.Answers("is it red", ["yes", "red"])
    )
    other = mmcam.explain(model, np.zeros((32, 32, 3), np.uint8), mmcam.Answers("a dog", ["yes"]))
    assert [e.label for e in maps] == ["yes", "red"]
    assert maps["yes"].score != other["yes"].score
    assert maps["yes"].words == ()
    broken = mmcam.wrap(net, layer="conv", question=lambda question: [1.0])
    with pytest.raises(ModelError, match="became a list"):
        mmcam.explain(broken, np.zeros((32, 32, 3), np.uint8), mmcam.Answers("is it red", ["0"]))
