"""The place of each token in the text that the tokens decode to."""

from __future__ import annotations

from collections.abc import Callable, Sequence

Offsets = list[tuple[int, int]]
"""The first character of each token in a text, and the end (exclusive)."""


def offsets_in_decoded(decode: Callable[[Sequence[int]], str], tokens: Sequence[int]) -> Offsets:
    """The offsets of tokens in their decoded text, found by decoding ever longer prefixes.

    If several tokens encode one character, and none decodes to text alone, they all have its
    offsets.
    """
    whole = decode(tokens)
    offsets: Offsets = []
    start, pending = 0, 0
    for count in range(1, len(tokens) + 1):
        stop = _common_prefix_length(whole, decode(tokens[:count]))
        pending += 1
        if stop > start or count == len(tokens):
            offsets += [(start, max(stop, start))] * pending
            start, pending = max(stop, start), 0
    return offsets


def stripped(text: str, offsets: Offsets) -> tuple[str, Offsets]:
    """A text without spaces at its ends, and the offsets in it."""
    spaces = len(text) - len(text.lstrip())
    return text.strip(), [(max(a - spaces, 0), max(b - spaces, 0)) for a, b in offsets]


def _common_prefix_length(first: str, second: str) -> int:
    """The number of characters that two texts share at their beginning."""
    pairs = enumerate(zip(first, second, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(first), len(second)))
