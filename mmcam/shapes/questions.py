"""Questions about a scene, with every right answer and the pixels that it rests on.

A scene has at most one question of each kind. The dice decide which, so that the question alone
does not give its answer away: as many "yes" as "no", each number as often as any other, and every
colour and shape.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from mmcam.shapes.dice import Dice
from mmcam.shapes.scenes import Scene, Thing, relation, union
from mmcam.shapes.words import COLOURS, COUNTS, KINDS, RELATIONS, SHAPES, Mask


@dataclass(frozen=True, kw_only=True, eq=False)
class Question:
    """A question, and what is right to answer."""

    kind: str
    text: str
    answer: str
    """A right answer; of a two-tone thing's colours, either with the same chance."""
    answers: Mapping[str, Mask | None]
    """Each right answer and what it rests on: the thing, half or things that it is true of.

    None for "no" and "0": no pixels show that something is missing.
    """
    about: Mask | None
    """What the question itself points at: the thing that is named in "what is left of the star ?",
    the thing whose colour or shape is asked for. None where it points at nothing that is there."""


def questions(scene: Scene, turn: int = 0) -> tuple[Question, ...]:
    """The questions of a scene, in the order of `KINDS`; a kind that does not fit is left out.

    Those of another `turn` are drawn anew, and may be the same or others.
    """
    found = []
    for index, kind in enumerate(KINDS):
        key = (1, index, scene.seed, len(scene.pixels), *([turn] if turn else []))
        if question := _ASKED[kind](scene, Dice(*key)):
            found.append(question)
    return tuple(found)


def _color(scene: Scene, dice: Dice) -> Question | None:
    shapes = Counter(thing.shape for thing in scene.objects)
    things = [thing for thing in scene.objects if shapes[thing.shape] == 1]
    if not things:
        return None
    thing = dice.choose(things)
    return Question(
        kind="color",
        text=f"what color is the {thing.shape} ?",
        answer=dice.choose(thing.colours),
        answers={part.colour: part.mask for part in thing.parts},
        about=thing.mask,
    )


def _shape(scene: Scene, dice: Dice) -> Question | None:
    colours, textures = _colours(scene), Counter(thing.texture for thing in scene.objects)
    known = []
    for thing in scene.objects:
        if all(colours[colour] == 1 for colour in thing.colours):
            known.append((" and ".join(thing.colours), thing))
        if thing.texture != "plain" and textures[thing.texture] == 1:
            known.append((thing.texture, thing))
    if not known:
        return None
    name, thing = dice.choose(known)
    return Question(
        kind="shape",
        text=f"what shape is the {name} thing ?",
        answer=thing.shape,
        answers={thing.shape: thing.mask},
        about=thing.mask,
    )


def _colours(scene: Scene) -> Counter[str]:
    """How many things have each colour, if only in a half."""
    return Counter(colour for thing in scene.objects for colour in thing.colours)


_SEVERAL = {2: 41, 3: 72}
"""In how many of a hundred scenes with so many of one shape or colour these are counted."""

_FEW = 47
"""In how many of a hundred of the other scenes what is there once or never is asked for."""


def _count(scene: Scene, dice: Dice) -> Question | None:
    # Whether a red and blue star is a red thing is open, so such colours are not counted.
    half = {colour for thing in scene.objects if len(thing.parts) > 1 for colour in thing.colours}
    kinds = [
        {name: _called(scene, (name,)) for name in names}
        for names in (SHAPES, [colour for colour in COLOURS if colour not in half])
    ]
    most = max(len(things) for kind in kinds for things in kind.values())
    if dice.happens(_SEVERAL.get(most, 0)):
        number = most
    elif dice.happens(_FEW):
        number = dice.below(2)
    else:
        return None
    # Shapes and colours are asked for alike, whichever there are more of.
    found = [[name for name in kind if len(kind[name]) == number] for kind in kinds]
    if not any(found):
        return None
    name = dice.choose(dice.choose([names for names in found if names]))
    things = _called(scene, (name,))
    mask = union(things) if things else None
    return Question(
        kind="count",
        text=f"how many {SHAPES.get(name) or f'{name} things'} are there ?",
        answer=COUNTS[number],
        answers={COUNTS[number]: mask},
        about=mask,
    )


def _presence(scene: Scene, dice: Dice) -> Question | None:
    thing, yes = dice.choose(scene.objects), dice.happens(50)
    colours, shapes = tuple(_colours(scene)), tuple({t.shape: t for t in scene.objects})
    # What is missing differs in one word from what is there, in half the cases by another word
    # that is true of something.
    near = dice.happens(50)
    names: list[tuple[str, ...]]
    if len(thing.parts) > 1:
        names = [(thing.shape,)] if yes else [(name,) for name in SHAPES if name not in shapes]
    elif yes:
        names = [(thing.colours[0], thing.shape)]
    elif dice.happens(50):
        names = [(colour, thing.shape) for colour in (colours if near else COLOURS)]
    else:
        names = [(thing.colours[0], name) for name in (shapes if near else SHAPES)]
    if not yes:
        names = [words for words in names if not _called(scene, words)]
        if not names:
            names = [(colour, thing.shape) for colour in COLOURS if colour not in colours]
    words = dice.choose(names)
    things = _called(scene, words)
    mask = union(things) if things else None
    answer = "yes" if things else "no"
    return Question(
        kind="presence",
        text=f"is there any {' '.join(words)} ?",
        answer=answer,
        answers={answer: mask},
        about=mask,
    )


def _called(scene: Scene, words: tuple[str, ...]) -> list[Thing]:
    """The things that all the words are true of."""
    return [thing for thing in scene.objects if {*words} <= {thing.shape, *thing.colours}]


def _relation(scene: Scene, dice: Dice) -> Question | None:
    shapes = Counter(thing.shape for thing in scene.objects)
    known = []
    for anchor in scene.objects:
        for where in RELATIONS if shapes[anchor.shape] == 1 else ():
            others = [thing for thing in scene.objects if thing is not anchor]
            lies = [_lies(thing, anchor, where, len(scene.pixels)) for thing in others]
            if lies.count(True) == 1 and None not in lies:
                known.append((others[lies.index(True)], where, anchor))
    if not known:
        return None
    thing, where, anchor = dice.choose(known)
    return Question(
        kind="relation",
        text=f"what is {where} the {anchor.shape} ?",
        answer=thing.shape,
        answers={thing.shape: thing.mask},
        about=anchor.mask,
    )


def _lies(thing: Thing, anchor: Thing, where: str, size: int) -> bool | None:
    """Whether a thing lies there as seen from the anchor; None where one might argue."""
    found = relation(thing.centre, anchor.centre, size)
    if found is not None:
        return found == where
    right, down = thing.centre[0] - anchor.centre[0], thing.centre[1] - anchor.centre[1]
    away = {"left of": right, "right of": -right, "above": down, "below": -down}
    return False if away[where] >= 0 else None


_ASKED: Mapping[str, Callable[[Scene, Dice], Question | None]] = {
    "color": _color,
    "shape": _shape,
    "count": _count,
    "presence": _presence,
    "relation": _relation,
}
