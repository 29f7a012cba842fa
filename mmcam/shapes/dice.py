"""Seeded draws that come out the same on every machine and with every NumPy.

NumPy promises to keep the stream of bits of PCG64 and of SeedSequence as they are, and no more:
the methods of its Generator may change (NEP 19). So draws are made from the bits themselves.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

import numpy as np
from jaxtyping import UInt8

T = TypeVar("T")

_BLOCK = 64


class Dice:
    """A stream of draws. Streams with different keys have nothing to do with each other."""

    def __init__(self, *key: int) -> None:
        self._bits = np.random.PCG64(np.random.SeedSequence(key))
        self._words = self._draw()

    def _draw(self) -> Iterator[int]:
        while True:
            yield from self._bits.random_raw(_BLOCK).tolist()

    def below(self, bound: int) -> int:
        """A whole number from 0 to `bound` - 1."""
        return next(self._words) % bound

    def between(self, low: int, high: int) -> int:
        """A whole number from `low` to `high`, both of them possible."""
        return low + self.below(high - low + 1)

    def quarter(self, low: float, high: float) -> float:
        """A multiple of 1/4 from `low` to `high`, or `low` rounded where there is none."""
        first, last = round(4 * low), round(4 * high)
        return self.between(first, max(first, last)) / 4

    def happens(self, percent: int) -> bool:
        """True in so many of a hundred cases."""
        return self.below(100) < percent

    def choose(self, options: Sequence[T]) -> T:
        """One of the options, all of them alike."""
        return options[self.below(len(options))]

    def sample(self, options: Sequence[T], count: int) -> list[T]:
        """So many different ones of the options, in any order."""
        left = list(options)
        return [left.pop(self.below(len(left))) for _ in range(count)]

    def bytes(self, *shape: int) -> UInt8[np.ndarray, "..."]:
        """Numbers from 0 to 255 in an array of this shape."""
        count = int(np.prod(shape))
        words = np.asarray(self._bits.random_raw(-(-count // 8)))
        return words.astype("<u8").view(np.uint8)[:count].reshape(shape)
