"""Captions in the tokens of a tokenizer of transformers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mmcam.adapters.base.captions import Sentence
from mmcam.errors import LabelError, nearest
from mmcam.tasks.words import align, word_spans

Offsets = list[tuple[int, int]]
"""Where each token begins and ends in a text."""

MARKERS = "\u2581\u0120"
"""What stands for a space in the tokens of SentencePiece and of byte-level BPE."""


@dataclass(frozen=True, kw_only=True)
class TransformersTokenizer:
    """A tokenizer, the tokens that end a caption, and what a caption follows.

    A given caption is spelled as it is behind `context` and `gap`, the end of the prompt and what
    stands between the two: the same word has other tokens at the beginning of a text.
    """

    tokenizer: Any
    name: str
    ends: tuple[int, ...]
    context: str = ""
    gap: str = ""

    def encode(self, text: str) -> Sentence:
        """A given caption.

        Raises:
            LabelError: the tokenizer has no tokens for some of its words, or keeps one for itself.
        """
        tokens, offsets = self._spelled(text)
        self._check(text, tokens, offsets)
        lower = text.lower()
        if len(lower) == len(text) and self._spelled(lower)[0] == tokens:
            text = lower  # to this tokenizer they are the same
        return Sentence(text, (*tokens, self.ends[0]), tuple(align(text, offsets)))

    def decode(self, tokens: Sequence[int]) -> Sentence:
        """A caption that the model said, its tokens kept as they are."""
        tokens = list(tokens)
        spoken = tokens[:-1] if tokens and tokens[-1] in self.ends else tokens
        raw = self._text(spoken)
        text = raw.strip()
        same, offsets = self._spelled(text)
        if same != spoken:
            skipped = len(raw) - len(raw.lstrip())
            offsets = [(max(a - skipped, 0), max(b - skipped, 0)) for a, b in self._grown(spoken)]
        return Sentence(text, tuple(tokens), tuple(align(text, offsets)), generated=True)

    def _spelled(self, text: str) -> tuple[list[int], Offsets]:
        """The tokens of a text behind the context, and where they lie in it."""
        if not text:
            return [], []
        before = self.tokenized(self.context)[0]
        start = len(self.context) + len(self.gap)
        whole, offsets = self.tokenized(self.context + self.gap + text)
        if whole[: len(before)] != before:  # the caption's first letters melt with the context
            return self.tokenized(text)
        shifted = [(max(a - start, 0), max(b - start, 0)) for a, b in offsets[len(before) :]]
        return whole[len(before) :], shifted

    def tokenized(self, text: str) -> tuple[list[int], Offsets]:
        """The tokens of a text by itself, and where they lie in it."""
        fast = self.tokenizer.is_fast
        made = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=fast)
        tokens = list(made["input_ids"])
        return tokens, list(made["offset_mapping"]) if fast else self._within(text, tokens)

    def _within(self, text: str, tokens: list[int]) -> Offsets:
        """Where tokens lie in a text that they were made of: by their shares of what they say."""
        said = self._text(tokens)
        places = _places(said, text)
        return [(places[a], places[b]) for a, b in self._grown(tokens)]

    def _text(self, tokens: Sequence[int]) -> str:
        text: str = self.tokenizer.decode(tokens, skip_special_tokens=True)
        return text

    def _grown(self, tokens: Sequence[int]) -> Offsets:
        """Where each token lies in the text of all, from the text of the tokens up to it.

        A character of several tokens, of which each alone says nothing, belongs to all of them.
        """
        whole = self._text(tokens)
        offsets: Offsets = []
        reached, waiting = 0, 0
        for count in range(1, len(tokens) + 1):
            stop = _shared(whole, self._text(tokens[:count]))
            waiting += 1
            if stop > reached or count == len(tokens):
                offsets += [(reached, max(stop, reached))] * waiting
                reached, waiting = max(stop, reached), 0
        return offsets

    def _check(self, text: str, tokens: Sequence[int], offsets: Offsets) -> None:
        """That the tokens say the whole text, and nothing but text.

        Raises:
            LabelError: they do not.
        """
        lost = self.tokenizer.unk_token_id
        said = [place for token, place in zip(tokens, offsets, strict=True) if token != lost]
        gone = [place for token, place in zip(tokens, offsets, strict=True) if token == lost]
        unknown = [
            text[begin:end]
            for begin, end in word_spans(text)
            if any(a < end and b > begin for a, b in gone)
            or not any(a < end and b > begin for a, b in said)
        ]
        if unknown:
            known = self._words()
            hints = "; ".join(
                f"'{w}' (nearest: {nearest(w, known)})" for w in dict.fromkeys(unknown)
            )
            raise LabelError(
                f'{self.name} cannot say "{text}": its {len(self.tokenizer)} tokens cannot spell '
                f"{hints}. Use words that they can"
            )
        kept = {*self.tokenizer.all_special_ids, *self.ends} - {lost}
        for token, (begin, end) in zip(tokens, offsets, strict=True):
            if token in kept:
                raise LabelError(
                    f"\"{text}\" holds '{text[begin:end]}', a token that {self.name} keeps for "
                    "itself; leave it out"
                )

    def _words(self) -> list[str]:
        """The tokens that begin or are a word, without the marks of a tokenizer's kind."""
        tokens: dict[str, int] = self.tokenizer.get_vocab()
        words = {token.lstrip(MARKERS) for token in tokens if not token.startswith("##")}
        return sorted(word for word in words if word.isalpha())


def _shared(one: str, other: str) -> int:
    """How many letters two texts begin with in common."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((place for place, (a, b) in pairs if a != b), min(len(one), len(other)))


def _places(said: str, text: str) -> list[int]:
    """For each place in `said`, letter by letter, its place in `text`; spaces may differ."""
    places, at = [], 0
    for letter in said:
        found = text.lower().find(letter.lower(), at) if not letter.isspace() else -1
        places.append(at if found < 0 else found)
        at = at if found < 0 else found + 1
    return [*places, len(text)]
