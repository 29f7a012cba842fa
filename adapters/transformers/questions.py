"""Questions in the prompts of transformers' models, and their answers as rows of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mmcam.adapters.base.captions import Sentence
from mmcam.adapters.base.offsets import Offsets
from mmcam.adapters.transformers.hooks import concatenate
from mmcam.adapters.transformers.model_types import ModelType
from mmcam.adapters.transformers.prompts import chat_prompt, image_token_of
from mmcam.adapters.transformers.tokens import TransformersTokenizer
from mmcam.errors import LabelError
from mmcam.tasks import Answers
from mmcam.tasks.words import Word, align
from mmcam.types import Inputs

QUESTION_MARKER = "\ue000"
"""Replaces a question to find its position in a prompt; a private-use character."""


class PromptQuestion(NamedTuple):
    """A question, its words with their positions in the prompt's tokens, and its unknown words.

    `words` is empty if the question is not found among the tokens.
    """

    text: str
    words: tuple[Word, ...]
    unknown: tuple[str, ...]


class AnswerSet(NamedTuple):
    """The answers to one question, the encoder's output, and the contrasted pair, if any.

    `contrast` holds the indices of the two answers.
    """

    answers: list[Sentence]
    contrast: tuple[int, int] | None
    encoder_output: Any


def question_prompt(name: str, processor: Any, model_type: ModelType, question: str) -> str:
    """A question as a prompt.

    Raises:
        LabelError: the model takes no questions, or the question contains the image token.
    """
    if model_type.question_template is None:
        raise LabelError(
            f"{name} generates captions and takes no questions; choose a model that answers "
            "questions (mmcam list models)"
        )
    image_token = image_token_of(processor)
    if model_type.feed == "interleaved" and image_token in question:
        raise LabelError(
            f"the question '{question}' contains '{image_token}', which stands for the picture in "
            f"the prompts of {name}; leave it out"
        )
    return model_type.question_template.format(question)


def locate_question(
    tokenizer: TransformersTokenizer,
    processor: Any,
    model_type: ModelType,
    question: str,
    tokens: Sequence[int],
) -> PromptQuestion:
    """Find the words of a question among the tokens of its prompt.

    Raises:
        LabelError: the tokenizer's vocabulary contains no word of the question, or the tokenizer
            drops all its characters.
    """
    template = model_type.question_template or ""
    text, marked = template.format(question), template.format(QUESTION_MARKER)
    if model_type.feed == "interleaved":
        text, marked = (chat_prompt(processor, model_type, prompt) for prompt in (text, marked))
    text_tokens, offsets = tokenizer.tokenize(text)
    begin = marked.find(QUESTION_MARKER)
    is_verbatim = text[begin : begin + len(question)] == question
    words = _locate_words(question, begin, text_tokens, offsets, tokens) if is_verbatim else ()
    unk = tokenizer.tokenizer.unk_token_id
    unknown = [w.text for w in words if unk in tokens[w.start : w.stop]]
    known = [w for w in words if not w.is_mark and unk not in tokens[w.start : w.stop]]
    end = begin + len(question)
    is_dropped = is_verbatim and all(b <= begin or a >= end for a, b in offsets)
    if is_dropped or (words and not known):
        raise LabelError(
            f"{tokenizer.name} knows no word of the question {question!r}; use the words and the "
            "language that it was trained on"
        )
    return PromptQuestion(question, words, tuple(unknown))


def _locate_words(
    question: str, begin: int, text_tokens: Sequence[int], offsets: Offsets, tokens: Sequence[int]
) -> tuple[Word, ...]:
    """The words of a question that begins at character `begin` of a tokenized text.

    From the question on, the prompt's tokens must equal those of the text; what precedes them may
    differ, such as image tokens or a start token. If they differ, no words are returned.
    """
    end = begin + len(question)
    inside = [i for i, (first, last) in enumerate(offsets) if first < end and last > begin]
    if not inside:
        return ()
    tail, prompt = list(text_tokens[inside[0] :]), list(tokens)
    starts = range(len(prompt) - len(tail), -1, -1)
    start = next((i for i in starts if prompt[i : i + len(tail)] == tail), None)
    if start is None:
        return ()
    spans = [(max(offsets[i][0] - begin, 0), offsets[i][1] - begin) for i in inside]
    return tuple(
        Word(word.text, start + word.start, start + word.stop) for word in align(question, spans)
    )


def answer_set(
    generated: Sequence[Sentence],
    encoder_output: Any,
    task: Answers,
    tokenizer: TransformersTokenizer,
) -> AnswerSet:
    """The generated and the given answers without duplicates, and the contrast, if any.

    Raises:
        LabelError: the tokenizer cannot encode an answer, or the two answers of the contrast have
            the same tokens.
    """
    texts = dict.fromkeys((*(task.answers or ()), *(task.contrast or ())))
    given = {text: tokenizer.encode(text) for text in texts}
    unique: dict[tuple[int, ...], Sentence] = {}
    for sentence in (*generated, *given.values()):
        unique.setdefault(sentence.tokens, sentence)
    indices = {tokens: index for index, tokens in enumerate(unique)}
    if task.contrast is None:
        return AnswerSet(list(unique.values()), None, encoder_output)
    first, second = (indices[given[text].tokens] for text in task.contrast)
    if first == second:
        raise LabelError(
            f"contrast={task.contrast!r} is not a contrast: both answers have the same tokens in "
            f"{tokenizer.name}; give two different answers"
        )
    return AnswerSet(list(unique.values()), (first, second), encoder_output)


def answer_rows(inputs: Inputs, answer_sets: Sequence[AnswerSet]) -> Inputs:
    """One row per answer: each sample's inputs are repeated for each of its answers."""
    sample_index = tuple(sample for sample, group in enumerate(answer_sets) for _ in group.answers)
    rows = torch.tensor(sample_index, device=inputs.pixels.device)
    rest: dict[str, Any] = {
        key: value[rows.to(value.device)]
        if isinstance(value, Tensor)
        else [value[sample] for sample in sample_index]
        for key, value in inputs.rest.items()
    }
    rest["sentences"] = [sentence for group in answer_sets for sentence in group.answers]
    contrasts = tuple(
        (
            sample_index.index(sample) + group.contrast[0],
            sample_index.index(sample) + group.contrast[1],
        )
        for sample, group in enumerate(answer_sets)
        if group.contrast is not None
    )
    return replace(
        inputs,
        pixels=inputs.pixels[rows],
        placements=tuple(inputs.placements[sample] for sample in sample_index),
        rest=rest,
        encoder_output=concatenate([answer_sets[sample].encoder_output for sample in sample_index]),
        sample_index=sample_index,
        contrasts=contrasts,
    )
