"""Captions as tokens of transformers' tokenizers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mmcam.adapters.transformers.tokens import TransformersTokenizer
from mmcam.errors import LabelError
from mmcam.tasks import Caption
from tests.adapters import tiny_tokenizers
from tests.adapters.tiny_generative import GIVEN, adapter_of, case_of, picture, prepared

TOKENIZERS: dict[str, Callable[[], Any]] = {
    "word pieces": tiny_tokenizers.word_pieces,
    "byte pairs": lambda: tiny_tokenizers.byte_pairs(eos_token="<|endoftext|>"),
    "unigram": tiny_tokenizers.unigram,
    "sentence pieces": tiny_tokenizers.sentence_pieces,
    "gemma": lambda: tiny_tokenizers.sentence_pieces("GemmaTokenizer"),
}


def tokenizer_of(kind: str) -> TransformersTokenizer:
    tokenizer = TOKENIZERS[kind]()
    end = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else tokenizer.sep_token_id
    return TransformersTokenizer(tokenizer=tokenizer, name=kind, end_tokens=(end,))


def words_and_decoded(sentence: Any, tokenizer: Any) -> list[tuple[str, str]]:
    """Each word with the text of its own tokens."""
    return [
        (word.text, tokenizer.decode(sentence.tokens[word.start : word.stop]).strip())
        for word in sentence.words
    ]


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("text", ["a man and two dogs running .", "dog", "the snow, a red ball"])
def test_words_equal_the_text_of_their_tokens(kind: str, text: str) -> None:
    tokenizer = tokenizer_of(kind)
    given = tokenizer.encode(text)
    assert given.text == text
    generated = tokenizer.decode(given.tokens)
    for sentence in (given, generated):
        pairs = words_and_decoded(sentence, tokenizer.tokenizer)
        assert [word for word, _ in pairs] == text.replace(",", " ,").split()
        assert all(word == tokens.replace("##", "") for word, tokens in pairs)
        assert sentence.words[0].start == 0
        assert sentence.words[-1].stop == len(sentence.tokens) - 1
    assert generated.tokens == given.tokens
    assert generated.generated
    assert not given.generated


@pytest.mark.parametrize("kind", ["byte pairs", "sentence pieces", "gemma"])
def test_a_letter_of_several_tokens_is_one_word_with_all_of_them(kind: str) -> None:
    tokenizer = tokenizer_of(kind)
    text = "a \u72d7\u72ac dog \U0001f436 runs"
    for sentence in (tokenizer.encode(text), tokenizer.decode(tokenizer.encode(text).tokens)):
        assert sentence.text == text
        words = [word.text for word in sentence.words]
        assert words == ["a", "\u72d7", "\u72ac", "dog", "\U0001f436", "runs"]
        assert sentence.words[1].stop - sentence.words[1].start >= 3
        for word, tokens in words_and_decoded(sentence, tokenizer.tokenizer):
            assert word == tokens


def test_generated_tokens_are_kept_if_the_tokenizer_would_split_otherwise() -> None:
    """A word letter by letter, which the tokenizer itself would never produce."""
    tokenizer = tokenizer_of("byte pairs")
    vocabulary = tokenizer.tokenizer.get_vocab()
    tokens = [vocabulary[letter] for letter in ["a", "\u0120", "d", "o", "g", "s", "\u0120", "."]]
    generated = tokenizer.decode(tokens)
    assert generated.tokens == tuple(tokens)
    assert generated.text == "a dogs ."
    assert [(w.text, w.start, w.stop) for w in generated.words] == [
        ("a", 0, 1),
        ("dogs", 1, 6),
        (".", 6, 8),
    ]


def test_a_tokenizer_without_offsets_is_decoded_token_by_token(tmp_path: Path) -> None:
    from transformers import BertTokenizerLegacy

    fast = tiny_tokenizers.word_pieces()
    words = sorted(fast.get_vocab(), key=fast.get_vocab().__getitem__)
    (tmp_path / "vocabulary.txt").write_text("\n".join(words), encoding="utf-8")
    slow = BertTokenizerLegacy(str(tmp_path / "vocabulary.txt"))
    assert not slow.is_fast
    fast_tokenizer = TransformersTokenizer(tokenizer=fast, name="fast", end_tokens=(3,))
    slow_tokenizer = TransformersTokenizer(tokenizer=slow, name="slow", end_tokens=(3,))
    for text in ("a man and two dogs running .", "The Snow, a red ball", "dog"):
        assert slow_tokenizer.encode(text) == fast_tokenizer.encode(text)
        assert (
            slow_tokenizer.decode(fast_tokenizer.encode(text).tokens).words
            == fast_tokenizer.encode(text).words
        )
    with pytest.raises(LabelError, match="'zebra'"):
        slow_tokenizer.encode("a zebra runs")


@pytest.mark.parametrize(
    ("kind", "text", "hint"),
    [
        ("word pieces", "a brwn dog", r"'brwn' \(nearest: brown"),
        ("word pieces", "a dog \u732b", r"'\u732b' \(nearest: none\)"),
        ("unigram", "a brown d\u00f6g", r"'d\u00f6g' \(nearest: dog"),
    ],
)
def test_words_that_cannot_be_spelled_are_named(kind: str, text: str, hint: str) -> None:
    with pytest.raises(LabelError, match=hint):
        tokenizer_of(kind).encode(text)


def test_a_text_with_a_special_token_is_refused() -> None:
    with pytest.raises(LabelError, match=r"'</s>', a special token of .*; leave it out"):
        tokenizer_of("sentence pieces").encode("a dog </s> runs")


def test_case_is_the_tokenizers() -> None:
    assert tokenizer_of("word pieces").encode("A Brown DOG").text == "a brown dog"
    assert tokenizer_of("byte pairs").encode("A Brown DOG").text == "A Brown DOG"


def test_a_caption_is_tokenized_as_it_follows_its_prompt() -> None:
    """With a leading space if the model generates one, so that the first token is the same."""
    tokenizer = adapter_of(case_of("idefics3")).tokenizer
    assert tokenizer.separator == " "
    spaced = tokenizer.tokenizer(f" {GIVEN}", add_special_tokens=False)["input_ids"]
    assert list(tokenizer.encode(GIVEN).tokens[:-1]) == spaced
    case = case_of("blip-2 opt")
    adapter = adapter_of(case)
    for prompt, expected in ((None, GIVEN), ("the snow", f" {GIVEN}"), ("the snow ", GIVEN)):
        inputs = prepared(adapter, picture(case.size), Caption(GIVEN, prompt=prompt))
        tokens = adapter.tokenizer.tokenizer(expected, add_special_tokens=False)["input_ids"]
        assert list(inputs.rest["sentences"][0].tokens[:-1]) == tokens
