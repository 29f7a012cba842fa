"""Captions in the tokens of transformers' tokenizers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mmcam.adapters.transformers.tokens import TransformersTokenizer
from mmcam.errors import LabelError
from mmcam.tasks import Caption
from tests.adapters import tiny_tokenizers
from tests.adapters.tiny_generative import GIVEN, case_of, picture, ready, speaker

TOKENIZERS: dict[str, Callable[[], Any]] = {
    "word pieces": tiny_tokenizers.word_pieces,
    "byte pairs": lambda: tiny_tokenizers.byte_pairs(eos_token="<|endoftext|>"),
    "unigram": tiny_tokenizers.unigram,
    "sentence pieces": tiny_tokenizers.sentence_pieces,
    "gemma": lambda: tiny_tokenizers.sentence_pieces("GemmaTokenizer"),
}


def language_of(kind: str) -> TransformersTokenizer:
    tokenizer = TOKENIZERS[kind]()
    end = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else tokenizer.sep_token_id
    return TransformersTokenizer(tokenizer=tokenizer, name=kind, end_tokens=(end,))


def spelled(sentence: Any, tokenizer: Any) -> list[tuple[str, str]]:
    """Each word with what its own tokens say."""
    return [
        (word.text, tokenizer.decode(sentence.tokens[word.start : word.stop]).strip())
        for word in sentence.words
    ]


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("text", ["a man and two dogs running .", "dog", "the snow, a red ball"])
def test_words_are_what_their_tokens_say(kind: str, text: str) -> None:
    tokenizer = language_of(kind)
    given = tokenizer.encode(text)
    assert given.text == text
    said = tokenizer.decode(given.tokens)
    for sentence in (given, said):
        pairs = spelled(sentence, tokenizer.tokenizer)
        assert [word for word, _ in pairs] == text.replace(",", " ,").split()
        assert all(word == tokens.replace("##", "") for word, tokens in pairs)
        assert sentence.words[0].start == 0
        assert sentence.words[-1].stop == len(sentence.tokens) - 1
    assert said.tokens == given.tokens
    assert said.generated
    assert not given.generated


@pytest.mark.parametrize("kind", ["byte pairs", "sentence pieces", "gemma"])
def test_a_letter_of_several_tokens_is_one_word_with_all_of_them(kind: str) -> None:
    tokenizer = language_of(kind)
    text = "a \u72d7\u72ac dog \U0001f436 runs"
    for sentence in (tokenizer.encode(text), tokenizer.decode(tokenizer.encode(text).tokens)):
        assert sentence.text == text
        words = [word.text for word in sentence.words]
        assert words == ["a", "\u72d7", "\u72ac", "dog", "\U0001f436", "runs"]
        assert sentence.words[1].stop - sentence.words[1].start >= 3
        for word, tokens in spelled(sentence, tokenizer.tokenizer):
            assert word == tokens


def test_tokens_that_a_model_said_are_kept_though_they_spell_otherwise() -> None:
    """A word letter by letter, which the tokenizer would never do by itself."""
    tokenizer = language_of("byte pairs")
    vocabulary = tokenizer.tokenizer.get_vocab()
    tokens = [vocabulary[letter] for letter in ["a", "\u0120", "d", "o", "g", "s", "\u0120", "."]]
    said = tokenizer.decode(tokens)
    assert said.tokens == tuple(tokens)
    assert said.text == "a dogs ."
    assert [(w.text, w.start, w.stop) for w in said.words] == [
        ("a", 0, 1),
        ("dogs", 1, 6),
        (".", 6, 8),
    ]


def test_a_tokenizer_without_offsets_is_read_token_by_token(tmp_path: Path) -> None:
    from transformers import BertTokenizerLegacy

    fast = tiny_tokenizers.word_pieces()
    words = sorted(fast.get_vocab(), key=fast.get_vocab().__getitem__)
    (tmp_path / "vocabulary.txt").write_text("\n".join(words), encoding="utf-8")
    slow = BertTokenizerLegacy(str(tmp_path / "vocabulary.txt"))
    assert not slow.is_fast
    quick = TransformersTokenizer(tokenizer=fast, name="fast", end_tokens=(3,))
    other = TransformersTokenizer(tokenizer=slow, name="slow", end_tokens=(3,))
    for text in ("a man and two dogs running .", "The Snow, a red ball", "dog"):
        assert other.encode(text) == quick.encode(text)
        assert other.decode(quick.encode(text).tokens).words == quick.encode(text).words
    with pytest.raises(LabelError, match="'zebra'"):
        other.encode("a zebra runs")


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
        language_of(kind).encode(text)


def test_a_text_with_a_token_of_the_models_own_is_refused() -> None:
    with pytest.raises(LabelError, match=r"'</s>', a special token of .*; leave it out"):
        language_of("sentence pieces").encode("a dog </s> runs")


def test_case_is_the_tokenizers() -> None:
    assert language_of("word pieces").encode("A Brown DOG").text == "a brown dog"
    assert language_of("byte pairs").encode("A Brown DOG").text == "A Brown DOG"


def test_a_caption_is_spelled_as_it_follows_its_prompt() -> None:
    """With a space before it where the model says one, so that its first word is the same."""
    tokenizer = speaker(case_of("idefics3")).tokenizer
    assert tokenizer.separator == " "
    spaced = tokenizer.tokenizer(f" {GIVEN}", add_special_tokens=False)["input_ids"]
    assert list(tokenizer.encode(GIVEN).tokens[:-1]) == spaced
    case = case_of("blip-2 opt")
    adapter = speaker(case)
    for prompt, expected in ((None, GIVEN), ("the snow", f" {GIVEN}"), ("the snow ", GIVEN)):
        inputs = ready(adapter, picture(case.size), Caption(GIVEN, prompt=prompt))
        tokens = adapter.tokenizer.tokenizer(expected, add_special_tokens=False)["input_ids"]
        assert list(inputs.rest["sentences"][0].tokens[:-1]) == tokens
