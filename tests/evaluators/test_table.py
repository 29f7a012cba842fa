"""The table of evaluators, and what all of them have in common."""

from __future__ import annotations

import inspect
import math
import pkgutil
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from torch import Tensor, nn

import mmcam
import mmcam.evaluators
from mmcam.adapters.base.preprocess import Preprocess
from mmcam.errors import EvaluationError
from mmcam.evaluators import EVALUATORS

MAP = np.random.default_rng(0).random((24, 30)).astype(np.float32)
REGION = MAP > 0.7
BOX = (3.0, 4.0, 20.0, 20.0)
PIXELS = np.random.default_rng(1).integers(0, 256, (24, 30, 3), dtype=np.uint8)


def brightness(pixels: np.ndarray) -> np.ndarray:
    return pixels.reshape(len(pixels), -1).mean(1) / 255


CALLS: dict[str, Callable[[Callable[..., Any], np.ndarray], Any]] = {
    "pointing": lambda f, m: f(m, REGION),
    "pointing-or-rejecting": lambda f, m: f(m, REGION, 0.1),
    "word-pointing": lambda f, m: f(m, {"dog": REGION}, "dog"),
    "energy-inside": lambda f, m: f(m, REGION),
    "densecap-ratio": lambda f, m: f(m, REGION),
    "human-attention": lambda f, m: f(m, [MAP]),
    "occlusion-correlation": lambda f, m: f(m, MAP),
    "localization-error": lambda f, m: f([("dog", m)], "dog", [BOX]),
    "loc": lambda f, m: f(m, [BOX]),
    "segmentation-iou": lambda f, m: f(m, REGION),
    "quantile-curve": lambda f, m: f(PIXELS, m, brightness).y.mean(),
    "deletion": lambda f, m: f(PIXELS, m, brightness, steps=3).area,
    "insertion": lambda f, m: f(PIXELS, m, brightness, steps=3).area,
    "label-randomization": lambda f, m: f(lambda label: m, 0, 2),
}
"""How each evaluator that takes a map is called on one."""


@pytest.mark.parametrize("name", EVALUATORS)
def test_rows_say_what_they_need_and_give(name: str) -> None:
    row = EVALUATORS[name]
    needs = {"mask", "boxes", "human map", "map", "probabilities", "rescore", "explain"}
    assert row.needs in needs
    assert row.gives in {"number", "truth", "curve", "layers"}
    assert row.source
    assert row.summary
    returns = {"number": "float", "truth": "bool", "curve": "Curve"}.get(row.gives)
    assert returns is None or inspect.signature(row.function).return_annotation == returns
    # Without a call here an evaluator would miss the tests below.
    assert (name in CALLS) is (row.needs != "probabilities" and row.gives != "layers")


def test_every_file_with_a_protocol_has_a_row() -> None:
    files = {module.name for module in pkgutil.iter_modules(mmcam.evaluators.__path__)}
    helpers = {"coco_words", "intervals", "maps"}
    assert {row.function.__module__.rpartition(".")[2] for row in EVALUATORS.values()} == (
        files - helpers
    )


@pytest.mark.parametrize("name", CALLS)
def test_a_map_gives_a_finite_number_and_is_left_as_it_is(name: str) -> None:
    heatmap = MAP.copy()
    value = CALLS[name](EVALUATORS[name].function, heatmap)
    assert math.isfinite(value)
    assert np.array_equal(heatmap, MAP)


@pytest.mark.parametrize("name", CALLS)
def test_what_was_not_seen_changes_no_number_into_nan(name: str) -> None:
    heatmap = MAP.copy()
    heatmap[:, 25:] = np.nan
    assert math.isfinite(CALLS[name](EVALUATORS[name].function, heatmap))


@pytest.mark.parametrize("name", CALLS)
def test_a_map_of_nothing_seen_is_an_error(name: str) -> None:
    with pytest.raises(EvaluationError):
        CALLS[name](EVALUATORS[name].function, np.full_like(MAP, np.nan))


@pytest.mark.parametrize("name", CALLS)
def test_an_empty_map_gives_a_number_or_one_clear_error(name: str) -> None:
    if name == "densecap-ratio":
        with pytest.raises(EvaluationError, match="map is empty"):
            CALLS[name](EVALUATORS[name].function, np.zeros_like(MAP))
    else:
        assert math.isfinite(CALLS[name](EVALUATORS[name].function, np.zeros_like(MAP)))


@pytest.mark.parametrize("name", [name for name in CALLS if EVALUATORS[name].needs == "mask"])
def test_a_region_of_nothing_is_an_error(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "REGION", np.zeros_like(REGION))
    with pytest.raises(EvaluationError, match="leave this sample out"):
        CALLS[name](EVALUATORS[name].function, MAP)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Conv2d(3, 4, 5, stride=4), nn.ReLU())
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.trunk(x).mean((2, 3)))


def test_an_explanations_heatmap_goes_in() -> None:
    net = Net()
    adapter = mmcam.wrap(net, Preprocess(mean=(0, 0, 0), std=(1, 1, 1), resize=24, crop=24))

    def explain() -> np.ndarray:
        (explanation,) = mmcam.explain(adapter, PIXELS, mmcam.Classes([1]), layers=["trunk"])
        return explanation.heatmap()

    heatmap = explain()
    # A crop of 24 of 30 columns: three on each side were not seen.
    assert np.isnan(heatmap[:, :3]).all()
    assert np.isnan(heatmap).sum() == 24 * 6
    for name in ("pointing", "energy-inside", "segmentation-iou", "deletion"):
        assert math.isfinite(CALLS[name](EVALUATORS[name].function, heatmap))
    maps = EVALUATORS["model-randomization"].function(net, explain)
    assert list(maps) == [None, "head", "trunk.0"]
    assert np.array_equal(maps[None], explain(), equal_nan=True)
    assert not np.array_equal(maps["trunk.0"], heatmap, equal_nan=True)


def test_importing_evaluators_loads_no_optional_package() -> None:
    code = (
        "import sys, mmcam.evaluators, mmcam.datasets.coco, mmcam.evaluators.coco_words;"
        "print({'torchmetrics', 'pycocotools', 'skimage', 'scipy', 'nltk'} & set(sys.modules))"
    )
    process = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert process.stdout.strip() == "set()"
