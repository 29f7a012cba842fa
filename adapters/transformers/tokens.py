"""Captions as the tokens of a transformers tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mmcam.adapters.base.captions import Sentence
from mmcam.adapters.base.offsets import Offsets, offsets_in_decoded, stripped
from mmcam.errors import LabelError, nearest
from mmcam.tasks.words import align, word_spans

SPACE_MARKERS = "\u2581\u0120"
"""The characters that stand for a space in the tokens of SentencePiece and of byte-level BPE."""


@dataclass(frozen=True, kw_only=True)
class TransformersTokenizer:
    """A tokenizer, the tokens that end a caption, and the text that a caption follows.

    `context` is the end of the prompt, and `separator` the text between it and the caption. A given
    caption is tokenized as their continuation, because a word may have other tokens at the
    beginning of a text. `name` is the model's name, for errors.
    """

    tokenizer: Any
    name: str
    end_tokens: tuple[int, ...]
    context: str = ""
    separator: str = ""

    def encode(self, text: str) -> Sentence:
        """Tokenize a given caption.

        Raises:
            LabelError: the tokenizer has no tokens for some of the words, or the text contains a
                special token.
        """
        tokens, offsets = self._tokenize_in_context(text)
        self._check_encodable(text, tokens, offsets)
        lower = text.lower()
        if len(lower) == len(text) and self._tokenize_in_context(lower)[0] == tokens:
            text = lower  # the tokenizer ignores case
        return Sentence(text, (*tokens, self.end_tokens[0]), tuple(align(text, offsets)))

    def decode(self, tokens: Sequence[int]) -> Sentence:
        """Decode a generated caption; its tokens are kept as they are."""
        tokens = list(tokens)
        text_tokens = tokens[:-1] if tokens and tokens[-1] in self.end_tokens else tokens
        raw = self._decode_text(text_tokens)
        text = raw.strip()
        encoded, offsets = self._tokenize_in_context(text)
        if encoded != text_tokens:
            text, offsets = stripped(raw, offsets_in_decoded(self._decode_text, text_tokens))
        return Sentence(text, tuple(tokens), tuple(align(text, offsets)), generated=True)

    def _tokenize_in_context(self, text: str) -> tuple[list[int], Offsets]:
        """The tokens of a text that follows the context, and their offsets in the text."""
        if not text:
            return [], []
        context = self.tokenize(self.context)[0]
        start = len(self.context) + len(self.separator)
        whole, offsets = self.tokenize(self.context + self.separator + text)
        if whole[: len(context)] != context:  # a token spans the context and the caption
            return self.tokenize(text)
        shifted = [
            (max(begin - start, 0), max(end - start, 0)) for begin, end in offsets[len(context) :]
        ]
        return whole[len(context) :], shifted

    def tokenize(self, text: str) -> tuple[list[int], Offsets]:
        """The tokens of a text without context, and their offsets in the text."""
        is_fast = self.tokenizer.is_fast
        encoding = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=is_fast)
        tokens = list(encoding["input_ids"])
        if is_fast:
            return tokens, list(encoding["offset_mapping"])
        return tokens, self._offsets_in_text(text, tokens)

    def _offsets_in_text(self, text: str, tokens: list[int]) -> Offsets:
        """The offsets of tokens in the text that they encode, aligned by their decoded text."""
        decoded = self._decode_text(tokens)
        positions = _align_characters(decoded, text)
        return [
            (positions[begin], positions[end])
            for begin, end in offsets_in_decoded(self._decode_text, tokens)
        ]

    def _decode_text(self, tokens: Sequence[int]) -> str:
        text: str = self.tokenizer.decode(tokens, skip_special_tokens=True)
        return text

    def _check_encodable(self, text: str, tokens: Sequence[int], offsets: Offsets) -> None:
        """Check that the tokens encode the whole text and contain no special tokens.

        Raises:
            LabelError: a word cannot be encoded, or a token is special.
        """
        unk = self.tokenizer.unk_token_id
        known_spans = [span for token, span in zip(tokens, offsets, strict=True) if token != unk]
        unk_spans = [span for token, span in zip(tokens, offsets, strict=True) if token == unk]
        unknown = [
            text[begin:end]
            for begin, end in word_spans(text)
            if any(first < end and last > begin for first, last in unk_spans)
            or not any(first < end and last > begin for first, last in known_spans)
        ]
        if unknown:
            known = self._vocabulary_words()
            hints = "; ".join(
                f"'{w}' (nearest: {nearest(w, known)})" for w in dict.fromkeys(unknown)
            )
            raise LabelError(
                f'{self.name} cannot encode "{text}": its {len(self.tokenizer)} tokens cannot '
                f"spell {hints}. Use other words"
            )
        special = {*self.tokenizer.all_special_ids, *self.end_tokens} - {unk}
        for token, (begin, end) in zip(tokens, offsets, strict=True):
            if token in special:
                raise LabelError(
                    f"\"{text}\" contains '{text[begin:end]}', a special token of {self.name}; "
                    "leave it out"
                )

    def _vocabulary_words(self) -> list[str]:
        """The tokens made of letters, without space markers and without WordPiece continuations."""
        tokens: dict[str, int] = self.tokenizer.get_vocab()
        words = {token.lstrip(SPACE_MARKERS) for token in tokens if not token.startswith("##")}
        return sorted(word for word in words if word.isalpha())


def _align_characters(decoded: str, text: str) -> list[int]:
    """The position in `text` of each character of `decoded`, then the end; spaces may differ."""
    positions, start = [], 0
    for character in decoded:
        index = text.lower().find(character.lower(), start) if not character.isspace() else -1
        positions.append(start if index < 0 else index)
        start = start if index < 0 else index + 1
    return [*positions, len(text)]
