"""The shapes, colours and other attributes of scenes and clips, and all words of their texts.

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
"""The central RGB value of each colour."""

JITTER = 10
"""The maximum difference of a thing's paint from the central value, in each channel."""

SIZES = ("large", "small")
TEXTURES = ("plain", "striped", "dotted", "checked")
"""The textures of things of one colour. Captions do not mention "plain"."""

HALVES = {"left and right": ("left", "right"), "top and bottom": ("top", "bottom")}
"""The arrangements of the two colours of a two-tone thing; captions name the first half first."""

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
"""The actions of clips."""

KINDS = ("color", "shape", "count", "presence", "relation")
"""The kinds of questions, in the order of `questions(scene)`."""

COUNTS = ("0", "1", "2", "3")

ANSWERS = (*COLOURS, *SHAPES, *COUNTS, "yes", "no")
"""All possible answers."""


def _distinct_words(*words: str) -> tuple[str, ...]:
    """The distinct words, in order of first occurrence."""
    return tuple(dict.fromkeys(" ".join(words).split()))


VOCABULARY = _distinct_words(
    "a and on among things background",
    *(*RELATIONS, *NUMBERS.values(), *SIZES, *TEXTURES, *TONES, *PATTERNS),
    *(*COLOURS, *SHAPES, *SHAPES.values()),
)
"""All words of captions."""

QUESTION_WORDS = _distinct_words(
    "what color is the ? shape thing how many things are there any and",
    *(*RELATIONS, *TEXTURES[1:], *COLOURS, *SHAPES, *SHAPES.values()),
)
"""All words of questions; the question mark is a separate word."""
