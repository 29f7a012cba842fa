"""What can be asked of a caption."""

from __future__ import annotations

from typing import Any

import pytest

from mmcam import Caption, MmcamError


def test_all_words_unless_told_otherwise() -> None:
    assert Caption().words == "all"
    assert Caption(words="visual").words == "visual"
    assert Caption(words="dog").words == ("dog",)
    assert Caption(words=[]).words == []


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"score": "loss"}, "score='loss' is unknown; choose one of logit, log-prob"),
        ({"num_beams": 0}, "num_beams=0"),
        ({"max_new_tokens": 0}, "max_new_tokens=0"),
    ],
)
def test_nonsense_is_refused(wrong: Any, said: str) -> None:
    with pytest.raises(MmcamError, match=said.replace("(", r"\(")):
        Caption(**wrong)
