"""Captions as tokens and words, and their scores, for every captioning family."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mmcam.errors import LabelError, nearest
from mmcam.tasks.caption import ALL, VISUAL, Caption
from mmcam.tasks.scores import LOG_PROB, LOGIT, MEAN_CONTRAST, mean_contrast, mean_of_finite
from mmcam.tasks.words import Word, visual
from mmcam.types import Target

EMPTY = "(no words)"
"""The label of an empty caption."""

PAD = 0
"""The token that pads short captions of a batch; no score depends on it."""


@dataclass(frozen=True)
class Sentence:
    """A caption: its text, its tokens with the end token, and its words.

    Every token belongs to a word of `words`, except the end token. A caption that was cut off at
    the length limit has no end token.
    """

    text: str
    tokens: tuple[int, ...]
    words: tuple[Word, ...]
    generated: bool = False


@runtime_checkable
class CaptionTokenizer(Protocol):
    """Text to tokens and back, for one model."""

    def encode(self, text: str) -> Sentence:
        """A given caption as tokens.

        Raises:
            LabelError: the caption cannot be written with the vocabulary.
        """
        ...

    def decode(self, tokens: Sequence[int]) -> Sentence:
        """A generated caption as text."""
        ...


def pad_tokens(sentences: Sequence[Sentence]) -> Tensor:
    """The tokens `[sentence, step]` of a batch, short captions padded."""
    steps = max(len(sentence.tokens) for sentence in sentences)
    rows = [(*s.tokens, *[PAD] * (steps - len(s.tokens))) for s in sentences]
    return torch.tensor(rows, dtype=torch.long)


@dataclass(eq=False)
class CaptionOutput:
    """A captioner's output for teacher-forced captions.

    `states` `[row, step, *]` predict, at step k, token k of the row's caption, given the tokens
    before it. If `out` is None, they are logits `[row, step, token]`; otherwise they are the inputs
    of the output layer `out`, and only the logits that a score needs are computed. There is one row
    per sentence, or several blocks of such rows (perturbed inputs of the same sentences).
    `suppressed_tokens` are never generated and have probability 0. `attention` `[row, step, *grid]`
    is the model's own attention at each step, if any.
    """

    states: Float[Tensor, "row step _"]
    sentences: Sequence[Sentence]
    suppressed_tokens: Sequence[int] = ()
    attention: Tensor | None = None
    out: nn.Linear | None = None

    @property
    def logits(self) -> Float[Tensor, "row step token"]:
        """The logits of every token at every step."""
        return self.states if self.out is None else self.out(self.states)

    def logit(self, start: int, tokens: Sequence[int]) -> Float[Tensor, " row"]:
        """The sum of the logits of consecutive tokens, from step `start` on."""
        states = self.states[:, start : start + len(tokens)]
        if self.out is None:
            return states[:, range(len(tokens)), tokens].sum(1)
        dtype = torch.promote_types(states.dtype, torch.float32)
        logit = (states.to(dtype) * self.out.weight[tokens].to(dtype)).sum((1, 2))
        return logit if self.out.bias is None else logit + self.out.bias[tokens].sum()

    def mean_contrast(self, start: int, tokens: Sequence[int]) -> Float[Tensor, " row"]:
        """The sum of the mean contrasts of consecutive tokens (`scores.mean_contrast`)."""
        states = self.states[:, start : start + len(tokens)]
        if self.out is None:
            logits = states.to(torch.promote_types(states.dtype, torch.float32))
            chosen = logits[:, range(len(tokens)), tokens]
            return mean_contrast(chosen, *mean_of_finite(logits)).sum(1)
        mean = (states * self._mean_weight).sum((1, 2))
        if self.out.bias is not None:
            mean = mean + self.out.bias.mean() * len(tokens)
        return mean_contrast(self.logit(start, tokens), mean, self.out.out_features)

    @cached_property
    def _mean_weight(self) -> Float[Tensor, " state"]:
        """The mean weights of all tokens in the output layer."""
        assert self.out is not None
        dtype = torch.promote_types(self.states.dtype, torch.float32)
        return self.out.weight.detach().to(dtype).mean(0)

    @cached_property
    def log_probs(self) -> Float[Tensor, "row step"]:
        """The log-probability of each token of each caption; 0 on padding."""
        dtype = torch.promote_types(self.states.dtype, torch.float32)
        tokens = pad_tokens(self.sentences).to(self.states.device)
        steps = torch.arange(tokens.shape[1], device=tokens.device)
        lengths = torch.tensor([len(s.tokens) for s in self.sentences], device=tokens.device)
        blocks = len(self.states) // len(tokens)
        mask = (steps < lengths[:, None]).repeat(blocks, 1)
        tokens = tokens.repeat(blocks, 1)
        has_closed_form_gradient = self.out is not None and self.states.requires_grad
        with torch.no_grad() if has_closed_form_gradient else nullcontext():
            logits = self.logits.to(dtype)
            if self.suppressed_tokens:
                suppressed_tokens = torch.tensor(self.suppressed_tokens).to(logits.device)
                logits = logits.index_fill(2, suppressed_tokens, -torch.inf)
            chosen = logits.gather(2, tokens[..., None])[..., 0]
            log_probs = torch.where(mask, chosen - logits.logsumexp(2), 0.0)
        if self.out is None or not has_closed_form_gradient:
            return log_probs
        # The gradient of the log-probabilities with respect to the states, computed once for all
        # scores: the weights of the token minus the mean of all tokens' weights under the predicted
        # probabilities. The added term is 0 and only carries this gradient.
        weight = self.out.weight.to(dtype)
        gradient = (weight[tokens] - logits.softmax(2) @ weight) * mask[..., None]
        states = self.states.to(dtype)
        return log_probs + ((states - states.detach()) * gradient).sum(2)


def caption_targets(
    sentences: Sequence[Sentence], task: Caption, has_attention: bool
) -> list[list[Target]]:
    """The targets of each caption: the sentence, then the requested words in reading order.

    Raises:
        LabelError: a requested word is not in the caption.
    """
    sentence_targets = {s.text: _sentence_target(s.text, has_attention) for s in sentences}
    return [
        [
            sentence_targets[s.text],
            *(_word_target(s, i, task, has_attention) for i in word_positions(s, task)),
        ]
        for s in sentences
    ]


def word_positions(sentence: Sentence, task: Caption) -> list[int]:
    """The positions of the words that a task requests, in reading order.

    Raises:
        LabelError: a requested word is not in the caption.
    """
    words = sentence.words
    if task.words == ALL:
        return [position for position, word in enumerate(words) if not word.is_mark]
    if task.words == VISUAL:
        are_visual = visual([word.text for word in words])
        return [position for position, is_visual in enumerate(are_visual) if is_visual]
    positions: set[int] = set()
    assert isinstance(task.words, tuple)
    for name in task.words:
        positions.update(_positions(sentence, name))
    return sorted(positions)


def _positions(sentence: Sentence, name: str | int) -> list[int]:
    texts = [word.text for word in sentence.words]
    if isinstance(name, str):
        matches = [i for i, text in enumerate(texts) if text.casefold() == name.casefold()]
        if matches or not name.isdecimal():
            if not matches:
                raise LabelError(
                    f"the caption \"{sentence.text}\" has no word '{name}'; nearest: "
                    f"{nearest(name, texts)}. Name one of its words, or give a caption (text) "
                    "that contains it"
                )
            return matches
    # A number that is not itself a word of the caption is a position.
    if not 0 <= int(name) < len(texts):
        raise LabelError(
            f'the caption "{sentence.text}" has no word {name}; its words are numbered 0 to '
            f"{len(texts) - 1}"
        )
    return [int(name)]


def _sentence_target(text: str, has_attention: bool) -> Target:
    def log_prob(output: CaptionOutput) -> Tensor:
        return output.log_probs.sum(1)

    def attention(output: CaptionOutput) -> Tensor:
        assert output.attention is not None
        # Only the first block of rows, one row for each sentence.
        return torch.stack(
            [
                row[: len(sentence.tokens)].mean(0)
                for sentence, row in zip(output.sentences, output.attention, strict=False)
            ]
        )

    return Target(
        label=text or EMPTY,
        score=log_prob,
        score_name=LOG_PROB,
        kind="sentence",
        log_prob=log_prob,
        attention=attention if has_attention else None,
    )


def _word_target(sentence: Sentence, position: int, task: Caption, has_attention: bool) -> Target:
    word = sentence.words[position]
    tokens = list(sentence.tokens[word.start : word.stop])

    def logit(output: CaptionOutput) -> Tensor:
        return output.logit(word.start, tokens)

    def contrast(output: CaptionOutput) -> Tensor:
        return output.mean_contrast(word.start, tokens)

    def log_prob(output: CaptionOutput) -> Tensor:
        return output.log_probs[:, word.start : word.stop].sum(1)

    def attention(output: CaptionOutput) -> Tensor:
        assert output.attention is not None
        return output.attention[:, word.start : word.stop].mean(1)

    return Target(
        label=word.text,
        score={LOGIT: logit, LOG_PROB: log_prob, MEAN_CONTRAST: contrast}[task.score],
        score_name=task.score,
        kind="word",
        position=position,
        log_prob=log_prob,
        attention=attention if has_attention else None,
    )


def answer_targets(sentences: Sequence[Sentence], has_attention: bool) -> list[list[Target]]:
    """A target for the answer of each row, scored by the log-likelihood of the answer's tokens."""
    return [[replace(_sentence_target(s.text, has_attention), kind="answer")] for s in sentences]


def answer_facts(
    output: CaptionOutput, questions: Sequence[str], sample_index: Sequence[int]
) -> list[dict[str, Any]]:
    """The question and the answers of each sample, with log-likelihoods in total and per token.

    Args:
        output: a row for each answer.
        questions: the question of each sample.
        sample_index: the sample that each row belongs to.
    """
    records: list[dict[str, Any]] = [{"question": text, "answers": []} for text in questions]
    for answer, sample in zip(caption_facts(output), sample_index, strict=True):
        records[sample]["answers"].append(
            {
                "answer": answer["caption"],
                "generated": answer["generated"],
                "log_likelihood": answer["log_prob"],
                "per_token": answer["log_prob"] / max(1, len(answer["tokens"])),
                "tokens": answer["tokens"],
                "token_log_probs": answer["token_log_probs"],
            }
        )
    return records


def caption_facts(output: CaptionOutput) -> list[dict[str, Any]]:
    """The caption (or answer) of each row, its words and its tokens, with log-probabilities."""
    log_probs = output.log_probs.tolist()
    records = []
    for sentence, row in zip(output.sentences, log_probs, strict=True):
        word_token_count = sentence.words[-1].stop if sentence.words else 0
        records.append(
            {
                "caption": sentence.text,
                "generated": sentence.generated,
                "log_prob": sum(row[: len(sentence.tokens)]),
                "words": [
                    {"text": w.text, "position": i, "log_prob": sum(row[w.start : w.stop])}
                    for i, w in enumerate(sentence.words)
                ],
                "tokens": list(sentence.tokens),
                "token_log_probs": row[: len(sentence.tokens)],
                "ended": len(sentence.tokens) > word_token_count,
            }
        )
    return records
