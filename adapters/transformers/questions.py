"""Questions in the prompts of transformers' models, and their answers as rows of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mmcam.adapters.base.captions import Sentence
from mmcam.adapters.transformers.hooks import concatenate
from mmcam.adapters.transformers.model_types import ModelType
from mmcam.adapters.transformers.prompts import chat_prompt, image_token_of
from mmcam.adapters.transformers.tokens import Offsets, TransformersTokenizer
from mmcam.errors import LabelError
from mmcam.tasks import Answers
from mmcam.tasks.words import Word, align
from mmcam.types import Inputs

QUESTION_MARKER = "\ue000"
"""Stands for a question where its place in a prompt is looked up; no text has it."""


class PromptQuestion(NamedTuple):
    """A question, its words with their places among the prompt's tokens, and those unknown."""

    text: str
    words: tuple[Word, ...]
    unknown: tuple[str, ...]


class AnswerSet(NamedTuple):
    """The answers to one question, which two of them are a contrast, and what the encoder saw."""

    answers: list[Sentence]
    pair: tuple[int, int] | None
    encoder_output: Any


def wrapped(name: str, processor: Any, model_type: ModelType, question: str) -> str:
    """A question as a prompt.

    Raises:
        LabelError: a model of captions alone, or a question with the mark of a picture in it.
    """
    if model_type.question is None:
        raise LabelError(
            f"{name} says captions and takes no question; choose a model that answers questions "
            "(mmcam list models)"
        )
    mark = image_token_of(processor)
    if model_type.feed == "interleaved" and mark in question:
        raise LabelError(
            f"the question '{question}' holds '{mark}', which stands for the picture in the "
            f"prompts of {name}; leave it out"
        )
    return model_type.question.format(question)


def read(
    tokenizer: TransformersTokenizer,
    processor: Any,
    model_type: ModelType,
    question: str,
    tokens: Sequence[int],
) -> PromptQuestion:
    """The words of a question, found among the tokens of its prompt.

    Raises:
        LabelError: the tokenizer knows no word of it.
    """
    template = model_type.question or ""
    text, before = template.format(question), template.format(QUESTION_MARKER)
    if model_type.feed == "interleaved":
        text, before = (chat_prompt(processor, model_type, prompt) for prompt in (text, before))
    spelled, offsets = tokenizer.tokenized(text)
    begin = before.find(QUESTION_MARKER)
    stands = text[begin : begin + len(question)] == question
    words = _placed(question, begin, spelled, offsets, tokens) if stands else ()
    lost = tokenizer.tokenizer.unk_token_id
    unknown = [w.text for w in words if lost in tokens[w.start : w.stop]]
    known = [w for w in words if not w.is_mark and lost not in tokens[w.start : w.stop]]
    if words and not known:
        raise LabelError(
            f"{tokenizer.name} knows no word of the question '{question}'; ask in the words and "
            "the language that it was trained on"
        )
    return PromptQuestion(question, words, tuple(unknown))


def _placed(
    question: str, begin: int, spelled: Sequence[int], offsets: Offsets, tokens: Sequence[int]
) -> tuple[Word, ...]:
    """The words of a question that stands at `begin` of a text spelled like this.

    From the question on, the prompt's tokens are those of the text, whatever comes before them:
    the places of the picture, a token of the beginning. Where they are not, no words are told.
    """
    end = begin + len(question)
    inside = [i for i, (first, last) in enumerate(offsets) if first < end and last > begin]
    if not inside:
        return ()
    run, wanted = list(spelled[inside[0] :]), list(tokens)
    starts = range(len(wanted) - len(run), -1, -1)
    start = next((i for i in starts if wanted[i : i + len(run)] == run), None)
    if start is None:
        return ()
    spans = [(max(offsets[i][0] - begin, 0), offsets[i][1] - begin) for i in inside]
    return tuple(
        Word(word.text, start + word.start, start + word.stop) for word in align(question, spans)
    )


def reply(
    own: Sequence[Sentence], encoder_output: Any, task: Answers, tokenizer: TransformersTokenizer
) -> AnswerSet:
    """The model's own or the given answers, each once, with those of the contrast.

    Raises:
        LabelError: the model cannot say one of them, or the two of the contrast are the same to it.
    """
    texts = dict.fromkeys((*(task.answers or ()), *(task.contrast or ())))
    given = {text: tokenizer.encode(text) for text in texts}
    rows: dict[tuple[int, ...], Sentence] = {}
    for sentence in (*own, *given.values()):
        rows.setdefault(sentence.tokens, sentence)
    numbers = {tokens: number for number, tokens in enumerate(rows)}
    if task.contrast is None:
        return AnswerSet(list(rows.values()), None, encoder_output)
    one, other = (numbers[given[text].tokens] for text in task.contrast)
    if one == other:
        raise LabelError(
            f"contrast={task.contrast!r} is no contrast: to {tokenizer.name} both are the same "
            "tokens; give two different answers"
        )
    return AnswerSet(list(rows.values()), (one, other), encoder_output)


def spread(inputs: Inputs, replies: Sequence[AnswerSet]) -> Inputs:
    """A row for each answer: pictures and all that goes with them, once for each of theirs."""
    sample_index = tuple(place for place, made in enumerate(replies) for _ in made.answers)
    rows = torch.tensor(sample_index, device=inputs.pixels.device)
    rest: dict[str, Any] = {
        key: value[rows.to(value.device)]
        if isinstance(value, Tensor)
        else [value[owner] for owner in sample_index]
        for key, value in inputs.rest.items()
    }
    rest["sentences"] = [sentence for made in replies for sentence in made.answers]
    contrasts = tuple(
        (sample_index.index(place) + made.pair[0], sample_index.index(place) + made.pair[1])
        for place, made in enumerate(replies)
        if made.pair is not None
    )
    return replace(
        inputs,
        pixels=inputs.pixels[rows],
        placements=tuple(inputs.placements[owner] for owner in sample_index),
        rest=rest,
        encoder_output=concatenate([replies[owner].encoder_output for owner in sample_index]),
        sample_index=sample_index,
        contrasts=contrasts,
    )
