"""COCO's files: by hand, and on real photos against pycocotools' own reader."""

from __future__ import annotations

import contextlib
import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as tools
from pycocotools.coco import COCO

from mmcam.datasets.coco import read_captions, read_instances
from mmcam.datasets.segments import decode_segment
from mmcam.errors import InputError, MissingExtra
from mmcam.evaluators.coco_words import WordTable
from mmcam.evaluators.pointing import chance, energy_inside, word_pointing

SQUARE = [[1, 1, 4, 1, 4, 3, 1, 3]]


def annotation(**changes: Any) -> dict[str, Any]:
    row = {"image_id": 7, "category_id": 18, "bbox": [1, 1, 3, 2], "iscrowd": 0}
    return row | {"segmentation": SQUARE} | changes


@pytest.fixture
def written(tmp_path: Path) -> Any:
    """`written(annotations)`: an instances file of a dog's picture, 6 wide and 4 high."""

    def write(annotations: list[dict[str, Any]]) -> Path:
        path = tmp_path / "instances.json"
        content = {
            "images": [{"id": 7, "file_name": "7.jpg", "width": 6, "height": 4}],
            "categories": [{"id": 18, "name": "dog"}, {"id": 1, "name": "person"}],
            "annotations": annotations,
        }
        path.write_text(json.dumps(content))
        return path

    return write


def rectangle(top: int, left: int, bottom: int, right: int) -> np.ndarray:
    mask = np.zeros((4, 6), dtype=bool)
    mask[top:bottom, left:right] = True
    return mask


def test_a_polygon_covers_its_pixels() -> None:
    assert np.array_equal(decode_segment(SQUARE, 4, 6), rectangle(1, 1, 3, 4))


def test_runs_go_down_the_columns() -> None:
    # Three columns of two: 0 | 1 1, 0 0, 1 0 read from the first column down.
    mask = decode_segment({"counts": [1, 2, 1, 2], "size": [2, 3]}, 2, 3)
    assert mask.astype(int).tolist() == [[0, 1, 1], [1, 0, 1]]


def test_plain_and_compressed_runs_agree_with_pycocotools() -> None:
    mask = np.random.default_rng(0).random((7, 5)) > 0.5
    compressed = tools.encode(np.asfortranarray(mask.astype(np.uint8)))
    flat = mask.T.ravel().astype(int)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flat]))).tolist()
    counts = np.diff([0, *edges, flat.size]).tolist()
    assert np.array_equal(decode_segment(compressed, 7, 5), mask)
    text = {"counts": compressed["counts"].decode(), "size": [7, 5]}
    assert np.array_equal(decode_segment(text, 7, 5), mask)
    assert np.array_equal(decode_segment({"counts": counts, "size": [7, 5]}, 7, 5), mask)


@pytest.mark.parametrize(
    "broken",
    [
        [],
        [[1, 1, 2, 2]],
        [[1, 1, 2, 2, 3, 3, 4]],
        [["a"] * 6],
        {"counts": [3], "size": [2, 3]},
        {"counts": [-1, 7], "size": [2, 3]},
        {"size": [2, 3]},
        None,
        5,
    ],
)
def test_a_broken_segment_is_an_error(broken: Any) -> None:
    with pytest.raises(InputError, match="not in COCO's format"):
        decode_segment(broken, 2, 3)


def test_a_segment_of_another_size_is_an_error() -> None:
    with pytest.raises(InputError, match="3x2 pixels does not fit a picture of 6x4"):
        decode_segment({"counts": [6], "size": [2, 3]}, 4, 6)


def test_the_mask_of_a_category_is_the_union_of_its_instances(written: Any) -> None:
    crowd = {"counts": [20, 4], "size": [4, 6]}
    path = written(
        [
            annotation(),
            annotation(segmentation=[[0, 0, 2, 0, 2, 2, 0, 2]], bbox=[0, 0, 2, 2]),
            annotation(segmentation=crowd, iscrowd=1, bbox=[5, 0, 1, 4]),
            annotation(category_id=1, segmentation=crowd, iscrowd=1),
        ]
    )
    photo = read_instances(path)[7]
    dogs = rectangle(1, 1, 3, 4) | rectangle(0, 0, 2, 2)
    assert photo.categories == ("dog", "person")
    assert np.array_equal(photo.mask("dog", crowds=False), dogs)
    assert np.array_equal(photo.mask("dog"), dogs | rectangle(0, 5, 4, 6))
    assert np.array_equal(photo.masks()["person"], rectangle(0, 5, 4, 6))
    assert not photo.masks(crowds=False)["person"].any()
    assert photo.boxes("dog") == [(1, 1, 4, 3), (0, 0, 2, 2)]
    assert photo.boxes("person") == []
    with pytest.raises(InputError, match="no instance of 'dgo'; nearest: dog"):
        photo.mask("dgo")


def test_a_picture_without_objects_is_read_too(written: Any) -> None:
    photo = read_instances(written([]))[7]
    assert photo.instances == ()
    assert photo.masks() == {}


def test_without_pycocotools_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    with pytest.raises(MissingExtra, match=r"pip install 'mmcam\[evaluate\]'"):
        decode_segment(SQUARE, 4, 6)
    assert decode_segment({"counts": [6], "size": [2, 3]}, 2, 3).sum() == 0


@pytest.mark.parametrize("read", [read_instances, read_captions])
def test_other_files_are_errors(read: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    with pytest.raises(InputError, match="cannot be read"):
        read(path)
    path.write_text("{")
    with pytest.raises(InputError, match="cannot be read"):
        read(path)
    for content in ("[]", "{}", '{"images": [{}], "annotations": [], "categories": []}'):
        path.write_text(content)
        with pytest.raises(InputError, match=r"is not a COCO .* file"):
            read(path)


def test_an_annotation_of_no_picture_is_an_error(written: Any) -> None:
    with pytest.raises(InputError, match="KeyError: 8"):
        read_instances(written([annotation(image_id=8)]))


@pytest.mark.assets
def test_masks_of_real_photos_are_pycocotools(assets: Path) -> None:
    path = assets / "image/coco/annotations/instances_train2017.json"
    photos = read_instances(path)
    with contextlib.redirect_stdout(io.StringIO()):
        theirs = COCO(path)
    assert sorted(photos) == sorted(theirs.imgs)
    crowds = 0
    for number, photo in photos.items():
        expected: dict[str, np.ndarray] = {}
        for row in theirs.loadAnns(theirs.getAnnIds(number)):
            name = theirs.cats[row["category_id"]]["name"]
            crowds += row["iscrowd"]
            mask = theirs.annToMask(row).astype(bool)
            expected[name] = expected.get(name, False) | mask
        masks = photo.masks()
        assert list(masks) == list(expected)
        for name, mask in masks.items():
            assert np.array_equal(mask, expected[name])
    assert crowds == 8


@pytest.mark.assets
def test_words_of_real_captions_name_what_the_photos_hold(assets: Path) -> None:
    folder = assets / "image/coco/annotations"
    photos = read_instances(folder / "instances_train2017.json")
    captions = read_captions(folder / "captions_train2017.json")
    table = WordTable.load(lemmatize=lambda word: word)
    assert sorted(captions) == sorted(photos)
    present = words = 0
    for number, texts in captions.items():
        for text in texts:
            for word in table.find(text.split()):
                words += 1
                present += word.category in photos[number].categories
    # What the caption names, the annotators have mostly outlined.
    assert words > 550
    assert present / words > 0.9


@pytest.mark.assets
def test_a_map_of_the_segmentation_points_at_the_word(assets: Path) -> None:
    path = assets / "image/coco/annotations/instances_train2017.json"
    for photo in list(read_instances(path).values())[:4]:
        masks = photo.masks()
        for name, mask in masks.items():
            assert word_pointing(mask.astype(np.float32), masks, name)
            assert energy_inside(mask.astype(np.float32), mask) == 1
            assert energy_inside(np.ones(mask.shape), mask) == pytest.approx(
                chance(np.ones(mask.shape), mask)
            )
