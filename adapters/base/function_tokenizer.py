"""Captions as the tokens of a user's own functions."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from mmcam.adapters.base.captions import Sentence
from mmcam.adapters.base.offsets import offsets_in_decoded, stripped
from mmcam.errors import LabelError, MmcamError, ModelError, raised_as, reason_of
from mmcam.tasks.words import align


@dataclass(frozen=True, kw_only=True)
class FunctionTokenizer:
    """A user's functions from a text to tokens and back, for the model `name`.

    `encode_text` returns the tokens of a text without special tokens, and `decode_tokens` the text
    of such tokens. `start` and `end` are the tokens that begin and end a caption. The words of a
    caption are those of its decoded text.
    """

    name: str
    encode_text: Callable[[str], Any]
    decode_tokens: Callable[[list[int]], Any]
    start: int
    end: int

    def encode(self, text: str) -> Sentence:
        """Tokenize a given caption.

        Raises:
            LabelError: the tokens do not stand for the text, because words are unknown or `decode`
                does not invert `encode`.
            ModelError: as `_tokens`, or as `_decode`.
        """
        tokens = self._tokens(text)
        decoded, words = self._words(tokens)
        if _letters(decoded) != _letters(text):
            raise LabelError(
                f'{self.name} cannot generate "{text}": encode gives the tokens {tokens}, which '
                f'decode to "{decoded}". Use words of the vocabulary; if all are, let decode '
                "invert encode"
            )
        return Sentence(decoded, (*tokens, self.end), words)

    def decode(self, tokens: Sequence[int]) -> Sentence:
        """Decode a generated caption; its tokens are kept as they are.

        Raises:
            ModelError: `decode` fails or returns no text.
        """
        ended = bool(tokens) and tokens[-1] == self.end
        text, words = self._words(list(tokens[:-1] if ended else tokens))
        return Sentence(text, tuple(tokens), words, generated=True)

    def _words(self, tokens: list[int]) -> tuple[str, tuple[Any, ...]]:
        """The text of tokens, and its words with their tokens."""
        raw, offsets = self._decode(tokens), offsets_in_decoded(self._decode, tokens)
        text, offsets = stripped(raw, offsets)
        return text, tuple(align(text, offsets))

    def _tokens(self, text: str) -> list[int]:
        """The tokens of a text.

        Raises:
            LabelError: `encode` fails, as it does for a word that it does not know.
            ModelError: `encode` returns no numbers, or special tokens.
        """
        if not text.split():
            return []

        def convert(error: Exception) -> MmcamError:
            return LabelError(
                f'encode of {self.name} failed on "{text}" ({type(error).__name__}: '
                f"{reason_of(error)}); use words of the vocabulary, or fix encode"
            )

        with raised_as(convert):
            result = self.encode_text(text)
        try:
            tokens = [operator.index(t) for t in getattr(result, "tolist", lambda: result)()]
        except TypeError as error:
            raise ModelError(
                f'encode of {self.name} returns {result!r:.80} for "{text}"; let it return a list '
                "of token numbers"
            ) from error
        for role, token in (("start", self.start), ("end", self.end)):
            if token in tokens:
                raise ModelError(
                    f'encode of {self.name} returns {tokens} for "{text}", which contains the '
                    f"{role} token {token}; let it return the tokens of the words alone (without "
                    "special tokens)"
                )
        return tokens

    def _decode(self, tokens: Sequence[int]) -> str:
        """The text of tokens.

        Raises:
            ModelError: `decode` fails or returns no text.
        """
        if not tokens:
            return ""

        def convert(error: Exception) -> MmcamError:
            return ModelError(
                f"decode of {self.name} failed on the tokens {list(tokens)} "
                f"({type(error).__name__}: {reason_of(error)}); let it return the text of any "
                "tokens that the model generates"
            )

        with raised_as(convert):
            text = self.decode_tokens(list(tokens))
        if not isinstance(text, str):
            raise ModelError(
                f"decode of {self.name} returns {text!r:.80} for the tokens {list(tokens)}; let it "
                "return their text as one str (words joined by spaces)"
            )
        return text


def _letters(text: str) -> str:
    """The letters and digits of a text, which a tokenizer must keep; case does not count."""
    return "".join(character for character in text.casefold() if character.isalnum())
