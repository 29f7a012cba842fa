"""The score of a class, an answer or a word: logit, log-probability or contrast to all others."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import mmcam
from mmcam.adapters.base.captions import CaptionOutput, Sentence
from mmcam.adapters.base.preprocess import Preprocess
from mmcam.errors import LabelError
from mmcam.tasks.scores import contrast_of_column
from mmcam.tasks.words import Word

PIXELS = np.random.default_rng(0).integers(0, 256, (8, 12, 3), dtype=np.uint8)
OUTPUTS = {"layer": True, "logits": False}


class Net(nn.Module):
    """Class scores, all raised by a common part of the map."""

    def __init__(self, classes: int, common: float = 0.0) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.conv = nn.Conv2d(3, 5, 3)
        self.head = nn.Linear(5, classes)
        self.raise_all = nn.Linear(5, 1)
        self.common = common

    def forward(self, x: Tensor) -> Tensor:
        pooled = self.conv(x).square().mean((2, 3))
        return self.head(pooled) + self.common * self.raise_all(pooled)


def explained(network: nn.Module, task: Any, **options: Any) -> mmcam.Explanation:
    adapter = mmcam.wrap(network, prepare=Preprocess(resize=(8, 12)), layer="conv", **options)
    (explanation,) = mmcam.explain(adapter, PIXELS, task)
    return explanation


def logits_of(network: nn.Module) -> Tensor:
    adapter = mmcam.wrap(network, prepare=Preprocess(resize=(8, 12)), layer="conv")
    pixels = adapter.prepare([mmcam.Sample(pixels=PIXELS)], mmcam.Classes()).pixels
    with torch.no_grad():
        return network(pixels)[0]


def test_the_scores_are_what_they_are_called() -> None:
    network = Net(4)
    logits = logits_of(network)
    right = {
        "logit": logits[1],
        "log-prob": logits.log_softmax(0)[1],
        "mean-contrast": logits[1] - logits[[0, 2, 3]].mean(),
    }
    for name, value in right.items():
        explanation = explained(network, mmcam.Classes([1], score=name))
        assert explanation.score == pytest.approx(float(value), abs=1e-5)
        assert explanation.target.score_name == name
        assert explanation.probability == pytest.approx(float(logits.softmax(0)[1]), abs=1e-6)


@pytest.mark.parametrize("score", ["log-prob", "mean-contrast"])
def test_what_raises_all_classes_alike_does_not_change_a_contrast(score: str) -> None:
    cams = [explained(Net(4, common), mmcam.Classes([1], score=score)).cam for common in (0.0, 9.0)]
    assert torch.allclose(*cams, atol=1e-4)
    plain = [explained(Net(4, common), mmcam.Classes([1])).cam for common in (0.0, 9.0)]
    assert not torch.allclose(*plain, atol=1e-2)


def test_scores_that_a_model_does_not_have_are_refused() -> None:
    with pytest.raises(LabelError, match="needs two classes or more"):
        explained(Net(1), mmcam.Classes([0], score="mean-contrast"))
    with pytest.raises(LabelError, match="needs probabilities"):
        explained(Net(3), mmcam.Classes([0], score="log-prob"), probability=None)


@pytest.mark.parametrize("task", [mmcam.Classes, mmcam.Actions, mmcam.Answers, mmcam.Caption])
def test_unknown_scores_are_refused(task: Any) -> None:
    with pytest.raises(LabelError, match="choose one of logit, log-prob, mean-contrast"):
        task(score="loss")


def test_what_is_never_said_does_not_count_in_a_contrast() -> None:
    logits = torch.randn(2, 4, 9)
    logits[:, 1, [0, 4]] = -torch.inf
    logits[:, 2, 4] = -torch.inf
    logits.requires_grad_(True)
    sentence = Sentence("two words", (3, 8, 1, 0), (Word("two", 0, 1), Word("words", 1, 3)))
    contrast = CaptionOutput(states=logits, sentences=[sentence]).mean_contrast(1, [8, 1])
    for row, value in zip(logits, contrast, strict=True):
        right = row[1, 8] - row[1, [1, 2, 3, 5, 6, 7]].mean()
        right += row[2, 1] - row[2, [0, 2, 3, 5, 6, 7, 8]].mean()
        assert torch.allclose(value, right, atol=1e-5)
    (gradient,) = torch.autograd.grad(contrast.sum(), logits)
    assert gradient.isfinite().all()
    assert not gradient[logits == -torch.inf].any()
    score = contrast_of_column(logits[:, 2], 1)
    right = logits[:, 2, 1] - logits[:, 2, [0, 2, 3, 5, 6, 7, 8]].mean(1)
    assert torch.allclose(score, right, atol=1e-5)


@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize("has_layer", OUTPUTS.values(), ids=OUTPUTS)
def test_the_contrast_of_a_word_is_that_of_its_tokens(has_layer: bool, has_bias: bool) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(6, 9, bias=has_bias)
    states = torch.randn(1, 4, 6)
    sentence = Sentence("two words", (3, 8, 1, 0), (Word("two", 0, 1), Word("words", 1, 3)))
    logits = layer(states)
    output = CaptionOutput(
        states=states if has_layer else logits,
        sentences=[sentence],
        out=layer if has_layer else None,
    )
    right = sum(
        (logits[0, step, token] * 9 - logits[0, step].sum()) / 8 for step, token in ((1, 8), (2, 1))
    )
    assert torch.allclose(output.mean_contrast(1, [8, 1])[0], right, atol=1e-5)
