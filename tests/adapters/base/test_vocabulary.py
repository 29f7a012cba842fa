"""Word-level vocabularies: text to tokens and back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mmcam.adapters.base.vocabulary import Vocabulary, read_vocabulary
from mmcam.errors import LabelError, ModelError
from mmcam.tasks.words import Word

WORDS = ("<pad>", "<start>", "<end>", "<unk>", "a", "dog", "runs", "狗", "'s", ",")


def test_a_caption_becomes_tokens_and_an_end() -> None:
    sentence = Vocabulary(WORDS).encode("A dog RUNS.")
    assert sentence.tokens == (4, 5, 6, 2)
    assert sentence.text == "a dog runs"
    assert sentence.words == (Word("a", 0, 1), Word("dog", 1, 2), Word("runs", 2, 3))
    assert not sentence.generated


def test_marks_are_kept_where_the_vocabulary_has_them() -> None:
    assert Vocabulary(WORDS).encode("a dog, a dog's!").tokens == (4, 5, 9, 4, 5, 8, 2)


def test_words_of_any_script_are_words() -> None:
    assert Vocabulary(WORDS).encode("a 狗").tokens == (4, 7, 2)


def test_the_empty_caption_is_the_end_alone() -> None:
    sentence = Vocabulary(WORDS).encode("")
    assert sentence.tokens == (2,)
    assert sentence.words == ()
    assert sentence.text == ""


def test_unknown_words_are_named_with_the_nearest_known() -> None:
    with pytest.raises(LabelError) as caught:
        Vocabulary(WORDS).encode("a dogg runs to <unk>")
    message = str(caught.value)
    assert "'dogg' (nearest: dog)" in message
    assert "'to'" in message
    assert "'unk'" in message
    assert "'runs'" not in message
    assert "<start>" not in message  # special words are not offered


@pytest.mark.parametrize(
    ("tokens", "text", "count"),
    [((4, 5, 2), "a dog", 2), ((4, 5), "a dog", 2), ((2,), "", 0)],
)
def test_generated_tokens_become_words(tokens: tuple[int, ...], text: str, count: int) -> None:
    sentence = Vocabulary(WORDS).decode(tokens)
    assert sentence.text == text
    assert len(sentence.words) == count
    assert sentence.generated
    assert sentence.tokens == tokens


def test_special_words_may_have_names_of_their_own() -> None:
    named = Vocabulary(("[PAD]", "[BOS]", "[EOS]", "[UNK]", "a"), dict(
        pad="[PAD]", start="[BOS]", end="[EOS]", unknown="[UNK]"
    ))  # fmt: skip
    assert named.token("start") == 1
    assert named.suppressed_tokens == (0, 1, 3)
    with pytest.raises(ModelError, match=r"no '<start>' \(start\).*\"special\""):
        Vocabulary(("[PAD]", "[BOS]"), {"pad": "[PAD]"})


@pytest.mark.parametrize("content", [list(WORDS), {word: i for i, word in enumerate(WORDS)}])
def test_vocabularies_are_lists_or_mappings(tmp_path: Path, content: object) -> None:
    path = tmp_path / "vocab.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    assert list(read_vocabulary(path, {}).words) == list(WORDS)


@pytest.mark.parametrize("content", ["{", '"words"', "[1, 2]", '{"a": 0, "b": 2}'])
def test_a_broken_vocabulary_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "vocab.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ModelError, match=r"vocab\.json.*fix the file"):
        read_vocabulary(path, {})
