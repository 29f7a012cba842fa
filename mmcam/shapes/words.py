"""What a world is made of, and every word that speaks of it.

Questions and actions spell "color" as the VQA data set does.
"""

from __future__ import annotations

from jaxtyping import Bool
from numpy import ndarray

Mask = Bool[ndarray, "height width"]
Paint = tuple[int, int, int]

SHAPES = {
    "circle": "circles",
    "square": "squares",
    "triangle": "triangles",
    "star": "stars",
    "cross": "crosses",
    "ring": "rings",
    "heart": "hearts",
    "moon": "moons",
}
"""The shapes, each with its plural."""

COLOURS: dict[str, Paint] = {
    "red": (208, 32, 38),
    "orange": (242, 128, 22),
    "yellow": (246, 222, 52),
    "green": (44, 152, 62),
    "blue": (38, 84, 208),
    "purple": (132, 48, 166),
    "pink": (246, 142, 190),
    "brown": (142, 84, 38),
    "white": (244, 244, 244),
    "black": (14, 14, 16),
}
"""The middle of each colour, in RGB."""

JITTER = 10
"""How far a thing's paint may lie from the middle of its colour, in each channel."""

SIZES = ("large", "small")
TEXTURES = ("plain", "striped", "dotted", "checked")
"""How a thing of one colour is painted. Captions do not say "plain" of a thing."""

HALVES = {"left and right": ("left", "right"), "top and bottom": ("top", "bottom")}
"""How the two colours of a two-tone thing lie, the one that is named first first."""

TONES = ("light", "dark")
PATTERNS = ("plain", "striped", "noisy", "faded", "cluttered")
"""The backgrounds: flat, wide stripes, grains, a gradient, or faint rectangles."""

RELATIONS = ("left of", "right of", "above", "below")
NUMBERS = {2: "two", 3: "three"}

ACTIONS = (
    "slides left",
    "slides right",
    "slides up",
    "slides down",
    "bounces",
    "grows",
    "shrinks",
    "spins",
    "blinks",
    "changes color",
)
"""What the acting object of a clip may do."""

KINDS = ("color", "shape", "count", "presence", "relation")
"""The kinds of questions, in the order in which a scene's questions come."""

COUNTS = ("0", "1", "2", "3")

ANSWERS = (*COLOURS, *SHAPES, *COUNTS, "yes", "no")
"""Every answer to any question."""


def _all(*words: str) -> tuple[str, ...]:
    """The words, once each, in the order in which they first come."""
    return tuple(dict.fromkeys(" ".join(words).split()))


VOCABULARY = _all(
    "a and on among things background",
    *(*RELATIONS, *NUMBERS.values(), *SIZES, *TEXTURES, *TONES, *PATTERNS),
    *(*COLOURS, *SHAPES, *SHAPES.values()),
)
"""Every word of any caption."""

QUESTION_WORDS = _all(
    "what color is the ? shape thing how many things are there any and",
    *(*RELATIONS, *TEXTURES[1:], *COLOURS, *SHAPES, *SHAPES.values()),
)
"""Every word of any question; the question mark is a word of its own."""
