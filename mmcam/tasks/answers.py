"""The task of explaining answers to a question."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from mmcam.errors import LabelError
from mmcam.tasks.labels import as_labels
from mmcam.tasks.scores import check_score


@dataclass(frozen=True)
class Answers:
    """Explain answers to a question: forced answers, or the `top` answers of the model.

    Args:
        question: the question; the sample's own text when None.
        answers: the forced answers, in any number and order: a list, an array, a tensor or any
            other iterable, or one answer. They become a tuple of texts.
        top: without `answers`, how many of the model's top answers to explain.
        contrast: two answers; the score of the first minus that of the second is explained too.
        score: what is explained of an answer, as for `Classes`; None for the model's usual score:
            the logit of a model that chooses among its answers, the log-probability of the text of
            a model that writes them, which has no other score.

    Raises:
        LabelError: an empty list of answers, an answer that is neither text nor a whole number, a
            `top` below 1, a contrast of equal answers, or an unknown `score`.
    """

    question: str | None = None
    answers: Sequence[str] | None = None
    top: int = 1
    contrast: tuple[str, str] | None = None
    score: str | None = None

    name: ClassVar[str] = "answers"

    def __post_init__(self) -> None:
        for field in ("answers", "contrast"):
            if getattr(self, field) is not None:
                given = as_labels(getattr(self, field), field)
                texts = tuple(str(each) if isinstance(each, int) else each for each in given)
                object.__setattr__(self, field, texts)
        if self.answers is not None and not self.answers:
            raise LabelError(
                "no answers to explain in []; name some, or omit them for the top answers"
            )
        if self.top < 1:
            raise LabelError(f"top={self.top} asks for no answer; it must be 1 or more")
        if self.contrast is not None and not len(self.contrast) == len(set(self.contrast)) == 2:
            raise LabelError(
                f"contrast={self.contrast!r} is not a contrast; give two different answers"
            )
        if self.score is not None:
            check_score(self.score)

    def question_for(self, text: str, name: str) -> str:
        """The question for the sample `name` with text `text`, on one line.

        Raises:
            LabelError: the question is empty.
        """
        question = " ".join((text if self.question is None else self.question).split())
        if not question:
            raise LabelError(
                f"the question for '{name}' is empty; ask something: Answers(\"what is it?\"), or "
                "Sample(..., text=...)"
            )
        return question
