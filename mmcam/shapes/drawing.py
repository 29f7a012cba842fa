"""Draw shapes, textures and backgrounds into arrays, identically on every machine.

Floating-point reductions, sines and the like may differ in the last digit between machines.
Therefore only elementwise products and sums decide whether a point lies in a shape; the rest is
integer arithmetic.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Int16, UInt8

from mmcam.shapes.random_stream import RandomStream
from mmcam.shapes.words import COLOURS, JITTER, Mask, Paint

Points = Float32[np.ndarray, "_height _width"]
Inside = Bool[np.ndarray, "_height _width"]

SAMPLES = 4
"""Each pixel is sampled at `SAMPLES` x `SAMPLES` points."""

FULL = SAMPLES**2
"""The number of sample points in a pixel, and the opacity of an opaque shape."""


@cache
def direction(degrees: int) -> tuple[float, float]:
    """The cosine and the sine of an angle, rounded so that every machine gives the same values."""
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
    # A pentagram: the points on the inner side of at least four of its five lines.
    lines = np.zeros(np.broadcast_shapes(x.shape, y.shape), np.int8)
    for tip in range(-90, 270, 72):
        right, down = direction(tip)
        lines += x * right + y * down <= 0.44
    inside: Inside = lines >= 4
    return inside


def _cross(x: Points, y: Points) -> Inside:
    across, down = abs(x), abs(y)
    inside: Inside = (np.maximum(across, down) <= 1.02) & (np.minimum(across, down) <= 0.34)
    return inside


def _ring(x: Points, y: Points) -> Inside:
    radius_squared = x * x + y * y
    inside: Inside = (radius_squared <= 1.06) & (radius_squared >= 0.34)
    return inside


def _heart(x: Points, y: Points) -> Inside:
    # The sextic (x² + y² - 1)³ = x² y³, with y upwards.
    x, y = 1.2 * x, 0.1 - 1.2 * y
    x_squared, y_squared = x * x, y * y
    bulge = x_squared + y_squared - 1
    inside: Inside = bulge * bulge * bulge <= x_squared * y_squared * y
    return inside


def _moon(x: Points, y: Points) -> Inside:
    # A disc minus a second disc, which is shifted to the right.
    left, right = x - 0.25, x - 0.92
    y_squared = y * y
    inside: Inside = (left * left + y_squared <= 1.32) & (right * right + y_squared >= 0.8)
    return inside


class Form(NamedTuple):
    """A shape of radius 1; its area is that of a disc of radius 0.85 to 0.9."""

    inside: Callable[[Points, Points], Inside]
    """Whether each point (x to the right, y down) lies in the shape."""
    reach: float
    """The distance of the outermost point from the centre."""
    middle: tuple[float, float]
    """The x and the y of the lines that cut the shape into halves of the same area."""


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


def _second_paint(form: Form, fill: str, x: Points, y: Points) -> Inside:
    """Whether each point has the second paint of the shape."""
    mask: Inside = np.zeros(np.broadcast_shapes(x.shape, y.shape), bool)
    if fill == "striped":
        mask |= np.floor(x / 0.28) % 2 == 1
    elif fill == "checked":
        mask |= (np.floor(x / 0.4) + np.floor(y / 0.4)) % 2 == 1
    elif fill == "dotted":
        across, down = (axis - 0.62 * np.floor(axis / 0.62) - 0.31 for axis in (x, y))
        mask |= across * across + down * down <= 0.036
    elif fill == "left and right":
        mask |= x > form.middle[0]
    elif fill == "top and bottom":
        mask |= y > form.middle[1]
    return mask


@dataclass(frozen=True, kw_only=True)
class Raster:
    """A shape rasterised at its position, as the number of covered points (0 to `FULL`) per pixel.

    `box` is the region of the picture that the counts are for. `cover` counts all covered points,
    `second` those with the second paint.
    """

    box: tuple[slice, slice]
    cover: UInt8[np.ndarray, "height width"]
    second: UInt8[np.ndarray, "height width"]

    def covered(self) -> Mask:
        """The pixels of the box that are at least half covered by the shape."""
        mask: Mask = 2 * self.cover >= FULL
        return mask

    def masks(self, size: int) -> tuple[Mask, Mask]:
        """The masks `[size size]` of the covered pixels of the first and the second paint."""
        covered = self.covered()
        second = covered & (2 * self.second > self.cover)
        masks = np.zeros((2, size, size), bool)
        masks[0][self.box] = covered & ~second
        masks[1][self.box] = second
        return masks[0], masks[1]

    def paint(
        self,
        pixels: UInt8[np.ndarray, "height width 3"],
        first: Paint,
        second: Paint,
        opacity: int = FULL,
    ) -> None:
        """Paint the shape over a picture, in place, with an opacity of `opacity` / `FULL`."""
        underlying = pixels[self.box].astype(np.int32)
        cover, second_cover = (
            count[..., None].astype(np.int32) for count in (self.cover, self.second)
        )
        paints = np.array([first, second], np.int32)
        change = (cover - second_cover) * paints[0] + second_cover * paints[1] - cover * underlying
        pixels[self.box] = underlying + (change * opacity + FULL * FULL // 2) // (FULL * FULL)


@lru_cache(maxsize=512)
def rasterise(
    shape: str, fill: str, radius: float, degrees: int, centre: tuple[float, float]
) -> Raster:
    """Rasterise a shape of this radius (pixels), rotated clockwise with its fill about its centre.

    `centre` is (x, y); `fill` is one of `TEXTURES` or of `HALVES`. The shape must lie inside the
    picture.
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
    second = inside & _second_paint(form, fill, across, down)
    (left, right), (top, bottom) = edges
    box = (slice(top, bottom), slice(left, right))
    return Raster(box=box, cover=_count_points(inside), second=_count_points(second))


def _count_points(points: Inside) -> UInt8[np.ndarray, "height width"]:
    """The number of true points in each pixel."""
    rows = points.view(np.uint8)
    rows = sum((rows[:, step::SAMPLES] for step in range(1, SAMPLES)), rows[:, ::SAMPLES])
    counts: UInt8[np.ndarray, "height width"] = sum(
        (rows[step::SAMPLES] for step in range(1, SAMPLES)), rows[::SAMPLES]
    )
    counts.flags.writeable = False
    return counts


def jittered_paint(rng: RandomStream, colour: str) -> Paint:
    """A paint of this colour, up to `JITTER` away from the central value in each channel."""
    red, green, blue = (
        min(max(channel + rng.between(-JITTER, JITTER), 0), 255) for channel in COLOURS[colour]
    )
    return red, green, blue


def shade(paint: Paint) -> Paint:
    """The second paint of a texture: darker than the first, or lighter if it is nearly black."""
    red, green, blue = paint
    if red + green + blue < 150:
        return red + 84, green + 84, blue + 84
    return red * 9 // 16, green * 9 // 16, blue * 9 // 16


def background(
    rng: RandomStream, tone: str, pattern: str, size: int
) -> UInt8[np.ndarray, "height width 3"]:
    """A picture `[size size 3]` of the background alone."""
    level = rng.between(168, 196) if tone == "light" else rng.between(62, 86)
    base = np.array([level + rng.between(-12, 12) for _ in range(3)], np.int16)
    relief = _relief(rng, pattern, size)
    pixels: UInt8[np.ndarray, "height width 3"] = np.clip(base + relief[..., None], 0, 255).astype(
        np.uint8
    )
    return pixels


def _relief(rng: RandomStream, pattern: str, size: int) -> Int16[np.ndarray, "height width"]:
    """The difference of each pixel from the background's base colour, in all channels."""
    down, across = np.mgrid[:size, :size].astype(np.int16)
    relief = np.zeros((size, size), np.int16)
    if pattern == "noisy":
        grain = max(1, size // 64)
        cells = -(-size // grain)
        noise = rng.bytes(cells, cells).astype(np.int16) % 37 - 18
        relief = noise.repeat(grain, 0).repeat(grain, 1)[:size, :size]
    elif pattern == "striped":
        x_step, y_step = rng.choose([(1, 0), (0, 1), (1, 1), (1, -1)])
        width = size * rng.between(5, 8) // 96 * (2 if x_step and y_step else 1)
        bands = (x_step * across + y_step * down + rng.below(width)) // width % 2
        relief = (2 * bands - 1) * rng.between(8, 11)
    elif pattern == "faded":
        x_step, y_step = rng.choose([(a, b) for a in (-1, 0, 1) for b in (-1, 0, 1) if a or b])
        steps = x_step * (2 * across - size + 1) + y_step * (2 * down - size + 1)
        relief = (
            steps.astype(np.int32) * rng.between(22, 28) // (size * (abs(x_step) + abs(y_step)))
        )
    elif pattern == "cluttered":
        for _ in range(rng.between(14, 20)):
            width, height = (size * rng.between(6, 22) // 96 for _ in range(2))
            left, top = rng.below(size - width), rng.below(size - height)
            step = rng.between(7, 13) * rng.choose([-1, 1])
            relief[top : top + height, left : left + width] = step
    result: Int16[np.ndarray, "height width"] = relief.astype(np.int16)
    return result
