"""A dataset and a model for runs: pictures of one coloured square, a network that sees colours."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np

from mmcam.adapters.base.classifier import Classifier
from mmcam.datasets import Dataset, Item, Region
from mmcam.errors import InputError
from tests.colour_net import COLOURS, PAPER, model

HEIGHT, WIDTH, SIDE = 48, 64, 16


def network() -> Classifier:
    """The colour network for pictures; named by tests as tests.evaluation.coloured:network."""
    return model(clips=False)


def square(number: int) -> tuple[np.ndarray, str, tuple[float, float, float, float]]:
    """Picture `number`: its pixels, the colour of its square, and the square's box."""
    rng = np.random.default_rng(number)
    noise = rng.integers(-6, 7, (HEIGHT, WIDTH, 3))
    pixels = (np.asarray(PAPER) + noise).astype(np.uint8)
    colour = list(COLOURS)[number % 3]
    top, left = int(rng.integers(HEIGHT - SIDE)), int(rng.integers(WIDTH - SIDE))
    pixels[top : top + SIDE, left : left + SIDE] = COLOURS[colour]
    return pixels, colour, (float(left), float(top), float(left + SIDE), float(top + SIDE))


class Squares(Dataset):
    """So many pictures; those in `broken` cannot be read."""

    def __init__(self, count: int, broken: tuple[int, ...] = ()) -> None:
        self.count, self.broken = count, broken
        self.fingerprint = f"squares {count}"
        self.items_made = 0

    def __len__(self) -> int:
        return self.count

    def item(self, number: int) -> Item:
        """Picture `number`."""
        self.items_made += 1
        if number in self.broken:
            raise InputError(f"picture {number} is broken; draw it again")
        pixels, colour, box = square(number)
        return Item(
            id=f"square {number}",
            source=pixels,
            labels=(colour,),
            regions={colour: Region(boxes=(box,))},
        )


class Deadly(Squares):
    """Squares, one of which kills the process that reads it first."""

    def __init__(self, count: int, marker: Path) -> None:
        super().__init__(count, broken=(3,))
        self.marker = marker

    def item(self, number: int) -> Item:
        if number == 13 and not self.marker.exists():
            self.marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().item(number)


def rows_of(folder: Any) -> list[dict[str, Any]]:
    """All rows of a run by item, without the time they took."""
    from mmcam.evaluation.shards import RunFolder

    rows = [row for table in RunFolder(folder).tables() for row in table.to_pylist()]
    for row in rows:
        del row["seconds"]
    return sorted(rows, key=lambda row: int(row["index"]))
