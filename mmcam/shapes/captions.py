"""Captions of scenes, with the pixels that are evidence for each word.

A caption depends on the scene alone. In the grammar, `[]` marks optional parts::

    caption    = subject "on a" tone pattern "background"
    subject    = "a" thing
               | "a" thing relation "a" thing
               | ("two" | "three") thing (plural) ["and a" thing]
               | "a" thing "among" ("two" | "three") "small things"
    thing      = ("large" | "small") [texture] colour ["and" colour] shape
    relation   = "left of" | "right of" | "above" | "below"

Of two things, the larger one comes first; of two things of the same size, the left or the upper
one, depending on their relation. Of a two-tone thing, the left or the upper colour comes first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mmcam.shapes.scenes import Scene, Thing, relation, union
from mmcam.shapes.words import NUMBERS, SHAPES, SIZES, Mask


@dataclass(frozen=True, kw_only=True, eq=False)
class Word:
    """One word of a caption. `mask` is the evidence for it; None for "a", "on", "and" and "of"."""

    text: str
    position: int
    kind: str
    """"number", "size", "texture", "colour", "shape", "relation", "background", or "" for a word
    without a mask."""
    mask: Mask | None


@dataclass(frozen=True, kw_only=True, eq=False)
class Caption:
    """A caption and its words, in order."""

    text: str
    words: tuple[Word, ...]


_WordIterator = Iterator[tuple[str, str, Mask | None]]
"""Words, each with its kind and mask."""


def caption(scene: Scene) -> Caption:
    """The caption of a scene."""
    words = tuple(
        Word(text=text, position=position, kind=kind, mask=mask)
        for position, (text, kind, mask) in enumerate(_describe_scene(scene))
    )
    return Caption(text=" ".join(word.text for word in words), words=words)


def _describe_scene(scene: Scene) -> _WordIterator:
    things = scene.objects
    lookalikes = [
        [other for other in things if _look_of(other) == _look_of(thing)] for thing in things
    ]
    group = max(lookalikes, key=len)
    if len(group) > 1:
        yield NUMBERS[len(group)], "number", union(group)
        yield from _describe_group(group)
        for other in things:
            if other not in group:
                yield from (("and", "", None), ("a", "", None))
                yield from _describe_group([other])
    elif len(things) == 2:
        yield from _describe_pair(things, len(scene.pixels))
    else:
        # The only thing, or the only large one.
        first = min(things, key=lambda thing: SIZES.index(thing.size))
        yield "a", "", None
        yield from _describe_group([first])
        if others := [thing for thing in things if thing is not first]:
            all_pixels, small_pixels = union(things), union(others)
            yield "among", "relation", all_pixels
            yield NUMBERS[len(others)], "number", small_pixels
            yield "small", "size", small_pixels
            yield "things", "shape", small_pixels
    yield from (("on", "", None), ("a", "", None))
    for text in (scene.tone, scene.pattern, "background"):
        yield text, "background", scene.background


def _describe_pair(things: Sequence[Thing], size: int) -> _WordIterator:
    """The words for two things and their relation."""
    first, second = sorted(things, key=lambda thing: SIZES.index(thing.size))
    relation_name = relation(first.centre, second.centre, size)
    assert relation_name is not None  # by the layout of the scene
    if first.size == second.size and relation_name in ("right of", "below"):
        first, second = second, first
        relation_name = "left of" if relation_name == "right of" else "above"
    yield "a", "", None
    yield from _describe_group([first])
    both_pixels = union(things)
    for text in relation_name.split():
        yield text, "" if text == "of" else "relation", None if text == "of" else both_pixels
    yield "a", "", None
    yield from _describe_group([second])


def _look_of(thing: Thing) -> tuple[object, ...]:
    """The properties of a thing that a caption can describe."""
    halves = [part.place for part in thing.parts]
    return thing.shape, thing.size, thing.texture, thing.colours, halves


def _describe_group(alike: Sequence[Thing]) -> _WordIterator:
    """The words for one thing, or for several that look alike."""
    thing, mask = alike[0], union(alike)
    yield thing.size, "size", mask
    if thing.texture != "plain":
        yield thing.texture, "texture", mask
    for index, colour in enumerate(thing.colours):
        if index:
            yield "and", "", None
        yield colour, "colour", union([member.parts[index] for member in alike])
    yield SHAPES[thing.shape] if len(alike) > 1 else thing.shape, "shape", mask
