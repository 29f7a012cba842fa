"""The adapter for models that answer a question by classification."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from mmcam.adapters.base.classifier import Classifier
from mmcam.adapters.base.preprocess import prepare_batch
from mmcam.errors import LabelError, ModelError, UnequalInputsError
from mmcam.tasks import Answers
from mmcam.tasks.scores import LOGIT
from mmcam.tasks.words import Word
from mmcam.types import Inputs, Sample, Target

TOP = 5
"""How many of the model's top answers `text` reports."""


class EncodedQuestion(NamedTuple):
    """A question, encoded as a model's input.

    `arguments` are the model's inputs other than the pixels, without a batch axis. `words` are the
    words of the question with their positions in the embedding, `unknown` those outside the
    vocabulary. `unread` is the number of words that were cut off at the end.
    """

    arguments: tuple[Tensor, ...]
    words: tuple[Word, ...] = ()
    unknown: tuple[str, ...] = ()
    unread: int = 0


class AnswerOutput(NamedTuple):
    """Logits of all answers, and the attention of each level of the model, if any."""

    logits: Float[Tensor, "row answer"]
    attention: Float[Tensor, "row level height width"] | None


@dataclass
class AnswerClassifier(Classifier):
    """A model of `(pixels, *question)` that returns the logits of its answers (`labels`).

    `encode_question` encodes a question as the model's arguments. `word_embedding` names the layer
    that embeds the words of the question; the contribution of each word to an answer is measured
    there. With `has_attention`, the model returns `(logits, attention)`, the attention as `[row,
    level, height, width]`. `pads_questions` says that the arguments contain a length or a mask, so
    that zeros after a shorter question of a batch do not change its logits.
    """

    encode_question: Callable[[str], EncodedQuestion] = field(kw_only=True)
    word_embedding: str | None = field(default=None, kw_only=True)
    has_attention: bool = field(default=False, kw_only=True)
    pads_questions: bool = field(default=False, kw_only=True)
    encoder: str | None = field(default=None, kw_only=True)
    gradient_strategy: str = field(default="loop", kw_only=True)

    @property
    def default_task(self) -> Answers:
        """The top answer to the question of each sample, its text."""
        return Answers()

    def prepare(self, samples: Sequence[Sample], task: Any) -> Inputs:
        """The pictures, preprocessed, and their encoded questions.

        Raises:
            LabelError: no question, a question without a known word, or another task.
            InputError: a clip, or pictures or encoded questions that cannot be one batch.
            ModelError: the transform or `encode_question` returns no tensor of the right kind.
        """
        if not isinstance(task, Answers):
            raise LabelError(
                f"{self.name} answers questions and does not take {task!r}; give Answers(...)"
            )
        texts = [task.question_for(sample.text, sample.id) for sample in samples]
        questions = [self.encode_question(text) for text in texts]
        for text, question in zip(texts, questions, strict=True):
            if question.words and len(question.unknown) == sum(
                not word.is_mark for word in question.words
            ):
                raise LabelError(
                    f"no word of the question {text!r} is in the vocabulary of {self.name}; use "
                    "the words and the language of its training data"
                )
        self._check_shapes(questions)
        inputs = self.prepare_pixels(samples)
        arguments = [
            _pad_batch(tensors).to(inputs.pixels.device)
            for tensors in zip(*(question.arguments for question in questions), strict=True)
        ]
        rest = dict(inputs.rest)
        rest |= {f"question_{i}": tensor for i, tensor in enumerate(arguments)}
        rest |= {"questions": texts, "encoded": questions}
        if self.word_embedding is not None:
            rest["words"] = [question.words for question in questions]
        return replace(inputs, rest=rest)

    def _check_shapes(self, questions: Sequence[EncodedQuestion]) -> None:
        """Check that the encoded questions can be one batch.

        Raises:
            UnequalInputsError: they differ in shape, and are not padded.
        """
        kinds = [tuple(tuple(t.shape) for t in question.arguments) for question in questions]
        if self.pads_questions or len(set(kinds)) == 1:
            return
        raise UnequalInputsError(
            f"the questions of {self.name} have different shapes ({kinds[0]}, ...) and cannot be "
            "one batch; explain them one at a time",
            kinds=kinds,
        )

    def prepare_pixels(self, samples: Sequence[Sample]) -> Inputs:
        """The pictures, preprocessed and stacked.

        Raises:
            InputError: a clip, or pictures that cannot be one batch.
            ModelError: as `Transform.__call__`.
        """
        return prepare_batch(samples, self.preprocess, self.model, self.name)

    def forward(self, inputs: Inputs) -> AnswerOutput:
        """The logits of all answers, and the model's attention, if any.

        Raises:
            ModelError: no logits are found in the model's output.
        """
        question = [inputs.rest[key] for key in inputs.rest if key.startswith("question_")]
        output = self.model(self.pack(inputs.pixels), *question)
        return AnswerOutput(self.unpack(output), output[1] if self.has_attention else None)

    def logits(self, output: AnswerOutput) -> Float[Tensor, "batch classes"]:
        """The scores of all answers, before any softmax.

        Raises:
            ModelError: the model's logits are not `[batch, answers]`.
        """
        if output.logits.ndim != 2:
            raise ModelError(
                f"{self.name} returns logits of shape {tuple(output.logits.shape)}; return "
                "[batch, answers]"
            )
        return output.logits

    def targets(self, output: AnswerOutput, task: Any) -> list[list[Target]]:
        """The forced answers, or the top answers of each sample, and the contrast, if any.

        Raises:
            LabelError: an unknown or ambiguous answer, a contrast of one answer with itself, `top`
                is more than the number of answers, or a score that the answers do not have.
            ModelError: as `logits`.
        """
        logits = self.logits(output)
        count = logits.shape[1]
        score = task.score or LOGIT
        if task.answers is not None:
            indices = list(dict.fromkeys(self.index(answer, count) for answer in task.answers))
            rows = [indices] * len(logits)
        elif task.top > count:
            raise LabelError(
                f"top={task.top} is more than the {count} answers of {self.name}; ask for fewer"
            )
        else:
            rows = logits.detach().topk(task.top, dim=1).indices.tolist()
        contrast = []
        if task.contrast is not None:
            first, second = (self.index(answer, count) for answer in task.contrast)
            if first == second:
                raise LabelError(
                    f"contrast={task.contrast!r} is not a contrast: both are the answer "
                    f"'{self.label(first)}' of {self.name}; give two different answers"
                )
            contrast = [self._contrast(first, second, score)]
        targets = {index: self._answer(index, score) for index in {i for row in rows for i in row}}
        return [[*(targets[index] for index in row), *contrast] for row in rows]

    def _answer(self, index: int, score: str) -> Target:
        return Target(
            label=self.label(index),
            score=self._score(index, score),
            score_name=score,
            log_prob=self._log_prob(index),
            kind="answer",
            attention=_mean_attention if self.has_attention else None,
        )

    def _contrast(self, first: int, second: int, score: str) -> Target:
        score_of_first, score_of_second = self._score(first, score), self._score(second, score)
        return Target(
            label=f"{self.label(first)} rather than {self.label(second)}",
            score=lambda output: score_of_first(output) - score_of_second(output),
            kind="contrast",
            attention=_mean_attention if self.has_attention else None,
        )

    def text(self, output: AnswerOutput, inputs: Inputs) -> Sequence[Mapping[str, Any] | None]:
        """The question as encoded, and the model's top answers, if answers have probabilities."""
        log_probs = self.log_probs(output)
        records = []
        for row, (text, question) in enumerate(
            zip(inputs.rest["questions"], inputs.rest["encoded"], strict=True)
        ):
            answers = []
            if log_probs is not None:
                values, indices = log_probs[row].exp().topk(min(TOP, log_probs.shape[1]))
                answers = list(zip(indices.tolist(), values.tolist(), strict=True))
            records.append(
                {
                    "question": text,
                    "words": [word.text for word in question.words],
                    "unknown_words": list(question.unknown),
                    "unread_words": question.unread,
                    "top": [{"answer": self.label(i), "probability": p} for i, p in answers],
                }
            )
        return records


def _mean_attention(output: AnswerOutput) -> Tensor:
    """The attention, averaged over the levels."""
    assert output.attention is not None
    return output.attention.mean(1)


def _pad_batch(tensors: Sequence[Tensor]) -> Tensor:
    """Stack tensors; vectors of different lengths are padded with zeros at the end."""
    if tensors[0].ndim != 1:
        return torch.stack(list(tensors))
    return torch.nn.utils.rnn.pad_sequence(list(tensors), batch_first=True)
