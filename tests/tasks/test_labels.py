"""Labels, answers and words, in the forms in which numpy, torch and Python hold them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import jaxtyping
import numpy as np
import pytest
import torch

from mmcam import Actions, Answers, Caption, Classes
from mmcam.errors import LabelError
from mmcam.types import WordNetLabel


@pytest.fixture(autouse=True)
def _users_have_no_runtime_type_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


TWO_NUMBERS: dict[str, Callable[[], Any]] = {
    "list": lambda: [1, 2],
    "numpy numbers": lambda: [np.int64(1), np.uint8(2)],
    "array": lambda: np.array([1, 2]),
    "tensor": lambda: torch.tensor([1, 2]),
    "tensors": lambda: list(torch.tensor([1, 2])),
    "generator": lambda: (number for number in (1, 2)),
    "range": lambda: range(1, 3),
}
ONE_NUMBER: dict[str, Callable[[], Any]] = {
    "int": lambda: 0,
    "numpy number": lambda: np.int64(0),
    "array": lambda: np.array(0),
    "tensor": lambda: torch.tensor(0),
}


@pytest.mark.parametrize("numbers", TWO_NUMBERS.values(), ids=TWO_NUMBERS)
def test_several_numbers_are_a_tuple_of_python_numbers(numbers: Callable[[], Any]) -> None:
    for task in (Classes, Actions):
        assert task(numbers()) == task((1, 2))
        assert hash(task(numbers())) == hash(task((1, 2)))
        assert json.dumps(task(numbers()).labels) == "[1, 2]"
    assert json.dumps(Caption(words=numbers()).words) == "[1, 2]"
    assert Answers(answers=numbers()) == Answers(answers=("1", "2"))
    assert Answers(contrast=numbers()).contrast == ("1", "2")


@pytest.mark.parametrize("number", ONE_NUMBER.values(), ids=ONE_NUMBER)
def test_one_number_is_a_tuple_too(number: Callable[[], Any]) -> None:
    assert Classes(number()).labels == (0,)
    assert Answers(answers=number()).answers == ("0",)
    assert Caption(words=number()).words == (0,)


@pytest.mark.parametrize("names", [["red", "a dog"], np.array(["red", "a dog"])])
def test_names_are_texts(names: Any) -> None:
    assert Classes(names).labels == ("red", "a dog")
    assert Answers(answers=names).answers == ("red", "a dog")
    assert Caption(words=names).words == ("red", "a dog")
    assert Classes("red").labels == Answers(answers="red").answers == ("red",)


def test_a_wordnet_label_keeps_its_id() -> None:
    label = WordNetLabel("crane", "n02012849")
    (kept,) = Classes([label]).labels or ()
    assert kept is label
    assert Classes([label]) != Classes(["crane"])


@pytest.mark.parametrize("empty", [[], np.array([]), torch.tensor([]), iter(())])
def test_no_labels_are_refused(empty: Any) -> None:
    with pytest.raises(LabelError, match="no labels to explain"):
        Classes(empty)
    with pytest.raises(LabelError, match="no answers to explain"):
        Answers(answers=())


@pytest.mark.parametrize(
    ("wrong", "described"),
    [
        ([1.0], r"contains 1\.0, a float"),
        (np.array([0.5]), r"contains 0\.5, a float"),
        (torch.tensor([[1, 2]]), r"contains \[1, 2\], a list"),
        (2.5, r"contains 2\.5, a float"),
        (["red", None], "contains None, a NoneType"),
    ],
)
@pytest.mark.parametrize("field", ["labels", "answers", "words"])
def test_what_is_neither_text_nor_a_whole_number_is_refused(
    field: str, wrong: Any, described: str
) -> None:
    task: Any = {"labels": Classes, "answers": Answers, "words": Caption}[field]
    with pytest.raises(LabelError, match=f"{field} {described}; give a name") as caught:
        task(**{field: wrong})
    assert "\n" not in str(caught.value)


def test_a_contrast_is_of_two_answers() -> None:
    for wrong in ("ab", ["red"], ["red", "red"], np.array([1, 1])):
        with pytest.raises(LabelError, match="is not a contrast"):
            Answers(contrast=wrong)  # type: ignore[arg-type]
