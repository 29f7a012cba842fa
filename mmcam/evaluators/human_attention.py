"""Rank correlation with human attention (Grad-CAM, ICCV 2017, section 7.2; Das et al. 2016).

Both maps are averaged over 14 x 14 cells and compared by Spearman's rank correlation. VQA-HAT has
one map per question, or three in its validation split; the agreement between people is the upper
bound.
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
    heatmap: Map, human_maps: Sequence[HumanMap], cells: tuple[int, int] = CELLS
) -> float:
    """The mean rank correlation of a map with the human maps, in [-1, 1].

    Maps are averaged over the cells, so their sizes may differ: each covers the whole picture.
    Cells outside the model's input are left out. The correlation is 0 if the heatmap is constant,
    such as zero everywhere, or if a human map is constant over the visible cells.

    Raises:
        EvaluationError: no human map, one that is constant over all cells, a map that is not
            `[h w]`, is empty or has infinite values, or fewer than two visible cells.
    """
    grid = to_cells(heatmap, cells)
    return float(
        np.mean([spearman(grid, human_map) for human_map in _to_grids(human_maps, cells, 1)])
    )


def human_ceiling(human_maps: Sequence[HumanMap], cells: tuple[int, int] = CELLS) -> float:
    """The agreement between people: the mean rank correlation over all pairs of human maps.

    Das et al. 2016 report 0.623 for VQA-HAT.

    Raises:
        EvaluationError: fewer than two maps, a constant one, one that is not `[h w]`, is empty or
            has infinite values, or fewer than two cells visible in both maps of a pair.
    """
    pairs = itertools.combinations(_to_grids(human_maps, cells, 2), 2)
    return float(np.mean([spearman(first, second) for first, second in pairs]))


def centre_map(size: tuple[int, int] = CELLS, spread: float = 0.25) -> HumanMap:
    """The centre baseline: a Gaussian with a standard deviation of `spread` times each side."""
    rows, columns = (((np.arange(n) + 0.5) / n - 0.5) / spread for n in size)
    gaussian: HumanMap = np.exp(-(rows[:, None] ** 2 + columns**2) / 2)
    return gaussian


def random_map(seed: int, size: tuple[int, int] = CELLS) -> HumanMap:
    """The random baseline: uniform noise, whose expected correlation is 0."""
    noise: HumanMap = np.random.default_rng(seed).random(size)
    return noise


def _to_grids(
    human_maps: Sequence[HumanMap], cells: tuple[int, int], minimum: int
) -> list[HumanMap]:
    if len(human_maps) < minimum:
        raise EvaluationError(
            f"{len(human_maps)} human maps for this sample; {minimum} or more are needed"
        )
    grids = [to_cells(human_map, cells) for human_map in human_maps]
    for index, grid in enumerate(grids):
        if np.nanmin(grid) == np.nanmax(grid):
            raise EvaluationError(
                f"human map {index} is constant, so it does not rank the cells; leave it out"
            )
    return grids
