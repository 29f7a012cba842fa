"""Which words of a caption."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from mmcam.errors import InputError, LabelError

ALL, VISUAL = "all", "visual"
SCORES = ("logit", "log-prob")


@dataclass(frozen=True)
class Caption:
    """Explain a caption: the whole sentence, and words of it.

    Args:
        text: the caption; the sample's own text when None, and what the model says if it has none.
        words: words to explain, by name (every place where it stands) or by their position in the
            sentence, counted from 0, marks included; "all" (None) or "visual" (function words left
            out); an empty list for the sentence alone.
        score: what a word's score is: the "logit" of the word at its step (IJCV section 8.1), or
            its "log-prob". For a word of several tokens, their sum. The sentence's is the sum of
            the log-probabilities of all its tokens.
        num_beams: beams of the search when the model generates the caption; 1 is greedy.
        max_new_tokens: the most tokens that the model generates.
        prompt: what a model that follows instructions is asked, or the words its caption begins
            with; the model's usual prompt when None.

    Raises:
        LabelError: an unknown choice.
        InputError: no beam, no token.
    """

    text: str | None = None
    words: str | Sequence[str | int] | None = None
    score: str = "logit"
    num_beams: int = 1
    max_new_tokens: int = 20
    prompt: str | None = None

    name: ClassVar[str] = "caption"

    def __post_init__(self) -> None:
        if self.words is None:
            object.__setattr__(self, "words", ALL)
        elif isinstance(self.words, str) and self.words not in (ALL, VISUAL):
            object.__setattr__(self, "words", (self.words,))
        if self.score not in SCORES:
            raise LabelError(f"score='{self.score}' is unknown; choose one of {', '.join(SCORES)}")
        if self.num_beams < 1 or self.max_new_tokens < 1:
            raise InputError(
                f"num_beams={self.num_beams}, max_new_tokens={self.max_new_tokens}: both must be 1 "
                "or more for the model to generate anything"
            )
