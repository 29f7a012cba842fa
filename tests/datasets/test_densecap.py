"""DenseCap's results files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mmcam.datasets.densecap import read_densecap
from mmcam.errors import InputError


@pytest.fixture
def results(tmp_path: Path) -> Any:
    def write(**changes: Any) -> Path:
        row = {
            "img_name": "a.jpg",
            "captions": ["a dog", "a cat", "the sky"],
            "boxes": [[10, 20, 30, 40], [0, 0, 720, 100], [-5, 1, 20, 30]],
            "scores": [1.0, 3.0, 2.0],
        }
        path = tmp_path / "results.json"
        content = {"opt": {"image_size": 720}, "results": [row | changes]}
        path.write_text(json.dumps(content))
        return path

    return write


def test_the_best_descriptions_come_first(results: Any) -> None:
    (descriptions,) = read_densecap(results(), count=2).values()
    assert [d.caption for d in descriptions] == ["a cat", "the sky"]
    assert len(read_densecap(results(), count=None)["a.jpg"]) == 3
    unscored = read_densecap(results(scores=None))["a.jpg"]
    assert [d.caption for d in unscored] == ["a dog", "a cat", "the sky"]


def test_boxes_come_back_to_the_original(results: Any) -> None:
    # A picture 480 wide and 360 high was resized to 720 x 540: a factor of 1.5.
    cat, sky, dog = read_densecap(results())["a.jpg"]
    assert dog.box == (10, 20, 40, 60)
    assert dog.box_on((360, 480)) == pytest.approx((10 / 1.5, 20 / 1.5, 40 / 1.5, 60 / 1.5))
    assert cat.box_on((360, 480)) == pytest.approx((0, 0, 480, 100 / 1.5))
    assert sky.box_on((360, 480)) == pytest.approx((0, 1 / 1.5, 10, 31 / 1.5))
    (other,) = read_densecap(results(), count=1, image_size=1440)["a.jpg"]
    assert other.box_on((360, 480)) == pytest.approx((0, 0, 240, 100 / 3))


@pytest.mark.parametrize(
    "changes", [{"captions": ["one"]}, {"boxes": [[1, 2, 3]] * 3}, {"boxes": None}]
)
def test_other_files_are_errors(results: Any, changes: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a DenseCap results file"):
        read_densecap(results(**changes))
    for content in ("[]", "{}", "{"):
        (tmp_path / "b.json").write_text(content)
        with pytest.raises(InputError, match="not a DenseCap results file"):
            read_densecap(tmp_path / "b.json")
    with pytest.raises(InputError, match=r"absent\.json"):
        read_densecap(tmp_path / "absent.json")
