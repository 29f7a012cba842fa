"""Find and read files of human attention maps, as in VQA-HAT."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from PIL import Image

from mmcam.errors import InputError
from mmcam.evaluators.human_attention import HumanMap

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".npy")


def find_human_maps(folder: str | Path) -> dict[str, list[Path]]:
    """The map files of a folder by sample: `ID.png`, or `ID_1.png`, `ID_2.png` from several people.

    In VQA-HAT's file names, ID is the question id. A person's number has one or two digits, so that
    the long numbers of COCO's pictures remain part of the id.

    Raises:
        InputError: the folder cannot be read or contains no map.
    """
    folder = Path(folder)
    try:
        paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    except OSError as error:
        raise InputError(f"{folder} cannot be read ({error}); name a folder of maps") from error
    if not paths:
        raise InputError(
            f"{folder} has no maps; it needs files named by sample, with one of the suffixes "
            f"{', '.join(SUFFIXES)}"
        )
    maps: dict[str, list[tuple[int, Path]]] = {}
    for path in paths:
        match = re.fullmatch(r"(.+)_(\d{1,2})", path.stem)
        name, number = (match[1], int(match[2])) if match else (path.stem, 0)
        maps.setdefault(name, []).append((number, path))
    return {
        name: [path for _, path in sorted(numbered_paths)] for name, numbered_paths in maps.items()
    }


def read_human_map(path: str | Path) -> HumanMap:
    """One map: the brightness of a picture, or the two-dimensional array of an `.npy` file.

    Raises:
        InputError: the file cannot be read, or its array is empty or not two-dimensional.
    """
    try:
        if Path(path).suffix.lower() == ".npy":
            values = np.load(path, allow_pickle=False)
        else:
            with Image.open(path) as image:
                keeps_depth = image.mode in ("I", "I;16", "I;16B", "F")
                values = np.asarray(image if keeps_depth else image.convert("L"))
        plane: HumanMap = values.astype(np.float64)
    except (OSError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise InputError(f"{path} cannot be read as a map: {error}") from error
    if plane.ndim != 2 or not plane.size:
        raise InputError(f"{path} has an array of shape {plane.shape}; a map is [h w]")
    return plane
