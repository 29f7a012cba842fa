"""How logits become probabilities: rivals, single logits, classes by themselves, other scores."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import mmcam
from mmcam.adapters.base.preprocess import Preprocess

PIXELS = np.random.default_rng(0).integers(0, 256, (8, 12, 3), dtype=np.uint8)


class Net(nn.Module):
    def __init__(self, classes: int) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.conv = nn.Conv2d(3, 5, 3)
        self.head = nn.Linear(5, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.conv(x).mean((2, 3)))


def explained(classes: int, **options: Any) -> tuple[float, float | None, Tensor]:
    """The score and probability of class 0, and all logits."""
    network = Net(classes)
    adapter = mmcam.wrap(network, prepare=Preprocess(resize=(8, 12)), layer="conv", **options)
    (explanation,) = mmcam.explain(adapter, PIXELS, mmcam.Classes([0]))
    pixels = adapter.prepare([mmcam.Sample(pixels=PIXELS)], mmcam.Classes()).pixels
    return explanation.score, explanation.probability, network(pixels)[0].detach()


def test_rival_classes_have_a_softmax() -> None:
    score, probability, logits = explained(4)
    assert score == pytest.approx(float(logits[0]))
    assert probability == pytest.approx(float(logits.softmax(0)[0]))


def test_a_single_logit_has_a_sigmoid() -> None:
    _, probability, logits = explained(1)
    assert probability == pytest.approx(float(logits.sigmoid()[0]))
    assert probability is not None
    assert probability < 1


def test_classes_by_themselves_have_a_sigmoid_each() -> None:
    _, probability, logits = explained(4, probability="sigmoid")
    assert probability == pytest.approx(float(logits.sigmoid()[0]))


def test_a_function_of_the_logits() -> None:
    _, probability, logits = explained(4, probability=lambda logits: (2 * logits).softmax(1))
    assert probability == pytest.approx(float((2 * logits).softmax(0)[0]))


def test_scores_without_a_probability(tmp_path: Any) -> None:
    score, probability, logits = explained(4, probability=None)
    assert score == pytest.approx(float(logits[0]))
    assert probability is None


def test_the_metrics_of_probabilities_say_that_there_are_none(tmp_path: Any) -> None:
    pytest.importorskip("pyarrow")
    from mmcam.evaluation import Study, evaluate

    (tmp_path / "items.jsonl").write_text('{"path": "a.png", "labels": [0]}\n')
    from PIL import Image

    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    adapter = mmcam.wrap(Net(3), prepare=Preprocess(resize=(8, 12)), layer="conv", probability=None)
    study = Study(metrics=("average-drop",), task=mmcam.Classes())
    summary = evaluate(adapter, f"jsonl:{tmp_path / 'items.jsonl'}", study, tmp_path / "run")
    ((reason, times),) = summary["missing"]["average-drop"].items()
    assert times == 1
    assert "has no probability" in reason


def test_own_targets_by_number_follow_the_same_rule() -> None:
    target = mmcam.Target.logit(0)
    assert target.log_prob is not None
    single = torch.tensor([[0.3]])
    torch.testing.assert_close(target.log_prob(single), single.sigmoid().log()[:, 0])


@pytest.mark.parametrize(
    ("problem_type", "expected"),
    [
        (None, lambda logits: logits.softmax(0)[1]),
        ("single_label_classification", lambda logits: logits.softmax(0)[1]),
        ("multi_label_classification", lambda logits: logits.sigmoid()[1]),
    ],
)
def test_a_configuration_of_transformers_says_it(problem_type: Any, expected: Any) -> None:
    from mmcam.adapters.base.recipe import Recipe
    from mmcam.models.registry import build

    args = {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "image_size": 32,
        "patch_size": 8,
        "problem_type": problem_type,
        "num_labels": 3,
    }
    adapter: Any = build(Recipe(family="hf", name="vit", args=args, pretrained=False))
    (explanation,) = mmcam.explain(adapter, PIXELS, mmcam.Classes([1]))
    pixels = adapter.prepare([mmcam.Sample(pixels=PIXELS)], mmcam.Classes()).pixels
    logits = adapter.model(pixels).logits[0].detach()
    assert explanation.probability == pytest.approx(float(expected(logits)), abs=1e-5)
