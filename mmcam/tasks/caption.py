"""The task of explaining a caption and its words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from mmcam.errors import InputError
from mmcam.tasks.labels import as_labels
from mmcam.tasks.scores import LOGIT, check_score

ALL, VISUAL = "all", "visual"


@dataclass(frozen=True)
class Caption:
    """Explain a caption: the whole sentence, and its words.

    Args:
        text: the caption; when None, the sample's own text, or the generated caption if the
            sample has no text.
        words: words to explain, by name (every occurrence) or by position in the sentence, counted
            from 0 and including punctuation; "all" (or None) for all words except punctuation, or
            "visual" for those that are not function words either; an empty list for the sentence
            alone. Names and positions become a tuple; they may be an array or a tensor.
        score: the score of a word: the "logit" of the word at its step (Grad-CAM, IJCV 2020,
            section 8.1), its "log-prob", or its "mean-contrast", the logit minus the mean logit of
            all other tokens. For a word of several tokens, the sum over its tokens.
            The sentence's score is the sum of the log-probabilities of all its tokens.
        num_beams: the number of beams for generation; 1 is greedy search.
        max_new_tokens: the maximum number of tokens to generate.
        prompt: the instruction for an instruction-tuned model, or the beginning of the caption; the
            model's usual prompt when None.

    Raises:
        LabelError: an unknown `score`, or a word that is neither text nor a whole number.
        InputError: `num_beams` or `max_new_tokens` below 1.
    """

    text: str | None = None
    words: str | int | Sequence[str | int] | None = None
    score: str = LOGIT
    num_beams: int = 1
    max_new_tokens: int = 20
    prompt: str | None = None

    name: ClassVar[str] = "caption"

    def __post_init__(self) -> None:
        if self.words is None:
            object.__setattr__(self, "words", ALL)
        elif not isinstance(self.words, str) or self.words not in (ALL, VISUAL):
            object.__setattr__(self, "words", as_labels(self.words, "words"))
        check_score(self.score)
        if self.num_beams < 1 or self.max_new_tokens < 1:
            raise InputError(
                f"num_beams={self.num_beams}, max_new_tokens={self.max_new_tokens}: both must be 1 "
                "or more to generate a caption"
            )
