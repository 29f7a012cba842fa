"""Does a model look where people look? (ICCV section 7.2, by the protocol of Das et al. 2016.)

Both maps are brought to 14 x 14 cells and compared by Spearman's rank correlation. VQA-HAT holds
one map a question, or three in its validation part; the agreement of people with each other is the
ceiling.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from mmcam.errors import EvaluationError
from mmcam.evaluators.maps import Map, spearman, to_cells

CELLS = (14, 14)

HumanMap = Float[np.ndarray, "_ _"]


def human_correlation(
    heatmap: Map, people: Sequence[HumanMap], cells: tuple[int, int] = CELLS
) -> float:
    """The rank correlation of a map with people's, the mean over the people, in [-1, 1].

    Maps are averaged over the cells, so their sizes may differ: each covers the whole picture.
    Cells that the model did not see are left out. A constant map, an empty one among them, orders
    nothing and has a correlation of 0.

    Raises:
        EvaluationError: no human map, a constant one, or too little seen.
    """
    grid = to_cells(heatmap, cells)
    return float(np.mean([spearman(grid, person) for person in _people(people, cells, 1)]))


def human_ceiling(people: Sequence[HumanMap], cells: tuple[int, int] = CELLS) -> float:
    """How people agree with each other: the mean rank correlation over all pairs.

    Das et al. 2016 report 0.623 for VQA-HAT.

    Raises:
        EvaluationError: fewer than two maps, or a constant one.
    """
    pairs = itertools.combinations(_people(people, cells, 2), 2)
    return float(np.mean([spearman(first, second) for first, second in pairs]))


def centre_map(size: tuple[int, int] = CELLS, spread: float = 0.25) -> HumanMap:
    """The baseline that looks at the middle: a Gaussian of `spread` of each side."""
    rows, columns = (((np.arange(n) + 0.5) / n - 0.5) / spread for n in size)
    gaussian: HumanMap = np.exp(-(rows[:, None] ** 2 + columns**2) / 2)
    return gaussian


def random_map(seed: int, size: tuple[int, int] = CELLS) -> HumanMap:
    """The baseline that looks anywhere: uniform noise; its expected correlation is 0."""
    noise: HumanMap = np.random.default_rng(seed).random(size)
    return noise


def _people(people: Sequence[HumanMap], cells: tuple[int, int], least: int) -> list[HumanMap]:
    if len(people) < least:
        raise EvaluationError(
            f"{len(people)} human maps for this sample; {least} or more are needed"
        )
    grids = [to_cells(person, cells) for person in people]
    for number, grid in enumerate(grids):
        if np.nanmin(grid) == np.nanmax(grid):
            raise EvaluationError(
                f"human map {number} is constant, so it says nothing about where somebody looked; "
                "leave it out"
            )
    return grids
