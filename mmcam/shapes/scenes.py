"""Pictures of which everything is known: what is on them, and which pixels show it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from jaxtyping import UInt8

from mmcam.errors import InputError
from mmcam.shapes.dice import Dice
from mmcam.shapes.drawing import FORMS, Stamp, background, mixed, shade, stamp
from mmcam.shapes.words import (
    COLOURS,
    HALVES,
    PATTERNS,
    SHAPES,
    SIZES,
    TEXTURES,
    TONES,
    Mask,
    Paint,
)

SPLITS = {
    "test": range(0, 500_000),
    "validation": range(500_000, 1_000_000),
    "train": range(1_000_000, 2**32),
}
"""Which seeds are for what. No scene or clip of one split is in another."""

SMALLEST = 48
"""The smallest side of a picture, in pixels."""

VISIBLE = 0.7
"""The share of a thing's pixels, and of each of its halves', that nothing may cover."""

_RADII = {"large": (15.0, 19.0), "small": (9.0, 11.0)}
"""From and to, on a picture of 96 x 96 pixels."""

_CROWDED = 16.5
"""The largest radius where there are more than two things."""

_TRIES = 60
"""How often things are laid out anew before others are taken."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Part:
    """The visible pixels of one colour: a whole thing, or a half of it."""

    colour: str
    paint: Paint
    place: str
    """"" for the whole; "left", "right", "top" or "bottom" for a half."""
    mask: Mask


@dataclass(frozen=True, kw_only=True, eq=False)
class Thing:
    """One object of a scene.

    A two-tone thing has two parts, the left or upper one first, and the texture "plain".
    """

    shape: str
    size: str
    texture: str
    parts: tuple[Part, ...]
    mask: Mask
    """The pixels that show it."""
    whole: Mask
    """The pixels it would show if nothing lay in front of it."""
    centre: tuple[float, float]
    """The mean (x, y) of the pixels that show it."""

    @property
    def colours(self) -> tuple[str, ...]:
        """Its one colour, or the two of its halves."""
        return tuple(part.colour for part in self.parts)


@dataclass(frozen=True, kw_only=True, eq=False)
class Scene:
    """A picture, and what is on it. Of two things that overlap, the later one lies in front."""

    seed: int
    pixels: UInt8[np.ndarray, "size size 3"]
    tone: str
    pattern: str
    objects: tuple[Thing, ...]

    @property
    def background(self) -> Mask:
        """The pixels that show no thing."""
        return ~union(self.objects)


def scene(seed: int, size: int = 96) -> Scene:
    """The scene of this seed, `size` pixels wide and high; another size is another scene.

    One thing; or two that lie clearly beside or above each other; or two or three that are alike,
    with or without another one; or one large thing among two or three small ones. `SPLITS` says
    which seeds are for training.

    Raises:
        InputError: the seed is negative, or the size below `SMALLEST`.
    """
    check(seed, size)
    dice = Dice(0, seed, size)
    while True:
        looks = _looks(dice)
        for _ in range(_TRIES):
            stamps = _laid_out(dice, looks, size)
            if stamps and _legible(things := _things(dice, looks, stamps, size), size):
                tone, pattern = dice.choose(TONES), dice.choose(PATTERNS)
                pixels = background(dice, tone, pattern, size)
                for thing, placed in zip(things, stamps, strict=True):
                    paint = thing.parts[0].paint
                    other = thing.parts[1].paint if len(thing.parts) > 1 else shade(paint)
                    placed.paint(pixels, paint, other)
                return Scene(seed=seed, pixels=pixels, tone=tone, pattern=pattern, objects=things)


def check(seed: int, size: int) -> None:
    """Refuse what no scene or clip can be made of.

    Raises:
        InputError: the seed is negative, or the size below `SMALLEST`.
    """
    if seed < 0:
        raise InputError(f"seed {seed}: seeds count from 0; see mmcam.shapes.SPLITS")
    if size < SMALLEST:
        raise InputError(
            f"size {size}: things would be too small to be seen; give at least {SMALLEST} pixels"
        )


def relation(first: tuple[float, float], other: tuple[float, float], size: int) -> str | None:
    """Where a thing clearly lies as seen from another one; None where it is not clear.

    Both are given as (x, y). Clear is a distance of 0.14 of the picture along one axis, 1.5 times
    as much as along the other.
    """
    right, down = first[0] - other[0], first[1] - other[1]
    if abs(right) >= max(0.14 * size, 1.5 * abs(down)):
        return "left of" if right < 0 else "right of"
    if abs(down) >= max(0.14 * size, 1.5 * abs(right)):
        return "above" if down < 0 else "below"
    return None


def union(things: Sequence[Thing | Part]) -> Mask:
    """The pixels that show any of the things or parts."""
    found: Mask = np.any([thing.mask for thing in things], axis=0)
    return found


@dataclass(frozen=True, kw_only=True)
class _Look:
    """A thing that has no place yet. `coat` is its texture, or how its two halves lie."""

    shape: str
    colours: tuple[str, ...]
    size: str
    coat: str


def _looks(dice: Dice) -> list[_Look]:
    """The things of a scene, the hindmost first."""
    kind = dice.choose(["single", "pair", "pair", "alike", "alike", "among", "among"])
    count = {"single": 1, "pair": 2, "alike": 2, "among": dice.between(3, 4)}[kind]
    colours = dice.sample(tuple(COLOURS), 2 * count)
    looks = [
        _look(dice, shape, colours[2 * index : 2 * index + 2])
        for index, shape in enumerate(dice.sample(tuple(SHAPES), count))
    ]
    if kind == "alike":
        looks = [looks[0]] * dice.between(2, 3) + looks[1 : 1 + dice.below(2)]
    if kind == "among":
        looks = [
            replace(look, size="small" if index else "large") for index, look in enumerate(looks)
        ]
    if kind in ("pair", "among"):
        looks = _related(dice, looks)
    return dice.sample(looks, len(looks))


def _look(dice: Dice, shape: str, colours: Sequence[str]) -> _Look:
    """A thing of the first colour, or of both."""
    size, both = dice.choose(SIZES), dice.happens(30)
    coat = dice.choose(tuple(HALVES) if both else ("plain", *TEXTURES))
    return _Look(shape=shape, colours=tuple(colours[: 1 + both]), size=size, coat=coat)


def _related(dice: Dice, looks: Sequence[_Look]) -> list[_Look]:
    """The same things in another order, of which up to three have a shape or a colour in common."""
    looks = dice.sample(looks, len(looks))
    first, alike = looks[0], dice.between(1, min(3, len(looks)))
    if alike == 1:
        return looks
    if dice.happens(50):
        return [replace(look, shape=first.shape) for look in looks[:alike]] + looks[alike:]
    coats = [dice.choose(TEXTURES) if look.coat in HALVES else look.coat for look in looks[:alike]]
    one_colour = [
        replace(look, colours=first.colours[:1], coat=coat)
        for look, coat in zip(looks[:alike], coats, strict=True)
    ]
    return one_colour + looks[alike:]


def _laid_out(dice: Dice, looks: Sequence[_Look], size: int) -> list[Stamp]:
    """The things in places where they do not hide each other much; none if there was no room."""
    radii = []
    for look in looks:
        least, most = _RADII[look.size]
        most = min(most, _CROWDED) if len(looks) > 2 else most
        radii.append(dice.quarter(size / 96 * least, size / 96 * most))
    places = _places(dice, looks, radii, size)
    if len(places) < len(looks):
        return []
    stamps = []
    for look, radius, place in zip(looks, radii, places, strict=True):
        degrees = 0 if look.coat in HALVES else 3 * dice.between(-7, 7)
        stamps.append(stamp(look.shape, look.coat, radius, degrees, place))
    return stamps


def _places(
    dice: Dice, looks: Sequence[_Look], radii: Sequence[float], size: int
) -> list[tuple[float, float]]:
    """Centres for as many of the things as there was room for."""
    # In half of the tries all things lie in one part of the picture, where some will overlap.
    side = size * (13 if dice.happens(50) else 20) // 20
    start = [dice.below(size - side + 1) for _ in range(2)]
    found: list[tuple[float, float]] = []
    for look, radius in zip(looks, radii, strict=True):
        edge = FORMS[look.shape].reach * radius + 1
        for _ in range(_TRIES):
            x, y = (dice.quarter(low + edge, low + side - edge) for low in start)
            if len(looks) == 2 and found and relation((x, y), found[0], size) is None:
                continue
            # Whether too much is hidden or touches is seen when all are drawn.
            if all(
                (x - left) ** 2 + (y - top) ** 2
                > ((1.0 if {*look.colours} & {*other.colours} else 0.7) * (radius + reach)) ** 2
                for (left, top), other, reach in zip(found, looks, radii, strict=False)
            ):
                found.append((x, y))
                break
        else:
            break
    return found


def _things(
    dice: Dice, looks: Sequence[_Look], stamps: Sequence[Stamp], size: int
) -> tuple[Thing, ...]:
    """The things as they are seen when each lies in front of those that come earlier."""
    things = []
    hidden = np.zeros((size, size), bool)
    for look, placed in reversed(list(zip(looks, stamps, strict=True))):
        halves = placed.masks(size)
        whole = halves[0] | halves[1]
        wholes = halves if look.coat in HALVES else (whole,)
        parts = tuple(
            Part(colour=colour, paint=mixed(dice, colour), place=place, mask=mask & ~hidden)
            for colour, place, mask in zip(
                look.colours, HALVES.get(look.coat, ("",)), wholes, strict=True
            )
        )
        seen = whole & ~hidden
        things.append(
            Thing(
                shape=look.shape,
                size=look.size,
                texture="plain" if look.coat in HALVES else look.coat,
                parts=parts,
                mask=seen,
                whole=whole,
                centre=_centre(seen),
            )
        )
        hidden |= whole
    return tuple(reversed(things))


def _centre(mask: Mask) -> tuple[float, float]:
    """The mean (x, y) of the pixels of a mask, by sums of whole numbers."""
    count = max(int(mask.sum()), 1)
    steps = np.arange(len(mask))
    return int(mask.sum(0) @ steps) / count, int(mask.sum(1) @ steps) / count


def _legible(things: Sequence[Thing], size: int) -> bool:
    """Whether enough is seen of each thing, and none can be taken for a part of another one."""
    for thing in things:
        # A half is about half of the whole by its form.
        enough = VISIBLE * int(thing.whole.sum())
        if int(thing.mask.sum()) < enough:
            return False
        if any(int(part.mask.sum()) * len(thing.parts) < enough for part in thing.parts):
            return False
    if len(things) == 2 and relation(things[0].centre, things[1].centre, size) is None:
        return False
    return all(
        _apart(first.whole, other.whole)
        for first, other in combinations(things, 2)
        if set(first.colours) & set(other.colours)
    )


def _apart(first: Mask, other: Mask) -> bool:
    """Whether at least two pixels lie between two masks."""
    wide = np.pad(other, 2)
    for _ in range(2):
        for axis in (0, 1):
            wide |= np.roll(wide, 1, axis) | np.roll(wide, -1, axis)
    return not bool((first & wide[2:-2, 2:-2]).any())
