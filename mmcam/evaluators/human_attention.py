"""Does a model look where people look? (ICCV section 7.2, by the protocol of Das et al. 2016.)

Both maps are brought to 14 x 14 cells and compared by Spearman's rank correlation. VQA-HAT holds
one map a question, or three in its validation part; the agreement of people with each other is the
ceiling.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float
from PIL import Image

from mmcam.errors import EvaluationError, InputError
from mmcam.evaluators.maps import Map, spearman, to_cells

CELLS = (14, 14)
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".npy")

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


def find_human_maps(folder: str | Path) -> dict[str, list[Path]]:
    """The map files of a folder by sample: `ID.png`, or `ID_1.png`, `ID_2.png` of several people.

    So VQA-HAT names its files, where ID is the question's number. The number of a person has one
    or two digits, so that the long numbers of COCO's pictures stay part of the name.

    Raises:
        InputError: the folder cannot be read or holds no map.
    """
    folder = Path(folder)
    try:
        paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    except OSError as error:
        raise InputError(f"{folder} cannot be read ({error}); name a folder of maps") from error
    if not paths:
        raise InputError(
            f"{folder} holds no map; it needs files named by sample, {', '.join(SUFFIXES)}"
        )
    found: dict[str, list[tuple[int, Path]]] = {}
    for path in paths:
        several = re.fullmatch(r"(.+)_(\d{1,2})", path.stem)
        name, number = (several[1], int(several[2])) if several else (path.stem, 0)
        found.setdefault(name, []).append((number, path))
    return {name: [path for _, path in sorted(rows)] for name, rows in found.items()}


def read_human_map(path: str | Path) -> HumanMap:
    """One map: the brightness of a picture, or the two-dimensional array of an `.npy` file.

    Raises:
        InputError: the file cannot be read, or is no single plane.
    """
    try:
        if Path(path).suffix.lower() == ".npy":
            values = np.load(path, allow_pickle=False)
        else:
            with Image.open(path) as picture:
                deep = picture.mode in ("I", "I;16", "I;16B", "F")
                values = np.asarray(picture if deep else picture.convert("L"))
        plane: HumanMap = values.astype(np.float64)
    except (OSError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise InputError(f"{path} cannot be read as a map: {error}") from error
    if plane.ndim != 2 or not plane.size:
        raise InputError(f"{path} holds an array of shape {plane.shape}; a map is [h w]")
    return plane
