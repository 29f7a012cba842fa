"""Words: their spans, their tokens, and which of them are visual."""

from __future__ import annotations

import itertools
from typing import Any

import nltk
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmcam.tasks.words import Word, align, visual, word_spans


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a dog, running.", ["a", "dog", ",", "running", "."]),
        ("the dog's well-known toy", ["the", "dog's", "well-known", "toy"]),
        ("the dog\u2019s \u201ctoy\u201d", ["the", "dog\u2019s", "\u201c", "toy", "\u201d"]),
        ("一只狗在跑。", ["一", "只", "狗", "在", "跑", "。"]),
        ("собака бежит", ["собака", "бежит"]),
        ("कुत्ता दौड़ता है", ["कुत्ता", "दौड़ता", "है"]),
        ("كلب يجري", ["كلب", "يجري"]),
        ("2 dogs \U0001f415", ["2", "dogs", "\U0001f415"]),
        ("  ", []),
        ("", []),
    ],
)
def test_words_are_found_in_any_script(text: str, words: list[str]) -> None:
    assert [text[begin:end] for begin, end in word_spans(text)] == words


@pytest.mark.parametrize(
    ("text", "offsets", "words"),
    [
        # One token a word; a word of two tokens; punctuation by itself.
        ("a dog, running", [(0, 1), (2, 5), (5, 6), (7, 10), (10, 14)],
         [("a", 0, 1), ("dog", 1, 2), (",", 2, 3), ("running", 3, 5)]),
        # Tokens that carry the space before the word, as GPT-2's do.
        ("a dog", [(0, 1), (1, 5)], [("a", 0, 1), ("dog", 1, 2)]),
        # A token that is a space alone goes with the word behind it; at the end, with the last.
        ("ab cd ", [(0, 2), (2, 3), (3, 5), (5, 6)], [("ab", 0, 1), ("cd", 1, 4)]),
        # Two words in one token are one word.
        ("一只狗", [(0, 2), (2, 3)], [("一只", 0, 1), ("狗", 1, 2)]),
        ("a b c", [(0, 3), (3, 5)], [("a b", 0, 1), ("c", 1, 2)]),
        # A token across the end of one word and the beginning of the next.
        ("ab c d", [(0, 1), (1, 4), (4, 6)], [("ab c", 0, 2), ("d", 2, 3)]),
        # Several tokens for one character (bytes of an emoji).
        ("\U0001f415 b", [(0, 1), (0, 1), (0, 1), (1, 3)], [("\U0001f415", 0, 3), ("b", 3, 4)]),
        ("", [], []),
    ],
)  # fmt: skip
def test_every_token_belongs_to_one_word(text: str, offsets: Any, words: Any) -> None:
    assert align(text, offsets) == [Word(*word) for word in words]


@given(st.text(alphabet="ab ,'-狗\u0301", min_size=0, max_size=20), st.data())
def test_words_cover_the_tokens_in_order_whatever_the_tokenizer(text: str, data: Any) -> None:
    cuts = data.draw(st.lists(st.integers(1, max(1, len(text) - 1)), unique=True, max_size=8))
    marks = [0, *sorted(cut for cut in cuts if cut < len(text)), len(text)]
    offsets = [pair for pair in itertools.pairwise(marks) if pair[0] < pair[1]]
    words = align(text, offsets)
    if not words:
        assert not text.strip()
        return
    assert words[0].start == 0
    assert words[-1].stop == len(offsets)
    assert all(a.stop == b.start for a, b in itertools.pairwise(words))
    assert all(word.stop > word.start and word.text.strip() for word in words)
    # Every word's characters are within its tokens.
    for word in words:
        assert word.text in text[offsets[word.start][0] : offsets[word.stop - 1][1]]


def test_marks_have_no_letter_and_no_digit() -> None:
    marks = (",", "\u2026", "\U0001f415")
    words = ("2", "狗", "n't")
    assert all(Word(text, 0, 1).is_mark for text in marks)
    assert not any(Word(text, 0, 1).is_mark for text in words)


@pytest.fixture
def no_tagger(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(words: list[str]) -> None:
        raise LookupError

    monkeypatch.setattr(nltk, "pos_tag", missing)


@pytest.mark.usefixtures("no_tagger")
def test_function_words_are_not_visual() -> None:
    text = "The two dogs are running through a field of grass with their red ball ."
    words = text.split()
    visual_words = [word for word, is_visual in zip(words, visual(words), strict=True) if is_visual]
    assert visual_words == ["two", "dogs", "running", "field", "grass", "red", "ball"]


def test_the_tagger_is_heeded_where_its_data_is(monkeypatch: pytest.MonkeyPatch) -> None:
    tags = {"yonder": "IN", "dog": "NN"}
    monkeypatch.setattr(nltk, "pos_tag", lambda words: [(word, tags[word]) for word in words])
    assert visual(["yonder", "dog"]) == [False, True]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("iPhone手机", ["iPhone", "手", "机"]),
        ("3只猫", ["3", "只", "猫"]),
        ("2匹の犬", ["2", "匹", "の", "犬"]),
    ],
)
def test_characters_of_unspaced_scripts_are_words_also_after_other_letters(
    text: str, words: list[str]
) -> None:
    assert [text[start:stop] for start, stop in word_spans(text)] == words
