"""The options of the caption task."""

from __future__ import annotations

from typing import Any

import pytest

from mmcam import Caption, MmcamError


def test_all_words_unless_told_otherwise() -> None:
    assert Caption().words == "all"
    assert Caption(words="visual").words == "visual"
    assert Caption(words="dog").words == ("dog",)
    assert Caption(words=[]).words == ()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"score": "loss"}, "score='loss' is unknown; choose one of logit, log-prob"),
        ({"num_beams": 0}, "num_beams=0"),
        ({"max_new_tokens": 0}, "max_new_tokens=0"),
    ],
)
def test_nonsense_is_refused(options: Any, message: str) -> None:
    with pytest.raises(MmcamError, match=message.replace("(", r"\(")):
        Caption(**options)
