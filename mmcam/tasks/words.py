"""Split a sentence of any script into words, align words with tokens, and find visual words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import regex

UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
"""The scripts that are written without spaces."""

LETTER = rf"[[\p{{L}}\p{{N}}\p{{M}}_]--[{UNSPACED}]]"
"""A letter, digit or mark of any other script."""

WORD = regex.compile(
    rf"[{UNSPACED}]\p{{M}}*|{LETTER}+(?:['\u2019\u2010-]{LETTER}+)*|[^\s]", regex.V1
)
"""A run of letters and digits with inner apostrophes and hyphens; each character of a script that
is written without spaces; each other character by itself."""

FUNCTION_TAGS = ("CC", "DT", "EX", "IN", "MD", "PDT", "POS", "PRP", "RP", "TO", "WDT", "WP", "WRB")
"""Penn Treebank tags of function words."""


@dataclass(frozen=True)
class Word:
    """A word of a sentence, and its tokens from `start` to `stop` (exclusive)."""

    text: str
    start: int
    stop: int

    @property
    def is_mark(self) -> bool:
        """Whether the word is punctuation or a symbol, without any letter or digit."""
        return not any(character.isalnum() for character in self.text)


def word_spans(text: str) -> list[tuple[int, int]]:
    """The start and end of each word of a text, in characters."""
    return [match.span() for match in WORD.finditer(text)]


def align(text: str, offsets: Sequence[tuple[int, int]]) -> list[Word]:
    """The words of a text that have tokens, each with its tokens; others are left out.

    If any word has a token, every token belongs to one word. `offsets` holds the start and end of
    each token in the text. Words that share a token are merged. A token without a word (a space)
    belongs to the next word, or if there is none, to the last word.
    """
    groups: list[tuple[int, int, int]] = []  # start and end in the text, last token
    for begin, end in word_spans(text):
        tokens = [i for i, (left, right) in enumerate(offsets) if left < end and right > begin]
        if groups and tokens and tokens[0] <= groups[-1][2]:
            groups[-1] = (groups[-1][0], end, tokens[-1])
        elif tokens:
            groups.append((begin, end, tokens[-1]))
    stops = [last_token + 1 for *_, last_token in groups[:-1]] + [len(offsets)]
    starts = [0, *stops[:-1]]
    return [
        Word(text[begin:end], start, stop)
        # Without any word, `groups` is empty, but `stops` has one entry.
        for (begin, end, _), start, stop in zip(groups, starts, stops, strict=False)
    ]


def visual(words: Sequence[str]) -> list[bool]:
    """For each word of an English sentence, whether the word is visual.

    Punctuation and function words are not visual. Function words are those of the packaged list
    (`data/function_words.txt`) and, if the data of NLTK's tagger is installed
    (`nltk.download("averaged_perceptron_tagger_eng")`), those that the tagger finds.
    """
    function_words = _function_words()
    tags = _tags(words)
    return [
        any(character.isalnum() for character in word)
        and word.casefold() not in function_words
        and tag not in FUNCTION_TAGS
        for word, tag in zip(words, tags, strict=True)
    ]


def _tags(words: Sequence[str]) -> list[str]:
    """The part-of-speech tag of each word; empty strings if NLTK's data is not installed."""
    from nltk import pos_tag

    try:
        return [tag for _, tag in pos_tag(list(words))]
    except LookupError:
        return [""] * len(words)


@cache
def _function_words() -> frozenset[str]:
    lines = files("mmcam.data").joinpath("function_words.txt").read_text(encoding="utf-8")
    return frozenset(
        word for line in lines.splitlines() if not line.startswith("#") for word in line.split()
    )
