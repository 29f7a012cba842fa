"""The COCO categories of the words of a caption (Grad-CAM, IJCV 2020, section 8.1.1).

The paper's table was made by hand, 830 words for 80 categories, and is not published. This table,
`data/coco_words.json`, is our own and can be edited. Plurals need no entries: words are reduced
to their singular by the table's irregular forms, by WordNet if its data is installed, or by rule.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

from mmcam.errors import InputError

Lemmatizer = Callable[[str], str]


class VisualWord(NamedTuple):
    """A word or phrase with a category: the words `first` to `position` of a caption.

    `position` is the word whose map is evaluated: the last one, the head noun.
    """

    first: int
    position: int
    category: str


def rule_singulars(word: str) -> Iterator[str]:
    """Candidates for a noun's singular by the rules of English spelling, the most likely first."""
    if word.endswith("ies") and len(word) > 4:
        yield word[:-3] + "y"
    if word.endswith("ves"):
        yield word[:-3] + "f"
    if word.endswith(("ses", "xes", "zes", "ches", "shes", "oes")):
        yield word[:-2]
    if word.endswith("s") and not word.endswith(("ss", "us")) and len(word) > 2:
        yield word[:-1]


@cache
def wordnet() -> Lemmatizer | None:
    """NLTK's WordNet lemmatizer of nouns; None if its data is not installed.

    To install it: `python -m nltk.downloader wordnet`.
    """
    from nltk.stem import WordNetLemmatizer

    lemmatizer = WordNetLemmatizer()
    try:
        lemmatizer.lemmatize("dogs")
    except LookupError:
        return None
    return lambda word: str(lemmatizer.lemmatize(word))


@dataclass(frozen=True)
class WordTable:
    """Words and phrases, each with its category or None.

    `lemmatize` returns the singular of a noun; None selects WordNet's lemmatizer if its data is
    installed. The rules of spelling are tried last.
    """

    entries: Mapping[tuple[str, ...], str | None]
    irregular: Mapping[str, str] = field(default_factory=dict)
    lemmatize: Lemmatizer | None = None

    @staticmethod
    def load(path: str | Path | None = None, lemmatize: Lemmatizer | None = None) -> WordTable:
        """Load a table from a JSON file; the table packaged with mmcam if `path` is None.

        The file has `categories` (category to words), and may have `none` (words without a
        category) and `irregular` (plural to singular).

        Raises:
            InputError: the file cannot be read, or assigns one word to two categories.
        """
        source = files("mmcam.data") / "coco_words.json" if path is None else Path(path)
        try:
            table = json.loads(source.read_text(encoding="utf-8"))
            rows = [(word, None) for word in table.get("none", ())]
            rows += [(word, name) for name, words in table["categories"].items() for word in words]
            irregular = dict(table.get("irregular", {}))
        except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
            raise InputError(
                f"{source} is not a table of words ({type(error).__name__}: {error}); it needs "
                '{"categories": {"dog": ["dog", "puppy"], ...}}'
            ) from error
        entries: dict[tuple[str, ...], str | None] = {}
        for word, category in rows:
            key = tuple(_plain(word).split())
            if entries.setdefault(key, category) != category:
                raise InputError(
                    f"{source} assigns '{word}' to both {entries[key]} and {category}; keep one"
                )
        return WordTable(entries, irregular, lemmatize)

    @property
    def categories(self) -> tuple[str, ...]:
        """All categories that have words, in the table's order."""
        return tuple(dict.fromkeys(name for name in self.entries.values() if name is not None))

    def category(self, word: str) -> str | None:
        """The category of a word or phrase, singular or plural, in any letter case, or None."""
        matches = self.find(word.split())
        whole = matches and matches[0].first == 0 and matches[0].position == len(word.split()) - 1
        return matches[0].category if whole else None

    def find(self, words: Sequence[str]) -> list[VisualWord]:
        """The words of a caption that have categories, in reading order.

        The longest phrase wins: "hot dog stand" contains no dog.

        Args:
            words: a caption's words; punctuation marks match nothing but have positions.
        """
        parts = [
            (position, part)
            for position, word in enumerate(words)
            for part in _plain(word).split() or [""]
        ]
        longest = max((len(entry) for entry in self.entries), default=0)
        matches, start = [], 0
        while start < len(parts):
            for length in range(min(longest, len(parts) - start), 0, -1):
                key = self._entry([part for _, part in parts[start : start + length]])
                if key is not None:
                    break
            else:
                start += 1
                continue
            category = self.entries[key]
            if category is not None:
                last = start + length - 1
                matches.append(VisualWord(parts[start][0], parts[last][0], category))
            start += length
        return matches

    def _entry(self, parts: Sequence[str]) -> tuple[str, ...] | None:
        """The key of a word or phrase in `entries`; only its last part may be a plural."""
        *leading, last = parts
        for form in self._forms(last):
            key = (*leading, form)
            if key in self.entries:
                return key
        return None

    def _forms(self, word: str) -> Iterator[str]:
        if not word:
            return
        yield word
        if word in self.irregular:
            yield self.irregular[word]
            return
        lemmatize = self.lemmatize or wordnet()
        if lemmatize is not None:
            yield lemmatize(word)
        yield from rule_singulars(word)


def _plain(word: str) -> str:
    """A word in lower case without possessive ending or punctuation, split at hyphens."""
    word = re.sub(r"[-_\u2010\u2011]", " ", word.lower().replace("\u2019", "'"))
    return re.sub(r"[^\w ]", "", re.sub(r"(?<=s)'|'s\b", "", word))
