"""Word-level vocabularies: each word is one token."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from mmcam.adapters.base.answerer import EncodedQuestion
from mmcam.adapters.base.captions import Sentence
from mmcam.errors import LabelError, ModelError, nearest
from mmcam.tasks.words import Word

SPECIAL = {"pad": "<pad>", "start": "<start>", "end": "<end>", "unknown": "<unk>"}


@dataclass(frozen=True)
class Vocabulary:
    """The words of a captioner's vocabulary, in the order of their tokens.

    Text is put in lower case and split by NLTK's word tokenizer. Punctuation is left out unless
    it is in the vocabulary. `special` maps the roles of `SPECIAL` to the vocabulary's own words;
    None for a role, "pad" or "unknown", that no word has.

    Raises:
        ModelError: a special token is missing.
    """

    words: Sequence[str]
    special: Mapping[str, str | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_tokens", {word: i for i, word in enumerate(self.words)})
        object.__setattr__(self, "special", {**SPECIAL, **self.special})
        for key, word in self.special.items():
            if word is not None or key in ("start", "end"):
                self.token(key)

    def token(self, key: str) -> int:
        """The token of a special word, by its key in `SPECIAL`."""
        word = self.special[key]
        if word is None or word not in self._index:
            raise ModelError(
                f"the vocabulary has no '{word}' ({key}); add it, or name the model's own as "
                f'"special": {{"{key}": ...}} in mmcam.json'
            )
        return self._index[word]

    @property
    def _index(self) -> dict[str, int]:
        index: dict[str, int] = self._tokens  # type: ignore[attr-defined]
        return index

    @property
    def suppressed_tokens(self) -> tuple[int, ...]:
        """The tokens that are never generated."""
        keys = [key for key in ("pad", "start", "unknown") if self.special[key] is not None]
        return tuple(self.token(key) for key in keys)

    def split(self, text: str) -> list[str]:
        """The words of a text, in lower case like those of the vocabulary."""
        from nltk.tokenize import NLTKWordTokenizer

        return [
            word
            for word in NLTKWordTokenizer().tokenize(text.lower())
            if any(character.isalnum() for character in word) or word in self._index
        ]

    def encode(self, text: str) -> Sentence:
        """A given caption as tokens.

        Raises:
            LabelError: the caption has words that are not in the vocabulary.
        """
        words = self.split(text)
        special = set(self.special.values())
        unknown = dict.fromkeys(w for w in words if w not in self._index or w in special)
        if unknown:
            ordinary = [word for word in self.words if word not in special]
            hints = "; ".join(f"'{word}' (nearest: {nearest(word, ordinary)})" for word in unknown)
            raise LabelError(
                f'the model cannot generate "{text}": its vocabulary of {len(self.words)} words '
                f"lacks {hints}. Use words of the vocabulary"
            )
        tokens = [self._index[word] for word in words]
        return self._sentence(" ".join(words), [*tokens, self.token("end")], len(words))

    def decode(self, tokens: Sequence[int]) -> Sentence:
        """A generated caption as text."""
        end = self.token("end")
        word_tokens = [token for token in tokens if token != end]
        text = " ".join(self.words[token] for token in word_tokens)
        return self._sentence(text, tokens, len(word_tokens), generated=True)

    def _sentence(
        self, text: str, tokens: Sequence[int], count: int, generated: bool = False
    ) -> Sentence:
        words = tuple(Word(self.words[tokens[i]], i, i + 1) for i in range(count))
        return Sentence(text, tuple(tokens), words, generated)


def read_vocabulary(path: Path, special: Mapping[str, str]) -> Vocabulary:
    """The vocabulary in a JSON file: a list of words, or a mapping from words to tokens 0, 1, ...

    Raises:
        ModelError: the file cannot be read, its content has another structure, or a special token
            is missing.
    """
    return Vocabulary(read_words(path), special)


@dataclass(frozen=True)
class QuestionTokenizer:
    """The words of a VQA model's vocabulary, in the order of their tokens.

    Questions are put in lower case and split at spaces and before punctuation at the end of a
    word. Words that are not in the vocabulary become `unknown`; a question is cut off after
    `max_tokens` words.

    Raises:
        ModelError: the vocabulary does not contain `unknown`.
    """

    words: Sequence[str]
    unknown: str = SPECIAL["unknown"]
    max_tokens: int = 26

    def __post_init__(self) -> None:
        object.__setattr__(self, "_tokens", {word: i for i, word in enumerate(self.words)})
        if self.unknown not in self.words:
            raise ModelError(
                f"the vocabulary has no '{self.unknown}' (unknown); add it, or name the model's "
                'own as "special": {"unknown": ...} in mmcam.json'
            )

    def __call__(self, text: str) -> EncodedQuestion:
        """A question as tokens `[word]` and their number."""
        index: dict[str, int] = self._tokens  # type: ignore[attr-defined]
        all_words = re.sub(r"\s*([?!.,;:]+)(?=\s|$)", r" \1", text.lower()).split()
        words = all_words[: self.max_tokens]
        tokens = [index.get(word, index[self.unknown]) for word in words]
        return EncodedQuestion(
            arguments=(torch.tensor(tokens), torch.tensor(len(tokens))),
            words=tuple(Word(word, i, i + 1) for i, word in enumerate(words)),
            unknown=tuple(
                word
                for word, token in zip(words, tokens, strict=True)
                if token == index[self.unknown] and any(map(str.isalnum, word))
            ),
            unread=len(all_words) - len(words),
        )


def read_words(path: Path) -> list[str]:
    """The words in a JSON file: a list of words, or a mapping from words to tokens 0, 1, ...

    Raises:
        ModelError: the file cannot be read, or its content has another structure.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"vocabulary '{path}' cannot be read ({error}); fix the file") from error
    words = word_list(content)
    if words is None:
        raise ModelError(
            f"vocabulary '{path}' is neither a list of words nor a mapping from words to the "
            "numbers 0, 1, 2, ...; fix the file"
        )
    return words


def word_list(content: Any) -> list[str] | None:
    """The words of a list or of a mapping from words to tokens 0, 1, ...; None for others."""
    if isinstance(content, Mapping):
        if sorted(content.values()) != list(range(len(content))):
            return None
        content = sorted(content, key=content.__getitem__)
    if not isinstance(content, (list, tuple)) or not all(isinstance(w, str) for w in content):
        return None
    return list(content)
