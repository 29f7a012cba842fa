"""The adapter of models that answer a question by classification."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from mmcam.adapters.base.classifier import Classifier
from mmcam.adapters.base.preprocess import batch_of
from mmcam.errors import LabelError, ModelError
from mmcam.tasks import Answers
from mmcam.tasks.words import Word
from mmcam.types import Inputs, Sample, Target

TOP = 5
"""How many of the model's own answers are put on record."""


class Question(NamedTuple):
    """A question as a model is given it.

    `arguments` are what the model takes beside the pixels, without a batch axis. `words` are the
    words that it reads, with their places in its embedding; `unknown` those that it does not know,
    `unread` how many it leaves out at the end.
    """

    arguments: tuple[Tensor, ...]
    words: tuple[Word, ...] = ()
    unknown: tuple[str, ...] = ()
    unread: int = 0


class AnswerOutput(NamedTuple):
    """Logits of all answers, and where the model looked at each of its levels, if it says."""

    logits: Float[Tensor, "row answer"]
    looks: Float[Tensor, "row level height width"] | None


@dataclass
class AnswerClassifier(Classifier):
    """A model of `(pixels, *question)` that gives the logits of its answers (`labels`).

    `read` turns a question into the model's arguments; `words` names the layer that embeds its
    words, where their part in an answer is to be seen. With `has_attention` the model gives its
    attention `[row, level, height, width]` behind the logits.
    """

    read: Callable[[str], Question] = field(kw_only=True)
    words: str | None = field(default=None, kw_only=True)
    has_attention: bool = field(default=False, kw_only=True)
    encoder: str | None = field(default=None, kw_only=True)
    gradient_strategy: str = field(default="loop", kw_only=True)

    def prepare(self, samples: Sequence[Sample], task: Any) -> Inputs:
        """The pictures preprocessed, and their questions as the model reads them.

        Raises:
            LabelError: no question, one of which the model knows no word, or another task.
            InputError: a clip, or pictures that cannot be one batch.
        """
        if not isinstance(task, Answers):
            raise LabelError(
                f"{self.name} answers questions and is not asked by {task!r}; give Answers(...)"
            )
        texts = [task.question_for(sample.text, sample.id) for sample in samples]
        questions = [self.read(text) for text in texts]
        for text, question in zip(texts, questions, strict=True):
            if question.words and len(question.unknown) == sum(
                not word.is_mark for word in question.words
            ):
                raise LabelError(
                    f"{self.name} knows no word of the question '{text}'; ask in the words and "
                    "the language that it was trained on"
                )
        inputs = self.pictures(samples)
        stacked = [
            _padded(column).to(inputs.pixels.device)
            for column in zip(*(question.arguments for question in questions), strict=True)
        ]
        rest = dict(inputs.rest)
        rest |= {f"question_{i}": tensor for i, tensor in enumerate(stacked)}
        rest |= {"questions": texts, "read": questions}
        if self.words is not None:
            rest["words"] = [question.words for question in questions]
        return replace(inputs, rest=rest)

    def pictures(self, samples: Sequence[Sample]) -> Inputs:
        """The pictures preprocessed and stacked.

        Raises:
            InputError: a clip, or pictures that cannot be one batch.
        """
        return batch_of(samples, self.preprocess, self.model, self.name)

    def forward(self, inputs: Inputs) -> AnswerOutput:
        """The logits of all answers, with the model's attention if it has one."""
        question = [inputs.rest[key] for key in inputs.rest if key.startswith("question_")]
        output = self.model(self.pack(inputs.pixels), *question)
        return AnswerOutput(self.unpack(output), output[1] if self.has_attention else None)

    def logits(self, output: AnswerOutput) -> Float[Tensor, "batch classes"]:
        """The scores of all answers, before any softmax.

        Raises:
            ModelError: there is no `[batch, answers]` in the model's output.
        """
        if output.logits.ndim != 2:
            raise ModelError(
                f"{self.name} gives logits of shape {tuple(output.logits.shape)}; [batch, answers] "
                "is needed"
            )
        return output.logits

    def targets(self, output: AnswerOutput, task: Any) -> list[list[Target]]:
        """The forced answers for every sample, or each sample's own top ones, and the contrast.

        Raises:
            LabelError: an unknown answer, or more top answers than there are.
        """
        logits = self.logits(output)
        answers = logits.shape[1]
        if task.answers is not None:
            row = list(dict.fromkeys(self.index(answer, answers) for answer in task.answers))
            chosen = [row] * len(logits)
        elif task.top > answers:
            raise LabelError(
                f"top={task.top} is more than the {answers} answers of {self.name}; ask for fewer"
            )
        else:
            chosen = logits.detach().topk(task.top, dim=1).indices.tolist()
        contrast = []
        if task.contrast is not None:
            one, other = (self.index(answer, answers) for answer in task.contrast)
            contrast = [self._contrast(one, other)]
        known = {index: self._answer(index) for index in {i for row in chosen for i in row}}
        return [[*(known[index] for index in row), *contrast] for row in chosen]

    def _answer(self, index: int) -> Target:
        return Target(
            label=self.label(index),
            score=lambda output: output.logits[:, index],
            log_prob=lambda output: self.log_probs(output)[:, index],
            kind="answer",
            attention=_looks if self.has_attention else None,
        )

    def log_probs(self, output: AnswerOutput) -> Float[Tensor, "row answer"]:
        """The log-probability of every answer."""
        return output.logits.float().log_softmax(1)

    def _contrast(self, one: int, other: int) -> Target:
        return Target(
            label=f"{self.label(one)} rather than {self.label(other)}",
            score=lambda output: output.logits[:, one] - output.logits[:, other],
            kind="contrast",
            attention=_looks if self.has_attention else None,
        )

    def text(self, output: AnswerOutput, inputs: Inputs) -> Sequence[Mapping[str, Any] | None]:
        """The question as it was read, and the model's own first answers."""
        top = self.log_probs(output).exp().topk(min(TOP, output.logits.shape[1]))
        made = []
        for row, (text, question) in enumerate(
            zip(inputs.rest["questions"], inputs.rest["read"], strict=True)
        ):
            answers = zip(top.indices[row].tolist(), top.values[row].tolist(), strict=True)
            made.append(
                {
                    "question": text,
                    "words": [word.text for word in question.words],
                    "unknown_words": list(question.unknown),
                    "unread_words": question.unread,
                    "top": [{"answer": self.label(i), "probability": p} for i, p in answers],
                }
            )
        return made


def _looks(output: AnswerOutput) -> Tensor:
    """The mean attention over the model's levels."""
    assert output.looks is not None
    return output.looks.mean(1)


def _padded(tensors: Sequence[Tensor]) -> Tensor:
    """Tensors of one rank as a batch, short ones filled up with zeros at the end."""
    if tensors[0].ndim != 1:
        return torch.stack(list(tensors))
    return torch.nn.utils.rnn.pad_sequence(list(tensors), batch_first=True)
