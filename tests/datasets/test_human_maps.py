"""Files of human maps: found by sample, read from pictures and arrays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmcam.datasets.human_maps import find_human_maps, read_human_map
from mmcam.errors import InputError


def save(folder: Path, *names: str) -> None:
    for name in names:
        Image.fromarray(np.array([[0, 255]], np.uint8)).save(folder / name)


def test_maps_are_found_by_sample(tmp_path: Path) -> None:
    save(tmp_path, "1002_2.png", "1002_1.png", "1002_10.png", "7.png")
    save(tmp_path, "COCO_val2014_000000000042.png")
    (tmp_path / "readme.txt").write_text("maps")
    maps = find_human_maps(tmp_path)
    assert sorted(maps) == ["1002", "7", "COCO_val2014_000000000042"]
    assert [path.name for path in maps["1002"]] == ["1002_1.png", "1002_2.png", "1002_10.png"]


def test_folders_without_maps_are_errors(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no maps"):
        find_human_maps(tmp_path)
    with pytest.raises(InputError, match="name a folder"):
        find_human_maps(tmp_path / "absent")


def test_maps_are_read_from_pictures_and_arrays(tmp_path: Path) -> None:
    values = np.array([[0, 51, 255], [1, 2, 3]], np.uint8)
    Image.fromarray(values).save(tmp_path / "grey.png")
    Image.fromarray(np.stack([values] * 3, 2)).save(tmp_path / "colour.png")
    Image.fromarray(values.astype(np.uint16) * 257).save(tmp_path / "deep.png")
    np.save(tmp_path / "array.npy", values.astype(np.float32))
    for name in ("grey.png", "colour.png", "array.npy"):
        assert np.array_equal(read_human_map(tmp_path / name), values)
    assert np.array_equal(read_human_map(tmp_path / "deep.png"), values * 257.0)


def test_other_files_are_errors(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("no picture")
    np.save(tmp_path / "b.npy", np.zeros((2, 2, 2)))
    np.save(tmp_path / "c.npy", np.array([{}], dtype=object))
    for name, words in (("a.png", "cannot be read"), ("b.npy", "shape"), ("c.npy", "cannot")):
        with pytest.raises(InputError, match=words):
            read_human_map(tmp_path / name)
