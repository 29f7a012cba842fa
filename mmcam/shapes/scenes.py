"""Synthetic pictures with full ground truth: the things in them, and the pixels of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from jaxtyping import UInt8

from mmcam.errors import InputError
from mmcam.shapes.drawing import FORMS, Raster, background, jittered_paint, rasterise, shade
from mmcam.shapes.random_stream import RandomStream
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
"""The seeds of each split. The splits share no scene or clip."""

MIN_SIZE = 48
"""The minimum side of a picture, in pixels."""

MIN_VISIBLE = 0.7
"""The minimum visible share of the pixels of a thing, and of each half of a two-tone thing."""

_RADII = {"large": (15.0, 19.0), "small": (9.0, 11.0)}
"""The range of radii, for a picture of 96 x 96 pixels."""

_MAX_CROWDED_RADIUS = 16.5
"""The maximum radius if there are more than two things, for a picture of 96 x 96 pixels."""

_TRIES = 60
"""The number of positions tried for a thing, and of layouts tried for a set of things."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Part:
    """The visible pixels of one colour: a whole thing or half of it."""

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
    """The visible pixels."""
    whole: Mask
    """The pixels that would be visible without occlusion."""
    centre: tuple[float, float]
    """The mean (x, y) of the visible pixels."""

    @property
    def colours(self) -> tuple[str, ...]:
        """The colour of the thing, or those of its two halves."""
        return tuple(part.colour for part in self.parts)


@dataclass(frozen=True, kw_only=True, eq=False)
class Scene:
    """A picture and its things, back to front."""

    seed: int
    pixels: UInt8[np.ndarray, "size size 3"]
    tone: str
    pattern: str
    objects: tuple[Thing, ...]

    @property
    def background(self) -> Mask:
        """The pixels that belong to no thing."""
        return ~union(self.objects)


def scene(seed: int, size: int = 96) -> Scene:
    """The scene of this seed, `size` pixels wide and high; each size gives a different scene.

    A scene has one thing; or two, clearly beside or above each other; or two or three that look
    alike, with or without a different one; or one large thing among two or three small ones. See
    `SPLITS` for the seeds of each split.

    Raises:
        InputError: the seed is negative, or the size is below `MIN_SIZE`.
    """
    check_arguments(seed, size)
    rng = RandomStream(0, seed, size)
    while True:
        looks = _draw_looks(rng)
        for _ in range(_TRIES):
            rasters = _lay_out(rng, looks, size)
            if rasters and _is_legible(things := _build_things(rng, looks, rasters, size), size):
                tone, pattern = rng.choose(TONES), rng.choose(PATTERNS)
                pixels = background(rng, tone, pattern, size)
                for thing, raster in zip(things, rasters, strict=True):
                    paint = thing.parts[0].paint
                    other = thing.parts[1].paint if len(thing.parts) > 1 else shade(paint)
                    raster.paint(pixels, paint, other)
                return Scene(seed=seed, pixels=pixels, tone=tone, pattern=pattern, objects=things)


def check_arguments(seed: int, size: int) -> None:
    """Check the seed and the size of a scene or clip.

    Raises:
        InputError: the seed is negative, or the size is below `MIN_SIZE`.
    """
    if seed < 0:
        raise InputError(f"seed {seed}: seeds count from 0; see mmcam.shapes.SPLITS")
    if size < MIN_SIZE:
        raise InputError(
            f"size {size}: things would be too small to be visible; give at least {MIN_SIZE} pixels"
        )


def relation(first: tuple[float, float], other: tuple[float, float], size: int) -> str | None:
    """The position of the first centre relative to the other, or None if it is ambiguous.

    Centres are (x, y). A relation is clear if the distance along one axis is at least 0.14 of
    the picture and 1.5 times the distance along the other axis.
    """
    right, down = first[0] - other[0], first[1] - other[1]
    if abs(right) >= max(0.14 * size, 1.5 * abs(down)):
        return "left of" if right < 0 else "right of"
    if abs(down) >= max(0.14 * size, 1.5 * abs(right)):
        return "above" if down < 0 else "below"
    return None


def union(things: Sequence[Thing | Part]) -> Mask:
    """The visible pixels of all the things or parts."""
    mask: Mask = np.any([thing.mask for thing in things], axis=0)
    return mask


@dataclass(frozen=True, kw_only=True)
class _Look:
    """A thing without a position. `fill` is the texture, or the arrangement of the two halves."""

    shape: str
    colours: tuple[str, ...]
    size: str
    fill: str


def _draw_looks(rng: RandomStream) -> list[_Look]:
    """Draw the things of a scene, back to front."""
    kind = rng.choose(["single", "pair", "pair", "alike", "alike", "among", "among"])
    count = {"single": 1, "pair": 2, "alike": 2, "among": rng.between(3, 4)}[kind]
    colours = rng.sample(tuple(COLOURS), 2 * count)
    looks = [
        _draw_look(rng, shape, colours[2 * index : 2 * index + 2])
        for index, shape in enumerate(rng.sample(tuple(SHAPES), count))
    ]
    if kind == "alike":
        looks = [looks[0]] * rng.between(2, 3) + looks[1 : 1 + rng.below(2)]
    if kind == "among":
        looks = [
            replace(look, size="small" if index else "large") for index, look in enumerate(looks)
        ]
    if kind in ("pair", "among"):
        looks = _share_attribute(rng, looks)
    return rng.sample(looks, len(looks))


def _draw_look(rng: RandomStream, shape: str, colours: Sequence[str]) -> _Look:
    """Draw a thing with the first colour, or with both."""
    size, both = rng.choose(SIZES), rng.happens(30)
    fill = rng.choose(tuple(HALVES) if both else ("plain", *TEXTURES))
    return _Look(shape=shape, colours=tuple(colours[: 1 + both]), size=size, fill=fill)


def _share_attribute(rng: RandomStream, looks: Sequence[_Look]) -> list[_Look]:
    """Shuffle the things and let up to three of them share a shape or a colour."""
    looks = rng.sample(looks, len(looks))
    first, count = looks[0], rng.between(1, min(3, len(looks)))
    if count == 1:
        return looks
    if rng.happens(50):
        return [replace(look, shape=first.shape) for look in looks[:count]] + looks[count:]
    fills = [rng.choose(TEXTURES) if look.fill in HALVES else look.fill for look in looks[:count]]
    recoloured = [
        replace(look, colours=first.colours[:1], fill=fill)
        for look, fill in zip(looks[:count], fills, strict=True)
    ]
    return recoloured + looks[count:]


def _lay_out(rng: RandomStream, looks: Sequence[_Look], size: int) -> list[Raster]:
    """Rasterise the things at positions with little overlap; an empty list if they do not fit."""
    radii = []
    for look in looks:
        min_radius, max_radius = _RADII[look.size]
        if len(looks) > 2:
            max_radius = min(max_radius, _MAX_CROWDED_RADIUS)
        radii.append(rng.quarter(size / 96 * min_radius, size / 96 * max_radius))
    centres = _place_centres(rng, looks, radii, size)
    if len(centres) < len(looks):
        return []
    rasters = []
    for look, radius, centre in zip(looks, radii, centres, strict=True):
        degrees = 0 if look.fill in HALVES else 3 * rng.between(-7, 7)
        rasters.append(rasterise(look.shape, look.fill, radius, degrees, centre))
    return rasters


def _place_centres(
    rng: RandomStream, looks: Sequence[_Look], radii: Sequence[float], size: int
) -> list[tuple[float, float]]:
    """Draw the centres of as many of the things as fit."""
    # Half of the layouts use only one part of the picture, so that some things overlap.
    side = size * (13 if rng.happens(50) else 20) // 20
    start = [rng.below(size - side + 1) for _ in range(2)]
    centres: list[tuple[float, float]] = []
    for look, radius in zip(looks, radii, strict=True):
        edge = FORMS[look.shape].reach * radius + 1
        for _ in range(_TRIES):
            x, y = (rng.quarter(low + edge, low + side - edge) for low in start)
            if len(looks) == 2 and centres and relation((x, y), centres[0], size) is None:
                continue
            # Occlusion and contact are checked once all things are drawn, in `_is_legible`.
            if all(
                (x - left) ** 2 + (y - top) ** 2
                > ((1.0 if {*look.colours} & {*other.colours} else 0.7) * (radius + reach)) ** 2
                for (left, top), other, reach in zip(centres, looks, radii, strict=False)
            ):
                centres.append((x, y))
                break
        else:
            break
    return centres


def _build_things(
    rng: RandomStream, looks: Sequence[_Look], rasters: Sequence[Raster], size: int
) -> tuple[Thing, ...]:
    """The things with their masks; each thing occludes the earlier ones."""
    things = []
    hidden = np.zeros((size, size), bool)
    for look, raster in reversed(list(zip(looks, rasters, strict=True))):
        halves = raster.masks(size)
        whole = halves[0] | halves[1]
        wholes = halves if look.fill in HALVES else (whole,)
        parts = tuple(
            Part(colour=colour, paint=jittered_paint(rng, colour), place=place, mask=mask & ~hidden)
            for colour, place, mask in zip(
                look.colours, HALVES.get(look.fill, ("",)), wholes, strict=True
            )
        )
        visible = whole & ~hidden
        things.append(
            Thing(
                shape=look.shape,
                size=look.size,
                texture="plain" if look.fill in HALVES else look.fill,
                parts=parts,
                mask=visible,
                whole=whole,
                centre=_centre(visible),
            )
        )
        hidden |= whole
    return tuple(reversed(things))


def _centre(mask: Mask) -> tuple[float, float]:
    """The mean (x, y) of the pixels of a mask, from sums of integers."""
    count = max(int(mask.sum()), 1)
    steps = np.arange(len(mask))
    return int(mask.sum(0) @ steps) / count, int(mask.sum(1) @ steps) / count


def _is_legible(things: Sequence[Thing], size: int) -> bool:
    """Whether each thing is visible enough and cannot be mistaken for part of another."""
    for thing in things:
        # By construction, a half covers about half of the whole.
        min_visible = MIN_VISIBLE * int(thing.whole.sum())
        if int(thing.mask.sum()) < min_visible:
            return False
        if any(int(part.mask.sum()) * len(thing.parts) < min_visible for part in thing.parts):
            return False
    if len(things) == 2 and relation(things[0].centre, things[1].centre, size) is None:
        return False
    return all(
        _are_apart(first.whole, other.whole)
        for first, other in combinations(things, 2)
        if set(first.colours) & set(other.colours)
    )


def _are_apart(first: Mask, other: Mask) -> bool:
    """Whether at least two pixels lie between two masks."""
    dilated = np.pad(other, 2)
    for _ in range(2):
        for axis in (0, 1):
            dilated |= np.roll(dilated, 1, axis) | np.roll(dilated, -1, axis)
    return not bool((first & dilated[2:-2, 2:-2]).any())
