"""Questions about a scene, with all correct answers and the pixels that are evidence for each.

A scene has at most one question of each kind. The random draws balance the answers, so that the
question alone does not give its answer away: "yes" is as frequent as "no", and all numbers, all
colours and all shapes are equally frequent.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from mmcam.shapes.random_stream import RandomStream
from mmcam.shapes.scenes import Scene, Thing, relation, union
from mmcam.shapes.words import COLOURS, COUNTS, KINDS, RELATIONS, SHAPES, Mask


@dataclass(frozen=True, kw_only=True, eq=False)
class Question:
    """A question and its correct answers."""

    kind: str
    text: str
    answer: str
    """A correct answer; for a two-tone thing, either colour with the same probability."""
    answers: Mapping[str, Mask | None]
    """The evidence for each correct answer: the thing, half or things that it describes.

    None for "no" and "0": no pixels show that something is missing.
    """
    about: Mask | None
    """The region that the question refers to: the star in "what is left of the star ?", or the
    thing whose colour or shape is the answer. None if the scene has no such thing."""


def questions(scene: Scene, variant: int = 0) -> tuple[Question, ...]:
    """The questions of a scene, in the order of `KINDS`; kinds that do not fit are left out.

    Each `variant` is an independent draw; two variants may share questions.
    """
    drawn = []
    for index, kind in enumerate(KINDS):
        key = (1, index, scene.seed, len(scene.pixels), *([variant] if variant else []))
        if question := _QUESTION_BUILDERS[kind](scene, RandomStream(*key)):
            drawn.append(question)
    return tuple(drawn)


def _color_question(scene: Scene, rng: RandomStream) -> Question | None:
    shapes = Counter(thing.shape for thing in scene.objects)
    things = [thing for thing in scene.objects if shapes[thing.shape] == 1]
    if not things:
        return None
    thing = rng.choose(things)
    return Question(
        kind="color",
        text=f"what color is the {thing.shape} ?",
        answer=rng.choose(thing.colours),
        answers={part.colour: part.mask for part in thing.parts},
        about=thing.mask,
    )


def _shape_question(scene: Scene, rng: RandomStream) -> Question | None:
    colours, textures = _count_colours(scene), Counter(thing.texture for thing in scene.objects)
    candidates = []
    for thing in scene.objects:
        if all(colours[colour] == 1 for colour in thing.colours):
            candidates.append((" and ".join(thing.colours), thing))
        if thing.texture != "plain" and textures[thing.texture] == 1:
            candidates.append((thing.texture, thing))
    if not candidates:
        return None
    name, thing = rng.choose(candidates)
    return Question(
        kind="shape",
        text=f"what shape is the {name} thing ?",
        answer=thing.shape,
        answers={thing.shape: thing.mask},
        about=thing.mask,
    )


def _count_colours(scene: Scene) -> Counter[str]:
    """How many things have each colour, in the whole or in one half."""
    return Counter(colour for thing in scene.objects for colour in thing.colours)


_REPEATED_PERCENT = {2: 41, 3: 72}
"""For 2 or 3 things of one shape or colour, the percentage of scenes in which these are counted."""

_RARE_PERCENT = 47
"""The percentage of the other scenes in which a shape or colour with 0 or 1 things is counted."""


def _count_question(scene: Scene, rng: RandomStream) -> Question | None:
    # A red and blue star may or may not count as a red thing, so such colours are not counted.
    two_tone_colours = {
        colour for thing in scene.objects if len(thing.parts) > 1 for colour in thing.colours
    }
    things_by_name = [
        {name: _matching(scene, (name,)) for name in names}
        for names in (SHAPES, [colour for colour in COLOURS if colour not in two_tone_colours])
    ]
    largest = max(len(things) for group in things_by_name for things in group.values())
    if rng.happens(_REPEATED_PERCENT.get(largest, 0)):
        number = largest
    elif rng.happens(_RARE_PERCENT):
        number = rng.below(2)
    else:
        return None
    # Shapes and colours are equally likely, whichever has more candidates.
    candidates = [
        [name for name, things in group.items() if len(things) == number]
        for group in things_by_name
    ]
    if not any(candidates):
        return None
    name = rng.choose(rng.choose([names for names in candidates if names]))
    things = _matching(scene, (name,))
    mask = union(things) if things else None
    return Question(
        kind="count",
        text=f"how many {SHAPES.get(name) or f'{name} things'} are there ?",
        answer=COUNTS[number],
        answers={COUNTS[number]: mask},
        about=mask,
    )


def _presence_question(scene: Scene, rng: RandomStream) -> Question | None:
    thing, is_present = rng.choose(scene.objects), rng.happens(50)
    colours, shapes = tuple(_count_colours(scene)), tuple({t.shape: t for t in scene.objects})
    # An absent thing differs from a present one in a single word. In half of the cases, that word
    # is true of another thing in the scene.
    from_scene = rng.happens(50)
    names: list[tuple[str, ...]]
    if len(thing.parts) > 1:
        names = (
            [(thing.shape,)] if is_present else [(name,) for name in SHAPES if name not in shapes]
        )
    elif is_present:
        names = [(thing.colours[0], thing.shape)]
    elif rng.happens(50):
        names = [(colour, thing.shape) for colour in (colours if from_scene else COLOURS)]
    else:
        names = [(thing.colours[0], name) for name in (shapes if from_scene else SHAPES)]
    if not is_present:
        names = [words for words in names if not _matching(scene, words)]
        if not names:
            names = [(colour, thing.shape) for colour in COLOURS if colour not in colours]
    words = rng.choose(names)
    things = _matching(scene, words)
    mask = union(things) if things else None
    answer = "yes" if things else "no"
    return Question(
        kind="presence",
        text=f"is there any {' '.join(words)} ?",
        answer=answer,
        answers={answer: mask},
        about=mask,
    )


def _matching(scene: Scene, words: tuple[str, ...]) -> list[Thing]:
    """The things for which all the words are true."""
    return [thing for thing in scene.objects if {*words} <= {thing.shape, *thing.colours}]


def _relation_question(scene: Scene, rng: RandomStream) -> Question | None:
    shapes = Counter(thing.shape for thing in scene.objects)
    candidates = []
    for anchor in scene.objects:
        for relation_name in RELATIONS if shapes[anchor.shape] == 1 else ():
            others = [thing for thing in scene.objects if thing is not anchor]
            related = [
                _has_relation(thing, anchor, relation_name, len(scene.pixels)) for thing in others
            ]
            if related.count(True) == 1 and None not in related:
                candidates.append((others[related.index(True)], relation_name, anchor))
    if not candidates:
        return None
    thing, relation_name, anchor = rng.choose(candidates)
    return Question(
        kind="relation",
        text=f"what is {relation_name} the {anchor.shape} ?",
        answer=thing.shape,
        answers={thing.shape: thing.mask},
        about=anchor.mask,
    )


def _has_relation(thing: Thing, anchor: Thing, relation_name: str, size: int) -> bool | None:
    """Whether the thing has this relation to the anchor; None if that is ambiguous."""
    actual = relation(thing.centre, anchor.centre, size)
    if actual is not None:
        return actual == relation_name
    right, down = thing.centre[0] - anchor.centre[0], thing.centre[1] - anchor.centre[1]
    offsets = {"left of": right, "right of": -right, "above": down, "below": -down}
    return False if offsets[relation_name] >= 0 else None


_QUESTION_BUILDERS: Mapping[str, Callable[[Scene, RandomStream], Question | None]] = {
    "color": _color_question,
    "shape": _shape_question,
    "count": _count_question,
    "presence": _presence_question,
    "relation": _relation_question,
}
