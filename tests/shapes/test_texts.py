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
from tests.shapes.many import scene_questions, scenes

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
    """The things with this size, texture, one or two colours and shape."""
    size, texture, first, second, shape = (word and word.split()[-1] for word in words)
    colours = (first, second) if second else (first,)
    looks = (size, texture or "plain", colours, SINGULAR.get(shape, shape))
    return [t for t in scene.objects if (t.size, t.texture, t.colours, t.shape) == looks]


def _is(thing: Thing, other: Thing, relation_name: str) -> bool:
    """Whether a thing has this relation to another: by their mean pixels, with a margin."""
    (y, x), (v, u) = (np.argwhere(item.mask).mean(0) for item in (thing, other))
    size = len(thing.mask)
    ahead, aside = {
        "left of": (u - x, y - v),
        "right of": (x - u, y - v),
        "above": (v - y, x - u),
        "below": (y - v, x - u),
    }[relation_name]
    return bool(ahead >= 0.139 * size and ahead >= 1.49 * abs(aside))


@given(seed=SEEDS)
def test_captions_are_true(seed: int) -> None:
    scene = shapes.scene(seed, 64)
    match = _CAPTION.fullmatch(shapes.caption(scene).text)
    assert match
    number, *words = match.groups()
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
def test_word_masks_show_what_the_words_describe(seed: int) -> None:
    scene = shapes.scene(seed, 64)
    caption = shapes.caption(scene)
    texts = [word.text for word in caption.words]
    assert " ".join(texts) == caption.text
    assert [word.position for word in caption.words] == list(range(len(texts)))
    assert {*texts} <= {*shapes.VOCABULARY}
    for word in caption.words:
        assert (word.mask is None) == (word.kind == "") == (word.text in ("a", "and", "on", "of"))
        if word.mask is None:
            continue
        if word.kind == "background":
            np.testing.assert_array_equal(word.mask, scene.background)
            continue
        # The mask has only things of which the word is true, and no background.
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
def test_the_mask_of_a_colour_of_a_two_tone_thing_is_its_half(seed: int) -> None:
    scene = shapes.scene(seed, 64)
    halves = {part.colour: part for thing in scene.objects for part in thing.parts if part.place}
    for word in shapes.caption(scene).words:
        if word.kind == "colour" and word.text in halves:
            places = [p for t in scene.objects for p in t.parts if p.colour == word.text]
            np.testing.assert_array_equal(word.mask, np.any([p.mask for p in places], axis=0))
            assert len({part.place for part in places}) == 1


def test_every_word_and_answer_is_used() -> None:
    all_scenes = scenes("test", 500)
    words = {word.text for scene in all_scenes for word in shapes.caption(scene).words}
    assert words == {*shapes.VOCABULARY}
    all_questions = [question for _, question in scene_questions(all_scenes)]
    assert {word for question in all_questions for word in question.text.split()} == {
        *shapes.QUESTION_WORDS
    }
    assert {answer for question in all_questions for answer in question.answers} == {
        *shapes.ANSWERS
    }
    assert {question.kind for question in all_questions} == {*shapes.KINDS}
    for names in (shapes.VOCABULARY, shapes.QUESTION_WORDS, shapes.ANSWERS, shapes.ACTIONS):
        assert len({*names}) == len(names)


@given(seed=SEEDS, variant=st.integers(0, 3))
def test_answers_and_their_masks_are_true(seed: int, variant: int) -> None:
    scene = shapes.scene(seed, 64)
    questions = shapes.questions(scene, variant)
    assert len({question.kind for question in questions}) == len(questions)
    for question in questions:
        assert question.answer in question.answers
        expected = _EXPECTED[question.kind](scene, question)
        assert expected.keys() == question.answers.keys()
        for answer, parts in expected.items():
            mask = question.answers[answer]
            if parts:
                np.testing.assert_array_equal(mask, np.any([p.mask for p in parts], axis=0))
            else:
                assert mask is None


def test_another_variant_has_other_questions() -> None:
    all_scenes = scenes("test", 30)
    variants = [
        [[question.text for question in shapes.questions(s, variant)] for s in all_scenes]
        for variant in (0, 1, 2)
    ]
    assert variants[0] == [[question.text for question in shapes.questions(s)] for s in all_scenes]
    assert variants[0] != variants[1] != variants[2] != variants[0]


def _color(scene: Scene, question: Question) -> dict[str, list[object]]:
    (shape,) = re.fullmatch(r"what color is the (\w+) \?", question.text).groups()
    (thing,) = [thing for thing in scene.objects if thing.shape == shape]
    return {part.colour: [part] for part in thing.parts}


def _shape(scene: Scene, question: Question) -> dict[str, list[object]]:
    (name,) = re.fullmatch(r"what shape is the (.+) thing \?", question.text).groups()
    words = {*name.split(" and ")}
    # One colour alone would also be true of a thing of which it is a half.
    (thing,) = [thing for thing in scene.objects if words & {thing.texture, *thing.colours}]
    assert words in ({thing.texture}, {*thing.colours})
    return {thing.shape: [thing]}


def _count(scene: Scene, question: Question) -> dict[str, list[object]]:
    (name,) = re.fullmatch(r"how many (.+) are there \?", question.text).groups()
    colour = name.removesuffix(" things")
    if colour in shapes.COLOURS:
        things = [thing for thing in scene.objects if colour in thing.colours]
        assert all(len(thing.parts) == 1 for thing in things)
    else:
        things = [thing for thing in scene.objects if thing.shape == SINGULAR[name]]
    return {str(len(things)): things}


def _presence(scene: Scene, question: Question) -> dict[str, list[object]]:
    colour, shape = re.fullmatch(r"is there any (?:(\w+) )?(\w+) \?", question.text).groups()
    things = [thing for thing in scene.objects if thing.shape == shape]
    if colour:
        things = [thing for thing in things if colour in thing.colours]
        assert all(len(thing.parts) == 1 for thing in things)
    return {"yes": things} if things else {"no": []}


def _relation(scene: Scene, question: Question) -> dict[str, list[object]]:
    relation_name, shape = re.fullmatch(
        rf"what is ({'|'.join(RELATIONS)}) the (\w+) \?", question.text
    ).groups()
    (anchor,) = [thing for thing in scene.objects if thing.shape == shape]
    np.testing.assert_array_equal(question.about, anchor.mask)
    others = [thing for thing in scene.objects if thing is not anchor]
    (thing,) = [thing for thing in others if _is(thing, anchor, relation_name)]
    return {thing.shape: [thing]}


_EXPECTED = {
    "color": _color,
    "shape": _shape,
    "count": _count,
    "presence": _presence,
    "relation": _relation,
}
