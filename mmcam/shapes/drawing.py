"""Shapes, textures and backgrounds as arrays, by whole numbers and the four basic operations.

Sums in floating point, sines and the like may differ in the last digit from machine to machine.
Here single products and sums decide whether a point lies in a shape, and what follows is counting,
so that a picture is the same everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Int16, UInt8

from mmcam.shapes.dice import Dice
from mmcam.shapes.words import COLOURS, JITTER, Mask, Paint

Points = Float32[np.ndarray, "_height _width"]
Inside = Bool[np.ndarray, "_height _width"]

SAMPLES = 4
"""A pixel is looked at in so many rows of so many points."""

FULL = SAMPLES**2


@cache
def direction(degrees: int) -> tuple[float, float]:
    """The cosine and the sine of an angle, rounded to where every machine agrees."""
    angle = math.radians(degrees % 360)
    return round(math.cos(angle), 6), round(math.sin(angle), 6)


def _circle(x: Points, y: Points) -> Inside:
    inside: Inside = x * x + y * y <= 0.79
    return inside


def _square(x: Points, y: Points) -> Inside:
    inside: Inside = np.maximum(abs(x), abs(y)) <= 0.79
    return inside


def _triangle(x: Points, y: Points) -> Inside:
    # Equilateral, one corner up; 0.866 is the sine of 60 degrees.
    inside: Inside = (y <= 0.6725) & (0.866 * abs(x) - 0.5 * y <= 0.6725)
    return inside


def _star(x: Points, y: Points) -> Inside:
    # A pentagram: every point of it lies inside at least four of its five lines.
    lines = np.zeros(np.broadcast_shapes(x.shape, y.shape), np.int8)
    for tip in range(-90, 270, 72):
        right, down = direction(tip)
        lines += x * right + y * down <= 0.44
    inside: Inside = lines >= 4
    return inside


def _cross(x: Points, y: Points) -> Inside:
    wide, high = abs(x), abs(y)
    inside: Inside = (np.maximum(wide, high) <= 1.02) & (np.minimum(wide, high) <= 0.34)
    return inside


def _ring(x: Points, y: Points) -> Inside:
    square = x * x + y * y
    inside: Inside = (square <= 1.06) & (square >= 0.34)
    return inside


def _heart(x: Points, y: Points) -> Inside:
    # The sextic (x² + y² - 1)³ = x² y³, with y upwards.
    x, y = 1.2 * x, 0.1 - 1.2 * y
    wide, high = x * x, y * y
    bulge = wide + high - 1
    inside: Inside = bulge * bulge * bulge <= wide * high * y
    return inside


def _moon(x: Points, y: Points) -> Inside:
    # A disc without another one to the right of it.
    left, right = x - 0.25, x - 0.92
    high = y * y
    inside: Inside = (left * left + high <= 1.32) & (right * right + high >= 0.8)
    return inside


class Form(NamedTuple):
    """A shape of radius 1, which is about that of a disc of the same area."""

    inside: Callable[[Points, Points], Inside]
    """Which points (x to the right, y down) lie in it."""
    reach: float
    """How far its outermost point lies from its centre."""
    middle: tuple[float, float]
    """The x and the y that cut it into halves of the same area."""


FORMS = {
    "circle": Form(_circle, 0.89, (0, 0)),
    "square": Form(_square, 1.12, (0, 0)),
    "triangle": Form(_triangle, 1.35, (0, 0.082)),
    "star": Form(_star, 1.43, (0, -0.065)),
    "cross": Form(_cross, 1.08, (0, 0)),
    "ring": Form(_ring, 1.03, (0, 0)),
    "heart": Form(_heart, 1.13, (0, -0.189)),
    "moon": Form(_moon, 1.32, (-0.168, 0)),
}


def _second(form: Form, coat: str, x: Points, y: Points) -> Inside:
    """Which points of a shape have its second paint."""
    found: Inside = np.zeros(np.broadcast_shapes(x.shape, y.shape), bool)
    if coat == "striped":
        found |= np.floor(x / 0.28) % 2 == 1
    elif coat == "checked":
        found |= (np.floor(x / 0.4) + np.floor(y / 0.4)) % 2 == 1
    elif coat == "dotted":
        across, down = (axis - 0.62 * np.floor(axis / 0.62) - 0.31 for axis in (x, y))
        found |= across * across + down * down <= 0.036
    elif coat == "left and right":
        found |= x > form.middle[0]
    elif coat == "top and bottom":
        found |= y > form.middle[1]
    return found


@dataclass(frozen=True, kw_only=True)
class Stamp:
    """A shape where it lies: how many of a pixel's `FULL` points it covers, and with which paint.

    `second` counts those of them that have the second paint. `box` is the part of the picture that
    the counts are for.
    """

    box: tuple[slice, slice]
    cover: UInt8[np.ndarray, "height width"]
    second: UInt8[np.ndarray, "height width"]

    def covered(self) -> Mask:
        """The pixels of the box that are at least half covered."""
        found: Mask = 2 * self.cover >= FULL
        return found

    def masks(self, size: int) -> tuple[Mask, Mask]:
        """The pixels `[size size]` that are at least half covered, by either paint."""
        covered = self.covered()
        second = covered & (2 * self.second > self.cover)
        found = np.zeros((2, size, size), bool)
        found[0][self.box] = covered & ~second
        found[1][self.box] = second
        return found[0], found[1]

    def paint(
        self,
        pixels: UInt8[np.ndarray, "height width 3"],
        first: Paint,
        second: Paint,
        opacity: int = FULL,
    ) -> None:
        """Paint it over a picture, so many of `FULL` parts opaque."""
        below = pixels[self.box].astype(np.int32)
        cover, other = (count[..., None].astype(np.int32) for count in (self.cover, self.second))
        paints = np.array([first, second], np.int32)
        mixed = (cover - other) * paints[0] + other * paints[1] - cover * below
        pixels[self.box] = below + (mixed * opacity + FULL * FULL // 2) // (FULL * FULL)


@lru_cache(maxsize=512)
def stamp(shape: str, coat: str, radius: float, degrees: int, centre: tuple[float, float]) -> Stamp:
    """A shape of this radius in pixels, turned clockwise about its centre (x, y) with its coat.

    The coat is one of `TEXTURES` or of `HALVES`. The shape must lie in the picture.
    """
    form = FORMS[shape]
    reach = form.reach * radius
    edges = [(math.floor(middle - reach), math.ceil(middle + reach)) for middle in centre]
    x, y = (
        ((np.arange(SAMPLES * (last - first), dtype=np.float32) + 0.5) / SAMPLES + first - middle)
        / radius
        for (first, last), middle in zip(edges, centre, strict=True)
    )
    cosine, sine = direction(degrees)
    across, down = x[None], y[:, None]
    if degrees % 360:
        across, down = across * cosine + down * sine, down * cosine - across * sine
    inside = form.inside(across, down)
    second = inside & _second(form, coat, across, down)
    (left, right), (top, bottom) = edges
    box = (slice(top, bottom), slice(left, right))
    return Stamp(box=box, cover=_counts(inside), second=_counts(second))


def _counts(points: Inside) -> UInt8[np.ndarray, "height width"]:
    """How many of each pixel's points are true."""
    rows = points.view(np.uint8)
    rows = sum((rows[:, step::SAMPLES] for step in range(1, SAMPLES)), rows[:, ::SAMPLES])
    found: UInt8[np.ndarray, "height width"] = sum(
        (rows[step::SAMPLES] for step in range(1, SAMPLES)), rows[::SAMPLES]
    )
    found.flags.writeable = False
    return found


def mixed(dice: Dice, colour: str) -> Paint:
    """A paint of this colour: its middle, a little off in each channel."""
    red, green, blue = (
        min(max(channel + dice.between(-JITTER, JITTER), 0), 255) for channel in COLOURS[colour]
    )
    return red, green, blue


def shade(paint: Paint) -> Paint:
    """What a texture adds to a paint: a darker one, or a lighter one of what is nearly black."""
    red, green, blue = paint
    if red + green + blue < 150:
        return red + 84, green + 84, blue + 84
    return red * 9 // 16, green * 9 // 16, blue * 9 // 16


def background(
    dice: Dice, tone: str, pattern: str, size: int
) -> UInt8[np.ndarray, "height width 3"]:
    """A picture `[size size 3]` with nothing on it yet."""
    level = dice.between(168, 196) if tone == "light" else dice.between(62, 86)
    base = np.array([level + dice.between(-12, 12) for _ in range(3)], np.int16)
    relief = _relief(dice, pattern, size)
    pixels: UInt8[np.ndarray, "height width 3"] = np.clip(base + relief[..., None], 0, 255).astype(
        np.uint8
    )
    return pixels


def _relief(dice: Dice, pattern: str, size: int) -> Int16[np.ndarray, "height width"]:
    """How much lighter than its tone each pixel of a background is."""
    down, across = np.mgrid[:size, :size].astype(np.int16)
    relief = np.zeros((size, size), np.int16)
    if pattern == "noisy":
        grain = max(1, size // 64)
        cells = -(-size // grain)
        noise = dice.bytes(cells, cells).astype(np.int16) % 37 - 18
        relief = noise.repeat(grain, 0).repeat(grain, 1)[:size, :size]
    elif pattern == "striped":
        right, low = dice.choose([(1, 0), (0, 1), (1, 1), (1, -1)])
        width = size * dice.between(5, 8) // 96 * (2 if right and low else 1)
        bands = (right * across + low * down + dice.below(width)) // width % 2
        relief = (2 * bands - 1) * dice.between(8, 11)
    elif pattern == "faded":
        right, low = dice.choose([(a, b) for a in (-1, 0, 1) for b in (-1, 0, 1) if a or b])
        steps = right * (2 * across - size + 1) + low * (2 * down - size + 1)
        relief = steps.astype(np.int32) * dice.between(22, 28) // (size * (abs(right) + abs(low)))
    elif pattern == "cluttered":
        for _ in range(dice.between(14, 20)):
            wide, high = (size * dice.between(6, 22) // 96 for _ in range(2))
            left, top = dice.below(size - wide), dice.below(size - high)
            step = dice.between(7, 13) * dice.choose([-1, 1])
            relief[top : top + high, left : left + wide] = step
    found: Int16[np.ndarray, "height width"] = relief.astype(np.int16)
    return found
