"""Rank correlation with people's maps, and reading them."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mmcam.errors import EvaluationError, InputError
from mmcam.evaluators.human_attention import (
    centre_map,
    find_human_maps,
    human_ceiling,
    human_correlation,
    random_map,
    read_human_map,
)

NAN = math.nan
CELLS = (1, 4)


def test_the_correlation_by_hand() -> None:
    # Ranks 1 2 3 4 against 2 1 3 4: rho = 1 - 6 * (1 + 1) / (4 * 15) = 0.8; against 4 3 2 1: -1.
    heatmap = np.array([[1.0, 2.0, 3.0, 4.0]])
    near, far = np.array([[5.0, 0.0, 6.0, 9.0]]), np.array([[8.0, 7.0, 1.0, 0.0]])
    assert human_correlation(heatmap, [near], CELLS) == pytest.approx(0.8)
    assert human_correlation(heatmap, [near, far], CELLS) == pytest.approx((0.8 - 1) / 2)
    assert human_correlation(-heatmap, [near], CELLS) == pytest.approx(-0.8)


def test_both_maps_come_to_fourteen_by_fourteen() -> None:
    draw = np.random.default_rng(0)
    heatmap, person = draw.normal(size=(28, 42)), draw.random((14, 28))
    cells = heatmap.reshape(14, 2, 14, 3).mean((1, 3)), person.reshape(14, 14, 2).mean(2)
    expected = scipy.stats.spearmanr(cells[0].ravel(), cells[1].ravel()).statistic
    assert human_correlation(heatmap, [person]) == pytest.approx(expected)


@given(st.integers(0, 2**32 - 1))
def test_scale_and_offset_of_either_map_do_not_matter(seed: int) -> None:
    draw = np.random.default_rng(seed)
    heatmap, person = draw.normal(size=(15, 20)), draw.random((30, 40))
    rho = human_correlation(heatmap, [person])
    assert human_correlation(7 * heatmap - 2, [person / 3]) == pytest.approx(rho)


def test_unseen_cells_are_left_out() -> None:
    heatmap = np.array([[1.0, 2.0, 3.0, NAN]])
    assert human_correlation(heatmap, [np.array([[1.0, 2.0, 3.0, -9.0]])], CELLS) == pytest.approx(
        1
    )


def test_a_constant_map_has_no_correlation() -> None:
    person = np.array([[1.0, 2.0, 3.0, 4.0]])
    for value in (0.0, 0.1, -0.7):
        assert human_correlation(np.full((7, 9), value), [person], CELLS) == 0
    with pytest.raises(EvaluationError, match="human map 1 is constant"):
        human_correlation(person, [person, 0 * person], CELLS)


def test_the_ceiling_is_the_mean_over_pairs() -> None:
    first, second = np.array([[1.0, 2.0, 3.0, 4.0]]), np.array([[2.0, 1.0, 3.0, 4.0]])
    assert human_ceiling([first, second], CELLS) == pytest.approx(0.8)
    assert human_ceiling([first, second, first], CELLS) == pytest.approx((0.8 + 0.8 + 1) / 3)
    with pytest.raises(EvaluationError, match="1 human maps"):
        human_ceiling([first], CELLS)
    with pytest.raises(EvaluationError, match="0 human maps"):
        human_correlation(first, [], CELLS)


def test_a_clip_is_no_human_map() -> None:
    with pytest.raises(EvaluationError, match="axes"):
        human_correlation(np.zeros((2, 4, 4)), [np.ones((4, 4))])


def test_the_baselines() -> None:
    centre = centre_map((5, 7))
    assert centre.argmax() == 2 * 7 + 3
    np.testing.assert_allclose(centre, centre[::-1, ::-1])
    # Half a side off the middle is two spreads: a factor of exp(-2).
    assert centre_map((1, 1001))[0, 0] == pytest.approx(math.exp(-2), rel=0.01)
    people = [centre_map((14, 14))]
    chance = [human_correlation(random_map(seed), people) for seed in range(200)]
    # The standard deviation of one is 1 / sqrt(195) = 0.072, that of the mean of 200, 0.005.
    assert abs(np.mean(chance)) < 0.02
    assert np.std(chance) == pytest.approx(1 / math.sqrt(195), rel=0.2)
    assert np.array_equal(random_map(3), random_map(3))


def save(folder: Path, *names: str) -> None:
    for name in names:
        Image.fromarray(np.array([[0, 255]], np.uint8)).save(folder / name)


def test_maps_are_found_by_sample(tmp_path: Path) -> None:
    save(tmp_path, "1002_2.png", "1002_1.png", "1002_10.png", "7.png")
    save(tmp_path, "COCO_val2014_000000000042.png")
    (tmp_path / "readme.txt").write_text("maps")
    found = find_human_maps(tmp_path)
    assert sorted(found) == ["1002", "7", "COCO_val2014_000000000042"]
    assert [path.name for path in found["1002"]] == ["1002_1.png", "1002_2.png", "1002_10.png"]


def test_folders_without_maps_are_errors(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no map"):
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
