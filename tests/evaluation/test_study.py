"""What a study refuses, and what it asks of an item."""

from __future__ import annotations

from typing import Any

import pytest

import mmcam
from mmcam.datasets import Item
from mmcam.errors import EvaluationError, MethodError, MmcamError, ModelError
from mmcam.evaluation import Study
from mmcam.evaluation.metrics import METRIC_FUNCTIONS
from mmcam.evaluators import EVALUATORS
from tests.evaluation.coloured import network


def test_every_evaluator_can_be_run() -> None:
    assert list(METRIC_FUNCTIONS) == list(EVALUATORS)


def study(**change: Any) -> Study:
    return Study(**{"metrics": ("pointing",), "task": mmcam.Classes(), **change})


@pytest.mark.parametrize(
    ("change", "kind", "match"),
    [
        ({"metrics": ("pointin",)}, EvaluationError, "nearest: pointing"),
        ({"metrics": ()}, EvaluationError, "no metric"),
        ({"metrics": ("pointing", "pointing")}, EvaluationError, "named twice"),
        ({"methods": ()}, MethodError, "no methods"),
        ({"methods": ("gradcamm",)}, MethodError, "nearest: gradcam"),
        ({"methods": ("activation",), "baselines": ("activation",)}, EvaluationError, "twice"),
        ({"baselines": ("center",)}, EvaluationError, "nearest: centre"),
        ({"target": "guessed"}, EvaluationError, "given or predicted"),
        ({"steps": 0}, EvaluationError, "1 or more"),
        ({"batch": 0}, EvaluationError, "1 or more"),
        ({"metrics": ("win",)}, EvaluationError, "name two or more"),
        ({"metrics": ("localization-error",)}, EvaluationError, "target predicted"),
        (
            {"metrics": ("pointing-or-rejecting",), "target": "predicted"},
            EvaluationError,
            "threshold",
        ),
        (
            {"metrics": ("label-randomization",), "task": mmcam.Caption()},
            EvaluationError,
            "use the task classes",
        ),
    ],
)
def test_settings_that_do_not_fit(
    change: dict[str, Any], kind: type[MmcamError], match: str
) -> None:
    with pytest.raises(kind, match=match):
        study(**change)


def test_actions_need_a_video_model() -> None:
    with pytest.raises(ModelError, match="choose a video model"):
        study(task=mmcam.Actions()).check_model(network())


def test_an_items_own_labels_are_asked_for() -> None:
    item = Item(id="x", source="x.png", text="what?", labels=("dog", 3, "dog"))
    assert study().task_of(item) == mmcam.Classes(("dog", 3))
    assert study(target="predicted", task=mmcam.Classes(top=2)).task_of(item).labels is None
    assert study(task=mmcam.Classes(["cat"])).task_of(item).labels == ("cat",)
    assert study().task_of(Item(id="y", source="y.png")) == mmcam.Classes()
    assert study(task=mmcam.Answers()).task_of(item) == mmcam.Answers(answers=("dog", "3"))
    forced = mmcam.Answers(answers=("no",))
    assert study(task=forced).task_of(item) is forced


def test_a_caption_is_left_to_the_model_where_it_predicts() -> None:
    item = Item(id="x", source="x.png", text="a dog")
    caption = mmcam.Caption()
    assert study(task=caption).text_of(item) == "a dog"
    assert study(task=caption, target="predicted").text_of(item) == ""
    assert study(task=mmcam.Answers(), target="predicted").text_of(item) == "a dog"


def test_columns_of_metrics_that_fill_several() -> None:
    made = study(metrics=("loc", "win", "deletion"), baselines=("centre",)).columns
    assert [column.name for column in made] == [
        "loc@0",
        "loc@0.25",
        "loc@0.5",
        "win over gradcam",
        "win over centre",
        "deletion",
    ]
    assert [column.gives for column in made] == [*["number"] * 3, *["truth"] * 2, "curve"]
    assert not made[-1].higher_is_better
