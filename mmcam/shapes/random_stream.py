"""Seeded random draws that are the same on every machine and with every NumPy version.

NumPy guarantees the bit streams of PCG64 and SeedSequence, but not those of the methods of its
Generator (NEP 19). The draws are therefore computed from the raw bits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

import numpy as np
from jaxtyping import UInt8

T = TypeVar("T")

_BLOCK_SIZE = 64


class RandomStream:
    """A stream of random draws.

    Streams with different keys are independent if the keys have one length and numbers below 2**32.
    Otherwise they may be the same: the keys (1) and (1, 0) give one stream.
    """

    def __init__(self, *key: int) -> None:
        self._bits = np.random.PCG64(np.random.SeedSequence(key))
        self._words = self._draw_words()

    def _draw_words(self) -> Iterator[int]:
        while True:
            yield from self._bits.random_raw(_BLOCK_SIZE).tolist()

    def below(self, bound: int) -> int:
        """An integer from 0 to `bound` - 1."""
        return next(self._words) % bound

    def between(self, low: int, high: int) -> int:
        """An integer from `low` to `high`, inclusive."""
        return low + self.below(high - low + 1)

    def quarter(self, low: float, high: float) -> float:
        """A multiple of 1/4 from `low` to `high`, inclusive; `low` if `high` is less.

        Both bounds are first rounded to multiples of 1/4.
        """
        first, last = round(4 * low), round(4 * high)
        return self.between(first, max(first, last)) / 4

    def happens(self, percent: int) -> bool:
        """True with a probability of `percent` / 100."""
        return self.below(100) < percent

    def choose(self, options: Sequence[T]) -> T:
        """One of the options, each with the same probability."""
        return options[self.below(len(options))]

    def sample(self, options: Sequence[T], count: int) -> list[T]:
        """`count` of the options without replacement, in random order."""
        remaining = list(options)
        return [remaining.pop(self.below(len(remaining))) for _ in range(count)]

    def bytes(self, *shape: int) -> UInt8[np.ndarray, "..."]:
        """An array of this shape with values from 0 to 255."""
        count = int(np.prod(shape))
        words = np.asarray(self._bits.random_raw(-(-count // 8)))
        return words.astype("<u8").view(np.uint8)[:count].reshape(shape)
