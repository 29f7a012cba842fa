"""Captions and questions are true, and so are the masks of their words and answers."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mmcam import shapes
from mmcam.shapes import Question, Scene, Thing
from mmcam.shapes.words import NUMBERS, RELATIONS, SIZES
from tests.shapes.many import asked, scenes

SEEDS = st.integers(0, 2**32 - 1)
SINGULAR = {plural: name for name, plural in shapes.SHAPES.items()}

_COLOUR, _SHAPE = "|".join(shapes.COLOURS), "|".join([*shapes.SHAPES.values(), *shapes.SHAPES])
_THING = rf"(large|small)( striped| dotted| checked)? ({_COLOUR})( and (?:{_COLOUR}))? ({_SHAPE})"
_CAPTION = re.compile(
    rf"(a|two|three) {_THING}"
    rf"(?: (and|left of|right of|above|below) a {_THING}| among (two|three) small things)?"
    r" on a (light|dark) (plain|striped|noisy|faded|cluttered) background"
)


def _matching(scene: Scene, words: tuple[str | None, ...]) -> list[Thing]:
    """The things of which a size, a texture, one or two colours and a shape are true."""
    size, texture, first, second, shape = (word and word.split()[-1] for word in words)
    colours = (first, second) if second else (first,)
    looks = (size, texture or "plain", colours, SINGULAR.get(shape, shape))
    return [t for t in scene.objects if (t.size, t.texture, t.colours, t.shape) == looks]


def _is(thing: Thing, other: Thing, where: str) -> bool:
    """Whether one thing lies there, by the means of their pixels and with a margin."""
    (y, x), (v, u) = (np.argwhere(one.mask).mean(0) for one in (thing, other))
    size = len(thing.mask)
    ahead, aside = {
        "left of": (u - x, y - v),
        "right of": (x - u, y - v),
        "above": (v - y, x - u),
        "below": (y - v, x - u),
    }[where]
    return bool(ahead >= 0.139 * size and ahead >= 1.49 * abs(aside))


@given(seed=SEEDS)
def test_captions_are_true(seed: int) -> None:
    scene = shapes.scene(seed, 64)
    found = _CAPTION.fullmatch(shapes.caption(scene).text)
    assert found
    number, *words = found.groups()
    first, link, other, among = words[:5], words[5], words[6:11], words[11]
    assert words[12:] == [scene.tone, scene.pattern]
    subjects, objects = _matching(scene, tuple(first)), _matching(scene, tuple(other))
    assert len(subjects) == {"a": 1, "two": 2, "three": 3}[number]
    if link:
        assert len(objects) == 1
        assert len(scene.objects) == len(subjects) + 1
    if link in RELATIONS:
        assert _is(subjects[0], objects[0], link)
        sizes = [SIZES.index(thing.size) for thing in (subjects[0], objects[0])]
        assert sizes == sorted(sizes)
        # The smaller of two things is never the first, nor the right or lower one of equals.
        assert sizes[0] < sizes[1] or link in ("left of", "above")
    if among:
        rest = [thing for thing in scene.objects if thing is not subjects[0]]
        assert NUMBERS[len(rest)] == among
        assert {thing.size for thing in rest} == {"small"}
        assert subjects[0].size == "large"


@given(seed=SEEDS)
def test_words_rest_on_what_they_speak_of(seed: int) -> None:
    scene = shapes.scene(seed, 64)
    said = shapes.caption(scene)
    texts = [word.text for word in said.words]
    assert " ".join(texts) == said.text
    assert [word.position for word in said.words] == list(range(len(texts)))
    assert {*texts} <= {*shapes.VOCABULARY}
    for word in said.words:
        assert (word.mask is None) == (word.kind == "") == (word.text in ("a", "and", "on", "of"))
        if word.mask is None:
            continue
        if word.kind == "background":
            np.testing.assert_array_equal(word.mask, scene.background)
            continue
        # Nothing that the word is not true of, and no pixel of the background.
        assert word.mask.any()
        assert not (word.mask & scene.background).any()
        for thing in scene.objects:
            for part in thing.parts:
                share = (word.mask & part.mask).sum() / part.mask.sum()
                assert share in (0, 1)
                if share and word.kind in _TRUE:
                    assert _TRUE[word.kind](word.text, thing, part.colour)
        layer_from_path = [thing for thing in scene.objects if (word.mask & thing.mask).any()]
        if word.kind == "number":
            assert NUMBERS[len(layer_from_path)] == word.text
        if word.kind == "relation":
            assert layer_from_path == list(scene.objects)


_TRUE: dict[str, Callable[[str, Thing, str], bool]] = {
    "size": lambda text, thing, _: thing.size == text,
    "texture": lambda text, thing, _: thing.texture == text,
    "colour": lambda text, _, colour: colour == text,
    "shape": lambda text, thing, _: text == "things" or SINGULAR.get(text, text) == thing.shape,
}


@given(seed=SEEDS)
def test_a_colour_of_a_two_tone_thing_rests_on_its_half(seed: int) -> None:
    scene = shapes.scene(seed, 64)
    halves = {part.colour: part for thing in scene.objects for part in thing.parts if part.place}
    for word in shapes.caption(scene).words:
        if word.kind == "colour" and word.text in halves:
            places = [p for t in scene.objects for p in t.parts if p.colour == word.text]
            np.testing.assert_array_equal(word.mask, np.any([p.mask for p in places], axis=0))
            assert len({part.place for part in places}) == 1


def test_every_word_and_answer_is_used() -> None:
    found = scenes("test", 500)
    words = {word.text for scene in found for word in shapes.caption(scene).words}
    assert words == {*shapes.VOCABULARY}
    asks = [ask for _, ask in asked(found)]
    assert {word for ask in asks for word in ask.text.split()} == {*shapes.QUESTION_WORDS}
    assert {answer for ask in asks for answer in ask.answers} == {*shapes.ANSWERS}
    assert {ask.kind for ask in asks} == {*shapes.KINDS}
    for names in (shapes.VOCABULARY, shapes.QUESTION_WORDS, shapes.ANSWERS, shapes.ACTIONS):
        assert len({*names}) == len(names)


@given(seed=SEEDS, turn=st.integers(0, 3))
def test_answers_are_true_and_rest_on_what_makes_them_so(seed: int, turn: int) -> None:
    scene = shapes.scene(seed, 64)
    asked = shapes.questions(scene, turn)
    assert len({ask.kind for ask in asked}) == len(asked)
    for ask in asked:
        assert ask.answer in ask.answers
        expected = _EXPECTED[ask.kind](scene, ask)
        assert expected.keys() == ask.answers.keys()
        for answer, parts in expected.items():
            mask = ask.answers[answer]
            if parts:
                np.testing.assert_array_equal(mask, np.any([p.mask for p in parts], axis=0))
            else:
                assert mask is None


def test_another_turn_asks_other_questions() -> None:
    found = scenes("test", 30)
    turns = [[[ask.text for ask in shapes.questions(s, turn)] for s in found] for turn in (0, 1, 2)]
    assert turns[0] == [[ask.text for ask in shapes.questions(s)] for s in found]
    assert turns[0] != turns[1] != turns[2] != turns[0]


def _color(scene: Scene, ask: Question) -> dict[str, list[object]]:
    (shape,) = re.fullmatch(r"what color is the (\w+) \?", ask.text).groups()
    (thing,) = [thing for thing in scene.objects if thing.shape == shape]
    return {part.colour: [part] for part in thing.parts}


def _shape(scene: Scene, ask: Question) -> dict[str, list[object]]:
    (name,) = re.fullmatch(r"what shape is the (.+) thing \?", ask.text).groups()
    words = {*name.split(" and ")}
    # One colour alone would also be true of a thing of which it is a half.
    (thing,) = [thing for thing in scene.objects if words & {thing.texture, *thing.colours}]
    assert words in ({thing.texture}, {*thing.colours})
    return {thing.shape: [thing]}


def _count(scene: Scene, ask: Question) -> dict[str, list[object]]:
    (what,) = re.fullmatch(r"how many (.+) are there \?", ask.text).groups()
    colour = what.removesuffix(" things")
    if colour in shapes.COLOURS:
        things = [thing for thing in scene.objects if colour in thing.colours]
        assert all(len(thing.parts) == 1 for thing in things)
    else:
        things = [thing for thing in scene.objects if thing.shape == SINGULAR[what]]
    return {str(len(things)): things}


def _presence(scene: Scene, ask: Question) -> dict[str, list[object]]:
    colour, shape = re.fullmatch(r"is there any (?:(\w+) )?(\w+) \?", ask.text).groups()
    things = [thing for thing in scene.objects if thing.shape == shape]
    if colour:
        things = [thing for thing in things if colour in thing.colours]
        assert all(len(thing.parts) == 1 for thing in things)
    return {"yes": things} if things else {"no": []}


def _relation(scene: Scene, ask: Question) -> dict[str, list[object]]:
    where, shape = re.fullmatch(rf"what is ({'|'.join(RELATIONS)}) the (\w+) \?", ask.text).groups()
    (anchor,) = [thing for thing in scene.objects if thing.shape == shape]
    np.testing.assert_array_equal(ask.about, anchor.mask)
    others = [thing for thing in scene.objects if thing is not anchor]
    (thing,) = [thing for thing in others if _is(thing, anchor, where)]
    return {thing.shape: [thing]}


_EXPECTED = {
    "color": _color,
    "shape": _shape,
    "count": _count,
    "presence": _presence,
    "relation": _relation,
}
