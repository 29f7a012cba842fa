"""Captions as tokens and words, and the scores of them: what every captioning family shares."""

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
from mmcam.tasks.words import Word, visual
from mmcam.types import Target

EMPTY = "(no words)"
"""The label of a caption that ends at once."""

PAD = 0
"""The token that fills short captions of a batch; no score looks there."""


@dataclass(frozen=True)
class Sentence:
    """A caption: its text, the tokens that spell it and end it, and its words.

    `words` cover the tokens from the first to the last; only the token that ends the caption, where
    there is one, is no word's. A caption that was cut off at the limit has none.
    """

    text: str
    tokens: tuple[int, ...]
    words: tuple[Word, ...]
    generated: bool = False


@runtime_checkable
class CaptionTokenizer(Protocol):
    """From text to tokens and back, as one model has them."""

    def encode(self, text: str) -> Sentence:
        """A given caption.

        Raises:
            LabelError: the model cannot say it.
        """
        ...

    def decode(self, tokens: Sequence[int]) -> Sentence:
        """A caption that the model said."""
        ...


def padded(sentences: Sequence[Sentence]) -> Tensor:
    """The tokens `[sentence, step]` of a batch, short captions filled up."""
    steps = max(len(sentence.tokens) for sentence in sentences)
    rows = [(*s.tokens, *[PAD] * (steps - len(s.tokens))) for s in sentences]
    return torch.tensor(rows, dtype=torch.long)


@dataclass(eq=False)
class CaptionOutput:
    """A captioner's output for captions that were put into its mouth.

    `states` `[row, step, *]` at step k are what token k of the row's caption is said from, given
    the tokens before it: logits `[row, step, token]`, or, with `out`, what that layer makes logits
    of; only the logits that a score asks for are made then. Rows are those of the sentences, or
    whole blocks of them (changed inputs of one sentence). `suppressed_tokens` are never generated
    and have no probability. `attention` `[row, step, *grid]` is the model's own attention at each
    step, if it has any.
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
        """The sum of the logits of some tokens, said one after the other from step `start` on."""
        states = self.states[:, start : start + len(tokens)]
        if self.out is None:
            return states[:, range(len(tokens)), tokens].sum(1)
        wide = torch.promote_types(states.dtype, torch.float32)
        made = (states.to(wide) * self.out.weight[tokens].to(wide)).sum((1, 2))
        return made if self.out.bias is None else made + self.out.bias[tokens].sum()

    @cached_property
    def log_probs(self) -> Float[Tensor, "row step"]:
        """The log-probability of each token of each caption; 0 behind its end."""
        wide = torch.promote_types(self.states.dtype, torch.float32)
        tokens = padded(self.sentences).to(self.states.device)
        steps = torch.arange(tokens.shape[1], device=tokens.device)
        lengths = torch.tensor([len(s.tokens) for s in self.sentences], device=tokens.device)
        blocks = len(self.states) // len(tokens)
        inside = (steps < lengths[:, None]).repeat(blocks, 1)
        tokens = tokens.repeat(blocks, 1)
        linear = self.out is not None and self.states.requires_grad
        with torch.no_grad() if linear else nullcontext():
            logits = self.logits.to(wide)
            if self.suppressed_tokens:
                suppressed_tokens = torch.tensor(self.suppressed_tokens).to(logits.device)
                logits = logits.index_fill(2, suppressed_tokens, -torch.inf)
            chosen = logits.gather(2, tokens[..., None])[..., 0]
            made = torch.where(inside, chosen - logits.logsumexp(2), 0.0)
        if self.out is None or not linear:
            return made
        # The gradient at the states, once for all scores: the token's weights less the mean of all
        # tokens' under their probabilities.
        weight = self.out.weight.to(wide)
        slope = (weight[tokens] - logits.softmax(2) @ weight) * inside[..., None]
        states = self.states.to(wide)
        return made + ((states - states.detach()) * slope).sum(2)


def caption_targets(
    sentences: Sequence[Sentence], task: Caption, has_attention: bool
) -> list[list[Target]]:
    """For each caption the sentence, and the words that are asked for, in reading order.

    Raises:
        LabelError: a word that the caption does not have.
    """
    whole = {s.text: _sentence(s.text, has_attention) for s in sentences}
    return [
        [whole[s.text], *(_word(s, position, task, has_attention) for position in asked(s, task))]
        for s in sentences
    ]


def asked(sentence: Sentence, task: Caption) -> list[int]:
    """The positions of the words that a task asks for, in reading order.

    Raises:
        LabelError: a word that the caption does not have.
    """
    words = sentence.words
    if task.words == ALL:
        return [position for position, word in enumerate(words) if not word.is_mark]
    if task.words == VISUAL:
        seen = visual([word.text for word in words])
        return [position for position, is_visual in enumerate(seen) if is_visual]
    found: set[int] = set()
    for name in task.words or ():
        found.update(_positions(sentence, name))
    return sorted(found)


def _positions(sentence: Sentence, name: str | int) -> list[int]:
    texts = [word.text for word in sentence.words]
    if isinstance(name, str):
        same = [i for i, text in enumerate(texts) if text.casefold() == name.casefold()]
        if same or not name.isdecimal():
            if not same:
                raise LabelError(
                    f"the caption \"{sentence.text}\" has no word '{name}'; nearest: "
                    f"{nearest(name, texts)}. Name one of its words, or give the caption (text) "
                    "that has it"
                )
            return same
    if not 0 <= int(name) < len(texts):
        raise LabelError(
            f'the caption "{sentence.text}" has no word {name}; its words are numbered 0 to '
            f"{len(texts) - 1}"
        )
    return [int(name)]


def _sentence(text: str, has_attention: bool) -> Target:
    def log_prob(output: CaptionOutput) -> Tensor:
        return output.log_probs.sum(1)

    def attention(output: CaptionOutput) -> Tensor:
        assert output.attention is not None
        return torch.stack(
            [
                row[: len(sentence.tokens)].mean(0)
                for sentence, row in zip(output.sentences, output.attention, strict=False)
            ]
        )

    return Target(
        label=text or EMPTY,
        score=log_prob,
        kind="sentence",
        log_prob=log_prob,
        attention=attention if has_attention else None,
    )


def _word(sentence: Sentence, position: int, task: Caption, has_attention: bool) -> Target:
    word = sentence.words[position]
    tokens = list(sentence.tokens[word.start : word.stop])

    def logit(output: CaptionOutput) -> Tensor:
        return output.logit(word.start, tokens)

    def log_prob(output: CaptionOutput) -> Tensor:
        return output.log_probs[:, word.start : word.stop].sum(1)

    def attention(output: CaptionOutput) -> Tensor:
        assert output.attention is not None
        return output.attention[:, word.start : word.stop].mean(1)

    return Target(
        label=word.text,
        score=logit if task.score == "logit" else log_prob,
        kind="word",
        position=position,
        log_prob=log_prob,
        attention=attention if has_attention else None,
    )


def answer_targets(sentences: Sequence[Sentence], has_attention: bool) -> list[list[Target]]:
    """For each row the answer that it says, scored by the log-likelihood of its tokens."""
    return [[replace(_sentence(s.text, has_attention), kind="answer")] for s in sentences]


def answer_facts(
    output: CaptionOutput, questions: Sequence[str], sample_index: Sequence[int]
) -> list[dict[str, Any]]:
    """What was asked of each sample and answered: log-likelihoods, also per token.

    Args:
        output: a row for each answer.
        questions: one for each sample.
        sample_index: the sample that each row belongs to.
    """
    made: list[dict[str, Any]] = [{"question": text, "answers": []} for text in questions]
    for one, owner in zip(facts(output), sample_index, strict=True):
        made[owner]["answers"].append(
            {
                "answer": one["caption"],
                "generated": one["generated"],
                "log_likelihood": one["log_prob"],
                "per_token": one["log_prob"] / max(1, len(one["tokens"])),
                "tokens": one["tokens"],
                "token_log_probs": one["token_log_probs"],
            }
        )
    return made


def facts(output: CaptionOutput) -> list[dict[str, Any]]:
    """What was said of each sample: the caption, its words and tokens with log-probabilities."""
    values = output.log_probs.tolist()
    made = []
    for sentence, row in zip(output.sentences, values, strict=True):
        spelled = sentence.words[-1].stop if sentence.words else 0
        made.append(
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
                "ended": len(sentence.tokens) > spelled,
            }
        )
    return made
