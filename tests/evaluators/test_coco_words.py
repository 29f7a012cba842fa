"""The table of words: what captions say, as COCO's categories."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from mmcam.errors import InputError
from mmcam.evaluators.coco_words import VisualWord, WordTable, rule_singulars, wordnet
from mmcam.tasks.words import word_spans


@pytest.fixture(scope="module")
def table() -> WordTable:
    """The packaged table, by rule alone, so that results do not depend on NLTK's data."""
    return WordTable.load(lemmatize=lambda word: word)


def phrases(table: WordTable, caption: str) -> list[tuple[str, str]]:
    words = caption.split()
    return [(" ".join(words[w.first : w.position + 1]), w.category) for w in table.find(words)]


def test_there_are_cocos_eighty_categories_and_each_is_its_own_word(table: WordTable) -> None:
    assert len(table.categories) == 80
    for name in table.categories:
        assert table.category(name) == name
        assert table.category(name.title()) == name


@pytest.mark.parametrize(
    ("word", "category"),
    [
        ("men", "person"),
        ("women", "person"),
        ("children", "person"),
        ("boys", "person"),
        ("ladies", "person"),
        ("child's", "person"),
        ("people", "person"),
        ("Puppies", "dog"),
        ("bikes", "bicycle"),
        ("buses", "bus"),
        ("busses", "bus"),
        ("knives", "knife"),
        ("geese", "bird"),
        ("sheep", "sheep"),
        ("calves", "cow"),
        ("benches", "bench"),
        ("wine glasses", "wine glass"),
        ("sandwiches", "sandwich"),
        ("potted plants", "potted plant"),
        ("tennis racquets", "tennis racket"),
        ("cell phones", "cell phone"),
        ("cell-phone", "cell phone"),
        ("skis", "skis"),
        ("hot dogs", "hot dog"),
        ("scissors", "scissors"),
        ("tvs", "tv"),
        ("airplanes.", "airplane"),
        ("couches", "couch"),
        ("toothbrushes", "toothbrush"),
        ("the", None),
        ("grass", None),
        ("glasses", None),
        ("skies", None),
        ("train station", None),
        ("red bus", None),
        ("", None),
    ],
)
def test_words_in_any_form(table: WordTable, word: str, category: str | None) -> None:
    assert table.category(word) == category


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("a hot dog on a plate", [("hot dog", "hot dog")]),
        ("a dog beside a fire hydrant .", [("dog", "dog"), ("fire hydrant", "fire hydrant")]),
        ("a couple of zebras", [("zebras", "zebra")]),
        ("a couple on a park bench", [("couple", "person"), ("park bench", "bench")]),
        ("bus stop by a train station", []),
        ("the stuffed bears and a bear", [("stuffed bears", "teddy bear"), ("bear", "bear")]),
        ("a baseball player , his bat", [("baseball player", "person"), ("bat", "baseball bat")]),
        ("", []),
    ],
)
def test_the_longest_phrase_wins(
    table: WordTable, caption: str, expected: list[tuple[str, str]]
) -> None:
    assert phrases(table, caption) == expected


def test_positions_are_those_of_the_caption_with_its_marks(table: WordTable) -> None:
    caption = 'A "teddy-bear", two traffic lights.'
    words = [caption[start:stop] for start, stop in word_spans(caption)]
    matches = {w.category: w for w in table.find(words)}
    assert words[matches["traffic light"].position] == "lights"
    assert words[matches["traffic light"].first] == "traffic"
    assert table.find(["a", ",", "stop", "sign"]) == [VisualWord(2, 3, "stop sign")]
    # A mark parts a phrase.
    assert table.find(["stop", ",", "sign"]) == []


def test_a_word_of_two_parts_is_one_position(table: WordTable) -> None:
    assert table.find(["a", "fire-hydrant"]) == [VisualWord(1, 1, "fire hydrant")]


def test_a_table_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "words.json"
    path.write_text(json.dumps({"categories": {"animal": ["dog", "big cat"]}, "none": ["dog tag"]}))
    own = WordTable.load(path, lemmatize=lambda word: word)
    assert own.categories == ("animal",)
    assert own.category("dogs") == own.category("Big Cats") == "animal"
    assert own.category("dog tags") is None


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "JSONDecodeError"),
        ("{}", "KeyError"),
        ("[]", "AttributeError"),
        ('{"categories": {"a": ["x"], "b": ["X"]}}', "both a and b"),
    ],
)
def test_a_broken_table_is_an_error(tmp_path: Path, content: str, words: str) -> None:
    path = tmp_path / "words.json"
    path.write_text(content)
    with pytest.raises(InputError, match=words):
        WordTable.load(path)
    with pytest.raises(InputError, match="absent"):
        WordTable.load(tmp_path / "absent.json")


@pytest.mark.parametrize(
    ("plural", "singular"),
    [("ponies", "pony"), ("wolves", "wolf"), ("boxes", "box"), ("ties", "tie"), ("dogs", "dog")],
)
def test_singulars_by_rule(plural: str, singular: str) -> None:
    assert singular in list(rule_singulars(plural))


@pytest.mark.parametrize("word", ["bus", "glass", "sheep", "is"])
def test_singular_words_have_no_singular(word: str) -> None:
    assert list(rule_singulars(word)) == []


@pytest.fixture
def forgotten() -> Iterator[None]:
    """The lemmatizer is looked for again, before and after."""
    wordnet.cache_clear()
    yield
    wordnet.cache_clear()


@pytest.mark.usefixtures("forgotten")
def test_wordnet_is_used_where_its_data_is(monkeypatch: pytest.MonkeyPatch) -> None:
    class Lemmatizer:
        def lemmatize(self, word: str) -> str:
            return {"dogs": "dog", "kine": "cow"}.get(word, word)

    monkeypatch.setattr("nltk.stem.WordNetLemmatizer", Lemmatizer)
    assert WordTable.load().category("kine") == "cow"
    assert WordTable.load().category("ponies") == "horse"


@pytest.mark.usefixtures("forgotten")
def test_without_wordnet_the_rules_do(monkeypatch: pytest.MonkeyPatch) -> None:
    class Lemmatizer:
        def lemmatize(self, word: str) -> str:
            raise LookupError("Resource wordnet not found")

    monkeypatch.setattr("nltk.stem.WordNetLemmatizer", Lemmatizer)
    assert wordnet() is None
    assert WordTable.load().category("ponies") == "horse"
    assert WordTable.load().category("kine") is None
