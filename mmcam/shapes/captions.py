"""A sentence about a scene, and for each of its words the pixels that make it true.

A caption is a function of the scene alone. In the grammar, `[]` may be missing::

    caption    = subject "on a" tone pattern "background"
    subject    = "a" thing
               | "a" thing relation "a" thing
               | ("two" | "three") thing(in the plural) ["and a" thing]
               | "a" thing "among" ("two" | "three") "small things"
    thing      = ("large" | "small") [texture] colour ["and" colour] shape
    relation   = "left of" | "right of" | "above" | "below"

Of two things the large one comes first; where both have the same size, the left or the upper one,
by what tells them apart. Of a two-tone thing, the left or the upper colour comes first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mmcam.shapes.scenes import Scene, Thing, relation, union
from mmcam.shapes.words import NUMBERS, SHAPES, SIZES, Mask


@dataclass(frozen=True, kw_only=True, eq=False)
class Word:
    """One word of a caption. `mask` is what it must rest on; None for "a", "on", "and" and "of"."""

    text: str
    position: int
    kind: str
    """"number", "size", "texture", "colour", "shape", "relation", "background", or "" for a word
    without a mask."""
    mask: Mask | None


@dataclass(frozen=True, kw_only=True, eq=False)
class Caption:
    """A sentence, and its words in their order."""

    text: str
    words: tuple[Word, ...]


_Told = Iterator[tuple[str, str, Mask | None]]
"""Words, each with its kind and its mask."""


def caption(scene: Scene) -> Caption:
    """The caption of a scene."""
    words = tuple(
        Word(text=text, position=position, kind=kind, mask=mask)
        for position, (text, kind, mask) in enumerate(_told(scene))
    )
    return Caption(text=" ".join(word.text for word in words), words=words)


def _told(scene: Scene) -> _Told:
    things = scene.objects
    alike = [[other for other in things if _look(other) == _look(thing)] for thing in things]
    group = max(alike, key=len)
    if len(group) > 1:
        yield NUMBERS[len(group)], "number", union(group)
        yield from _thing(group)
        for other in things:
            if other not in group:
                yield from (("and", "", None), ("a", "", None))
                yield from _thing([other])
    elif len(things) == 2:
        yield from _pair(things, len(scene.pixels))
    else:
        # The only one, or the only large one.
        first = min(things, key=lambda thing: SIZES.index(thing.size))
        yield "a", "", None
        yield from _thing([first])
        if others := [thing for thing in things if thing is not first]:
            everything, small = union(things), union(others)
            yield "among", "relation", everything
            yield NUMBERS[len(others)], "number", small
            yield "small", "size", small
            yield "things", "shape", small
    yield from (("on", "", None), ("a", "", None))
    for text in (scene.tone, scene.pattern, "background"):
        yield text, "background", scene.background


def _pair(things: Sequence[Thing], size: int) -> _Told:
    """Two things and how they lie."""
    first, other = sorted(things, key=lambda thing: SIZES.index(thing.size))
    where = relation(first.centre, other.centre, size)
    assert where is not None  # the scene was laid out so
    if first.size == other.size and where in ("right of", "below"):
        first, other = other, first
        where = "left of" if where == "right of" else "above"
    yield "a", "", None
    yield from _thing([first])
    both = union(things)
    for text in where.split():
        yield text, "" if text == "of" else "relation", None if text == "of" else both
    yield "a", "", None
    yield from _thing([other])


def _look(thing: Thing) -> tuple[object, ...]:
    """All that a caption can say of a thing."""
    places = [part.place for part in thing.parts]
    return thing.shape, thing.size, thing.texture, thing.colours, places


def _thing(alike: Sequence[Thing]) -> _Told:
    """What one thing, or several that look alike, are called."""
    thing, mask = alike[0], union(alike)
    yield thing.size, "size", mask
    if thing.texture != "plain":
        yield thing.texture, "texture", mask
    for index, colour in enumerate(thing.colours):
        if index:
            yield "and", "", None
        yield colour, "colour", union([other.parts[index] for other in alike])
    yield SHAPES[thing.shape] if len(alike) > 1 else thing.shape, "shape", mask
