"""Faithfulness: by hand on models that count pixels, and against peers where they agree."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.ndimage
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import auc
from torch import Tensor, nn

from mmcam.errors import EvaluationError
from mmcam.evaluators.faithfulness import (
    Curve,
    black,
    blurred,
    confidences,
    deletion,
    drop,
    explanation_map,
    increase,
    insertion,
    mean_colour,
    quantile_curve,
    win,
)

NAN = math.nan
probabilities = st.floats(0.001, 1)


def brightness(pixels: np.ndarray) -> np.ndarray:
    """A model whose score is the mean brightness."""
    return pixels.reshape(len(pixels), -1).mean(1) / 255


def single_pixel(*at: int) -> Callable[[np.ndarray], np.ndarray]:
    """A model whose score is one pixel."""
    return lambda pixels: pixels[(slice(None), *at, 0)] / 255


def white(*size: int) -> np.ndarray:
    return np.full((*size, 3), 255, dtype=np.uint8)


def noise(*size: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def test_drop_is_the_papers_example() -> None:
    # Footnote 1: from 0.8 to 0.4 is a drop of 50 %.
    assert drop(0.8, 0.4) == pytest.approx(50)
    assert drop(0.8, 0.9) == 0
    assert drop(0.5, 0.0) == 100


def test_increase_and_win_are_strict() -> None:
    assert increase(0.3, 0.31)
    assert not increase(0.3, 0.3)
    assert win(0.8, 0.5, 0.4)
    assert not win(0.8, 0.4, 0.5)
    assert not win(0.8, 0.5, 0.5)


@given(probabilities, probabilities, probabilities)
def test_how_the_three_hang_together(full: float, first: float, second: float) -> None:
    assert 0 <= drop(full, first) <= 100
    assert not (increase(full, first) and drop(full, first) > 0)
    assert win(full, first, second) + win(full, second, first) == (first != second)
    if drop(full, first) < drop(full, second):
        assert win(full, first, second)


@pytest.mark.parametrize("value", [-0.1, 1.1, NAN, 20.0])
def test_other_numbers_are_no_probabilities(value: float) -> None:
    for metric in (
        lambda: drop(value, 0.5),
        lambda: increase(0.5, value),
        lambda: win(1, 1, value),
    ):
        with pytest.raises(EvaluationError, match="is not a probability"):
            metric()


def test_no_confidence_has_no_drop() -> None:
    with pytest.raises(EvaluationError, match="confidence in the label is 0"):
        drop(0.0, 0.5)
    with pytest.raises(EvaluationError, match="confidence in the label is 0"):
        quantile_curve(np.zeros((2, 2, 3), np.uint8), np.ones((2, 2)), brightness)


def test_the_explanation_map_by_hand() -> None:
    pixels = np.array([[[10, 20, 30], [100, 100, 100], [7, 7, 7], [200, 100, 50]]], np.uint8)
    # Shares of the maximum 4: 1/2, 0 (negative), unseen, 1.
    heatmap = np.array([[2.0, -1.0, NAN, 4.0]])
    expected = [[[5, 10, 15], [0, 0, 0], [7, 7, 7], [200, 100, 50]]]
    assert explanation_map(pixels, heatmap).tolist() == expected


def test_a_uniform_map_shows_all_and_an_empty_one_nothing() -> None:
    pixels = noise(3, 4, 5)
    assert np.array_equal(explanation_map(pixels, np.full((3, 4, 5), 0.2)), pixels)
    assert not explanation_map(pixels, np.zeros((3, 4, 5))).any()
    assert not explanation_map(pixels, -np.ones((3, 4, 5))).any()
    assert confidences(white(4, 4), np.zeros((4, 4)), brightness) == (1, 0)


def test_confidences_by_hand() -> None:
    # Half the pixels at 1, half at 0.2 of white: 51 of 255.
    heatmap = np.array([[5.0, 1.0]])
    assert confidences(white(1, 2), heatmap, brightness) == pytest.approx((1, 0.6))


class Peer:
    """A linear model on samples of `size`, and maps for it, as torch-cam wants them and as we do.

    A division by 255 is all the preprocessing, so that masking before and after it are the same.
    """

    def __init__(self, *size: int) -> None:
        torch.manual_seed(3)
        self.model = nn.Sequential(nn.Flatten(), nn.Linear(3 * math.prod(size), 4)).double()
        rng = np.random.default_rng(1)
        self.samples = [noise(*size, seed=seed) for seed in range(8)]
        self.maps = [rng.permutation(math.prod(size)).reshape(size) + 1.0 for _ in self.samples]
        self.inputs = [torch.from_numpy(s / 255).movedim(-1, 0)[None] for s in self.samples]
        self.labels = [int(self.model(x).argmax()) for x in self.inputs]
        self.turn = iter(self.maps)
        self._hooks_off = contextlib.nullcontext

    def __call__(self, index: object, scores: object) -> list[Tensor]:
        heatmap = next(self.turn)
        return [torch.from_numpy(heatmap / heatmap.max())[None]]

    def fuse_cams(self, cams: list[Tensor]) -> Tensor:
        return cams[0]

    def theirs(self, metric: Any) -> dict[str, float]:
        for x, label in zip(self.inputs, self.labels, strict=True):
            metric.update(x, label)
        return metric.summary()

    def score(self, label: int) -> Callable[[np.ndarray], np.ndarray]:
        def scored(pixels: np.ndarray) -> np.ndarray:
            logits = self.model(torch.from_numpy(pixels / 255).movedim(-1, 1))
            return logits.softmax(1)[:, label].detach().numpy()

        return scored

    def ours(self, metric: Callable[..., Any], **options: Any) -> list[Any]:
        return [
            metric(sample, heatmap, self.score(label), **options)
            for sample, heatmap, label in zip(self.samples, self.maps, self.labels, strict=True)
        ]


@pytest.mark.parametrize("size", [(6, 8), (2, 6, 8)])
def test_average_drop_and_increase_are_torchcams(size: tuple[int, ...]) -> None:
    metrics = pytest.importorskip("torchcam.metrics")  # needs Python 3.11
    peer = Peer(*size)
    theirs = peer.theirs(metrics.ClassificationMetric(peer, lambda logits: logits.softmax(1)))
    pairs = peer.ours(confidences)
    # Ours rounds the masked sample to whole grey values.
    assert np.mean([drop(*p) for p in pairs]) / 100 == pytest.approx(theirs["avg_drop"], abs=2e-3)
    assert np.mean([increase(*p) for p in pairs]) == theirs["conf_increase"]
    assert theirs["avg_drop"] > 0


@pytest.mark.parametrize("size", [(6, 8), (2, 6, 8)])
def test_deletion_and_insertion_are_torchcams(size: tuple[int, ...]) -> None:
    metrics = pytest.importorskip("torchcam.metrics")
    peer = Peer(*size)
    metric = metrics.DeletionInsertionMetric(peer, lambda logits: logits.softmax(1), steps=12)
    theirs = peer.theirs(metric)
    for function in (deletion, insertion):
        areas = [curve.area for curve in peer.ours(function, steps=12, substitute=black)]
        assert np.mean(areas) == pytest.approx(theirs[f"{function.__name__}_auc"], abs=1e-6)


def test_the_quantile_curve_by_hand() -> None:
    # Four pixels, the model's confidence is the share of them left: 4, 3, 2, 1, 0 of 4.
    heatmap = np.array([[0.4, 0.1], [0.2, 0.3]])
    curve = quantile_curve(white(2, 2), heatmap, brightness, (0, 0.25, 0.5, 0.75, 1))
    assert curve.y.tolist() == [100, 75, 50, 25, 0]
    assert curve.x.tolist() == [0, 0.25, 0.5, 0.75, 1]
    # The scored pixel is the highest and goes last; with the inverted map, first.
    assert quantile_curve(white(2, 2), heatmap, single_pixel(0, 0), (0.75, 1)).y.tolist() == [
        100,
        0,
    ]
    assert quantile_curve(white(2, 2), 1 - heatmap, single_pixel(0, 0), (0, 0.25)).y.tolist() == [
        100,
        0,
    ]


def test_equal_pixels_stay_together() -> None:
    heatmap = np.array([[0.0, 0.0, 0.0, 1.0]])
    curve = quantile_curve(white(1, 4), heatmap, brightness, (0, 0.5, 0.75, 1))
    assert curve.y.tolist() == [100, 100, 25, 0]
    assert quantile_curve(white(1, 4), 0 * heatmap, brightness, (0, 0.9, 1)).y[:2].tolist() == [
        100,
        100,
    ]


def test_the_quantile_is_numpys() -> None:
    heatmap = np.random.default_rng(0).random((10, 10))
    for theta in (0.1, 0.37, 0.5, 0.9):
        kept = quantile_curve(white(10, 10), heatmap, brightness, (theta,)).y[0]
        gamma = np.quantile(heatmap, theta)
        assert kept == pytest.approx(100 * (heatmap >= gamma).mean())


def test_the_quantile_counts_what_was_seen() -> None:
    heatmap = np.array([[0.1, 0.2, NAN, NAN]])
    assert quantile_curve(white(1, 4), heatmap, brightness, (0.5, 1)).y.tolist() == [75, 50]
    with pytest.raises(EvaluationError, match="not fractions"):
        quantile_curve(white(1, 2), np.ones((1, 2)), brightness, (1.5,))
    with pytest.raises(EvaluationError, match="is not a probability"):
        quantile_curve(white(1, 2), np.ones((1, 2)), lambda p: -brightness(p))


def test_deletion_by_hand() -> None:
    heatmap = np.array([[0.9, 0.1], [0.3, 0.2]])
    curve = deletion(white(2, 2), heatmap, brightness, steps=4, substitute=black)
    assert curve.x.tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert curve.y.tolist() == pytest.approx([1, 0.75, 0.5, 0.25, 0])
    assert curve.area == pytest.approx(0.5)
    # The scored pixel goes at the first step: one trapezoid of 1/4 * 1/2; or at the last.
    assert (
        deletion(white(2, 2), heatmap, single_pixel(0, 0), steps=4, substitute=black).area == 1 / 8
    )
    assert (
        deletion(white(2, 2), heatmap, single_pixel(0, 1), steps=4, substitute=black).area == 7 / 8
    )


def test_insertion_by_hand() -> None:
    heatmap = np.array([[0.9, 0.1], [0.3, 0.2]])
    curve = insertion(white(2, 2), heatmap, single_pixel(0, 0), steps=4, substitute=black)
    assert curve.y.tolist() == [0, 1, 1, 1, 1]
    assert curve.area == 7 / 8
    assert (
        insertion(white(2, 2), 1 - heatmap, single_pixel(0, 0), steps=4, substitute=black).area
        == 1 / 8
    )


@pytest.mark.parametrize("size", [(5, 6), (3, 4, 5)])
@pytest.mark.parametrize("substitute", [black, mean_colour, blurred])
def test_curves_go_from_the_sample_to_its_substitute_and_back(
    size: tuple[int, ...], substitute: Callable[[np.ndarray], np.ndarray]
) -> None:
    pixels, heatmap = noise(*size), np.random.default_rng(5).normal(size=size)
    ends = brightness(np.stack([pixels, substitute(pixels)]))
    away = deletion(pixels, heatmap, brightness, steps=7, substitute=substitute)
    back = insertion(pixels, heatmap, brightness, steps=7, substitute=substitute)
    assert away.y[[0, -1]].tolist() == ends.tolist()
    assert back.y[[0, -1]].tolist() == ends[::-1].tolist()
    # What is deleted and what is inserted make the whole, at each step.
    np.testing.assert_allclose(away.y + back.y, ends.sum())


def test_pixels_go_in_falling_order_and_equal_ones_as_they_are_read() -> None:
    black_masks: list[np.ndarray] = []

    def record(pixels: np.ndarray) -> np.ndarray:
        black_masks.extend(pixels[..., 0] == 0)
        return brightness(pixels)

    heatmap = np.array([[0.5, 0.5, 0.9], [-1.0, NAN, 0.0]])
    deletion(white(2, 3), heatmap, record, steps=5, substitute=black, chunk=2)
    deleted = [
        np.flatnonzero(after & ~before).tolist()
        for before, after in itertools.pairwise(black_masks)
    ]
    assert deleted == [[2], [0], [1], [5], [3]]
    black_masks.clear()
    deletion(white(6, 9), np.round(noise(6, 9)[..., 0] / 255.0), record, steps=54, substitute=black)
    deleted = [int((after & ~before).argmax()) for before, after in itertools.pairwise(black_masks)]
    bright_count = int(np.round(noise(6, 9)[..., 0] / 255.0).sum())
    assert deleted == sorted(deleted[:bright_count]) + sorted(deleted[bright_count:])


@given(st.integers(1, 40), st.integers(1, 20))
def test_how_many_are_scored_at_once_does_not_matter(steps: int, chunk: int) -> None:
    pixels, heatmap = noise(4, 5), np.random.default_rng(2).random((4, 5))
    whole = deletion(pixels, heatmap, brightness, steps=steps, chunk=100)
    parts = deletion(pixels, heatmap, brightness, steps=steps, chunk=chunk)
    assert len(whole.x) == steps + 1
    assert whole.y.tolist() == parts.y.tolist()


@given(st.integers(0, 2**32 - 1), st.floats(0.1, 10))
def test_only_the_order_of_a_map_matters(seed: int, power: float) -> None:
    heatmap = np.random.default_rng(seed).random((4, 5)) + 0.1
    pixels = noise(4, 5, seed=1)
    first = insertion(pixels, heatmap, brightness, steps=6)
    second = insertion(pixels, heatmap**power, brightness, steps=6)
    assert first.y.tolist() == second.y.tolist()


def test_the_area_is_sklearns() -> None:
    rng = np.random.default_rng(0)
    curve = Curve(np.sort(rng.random(9)), rng.random(9))
    assert curve.area == pytest.approx(auc(curve.x, curve.y))


def test_unseen_pixels_stay() -> None:
    heatmap = np.array([[0.5, NAN], [0.2, NAN]])
    away = deletion(white(2, 2), heatmap, brightness, steps=2, substitute=black)
    back = insertion(white(2, 2), heatmap, brightness, steps=2, substitute=black)
    assert away.y.tolist() == pytest.approx([1, 0.75, 0.5])
    assert back.y.tolist() == pytest.approx([0.5, 0.75, 1])


def test_blurring_is_scipys() -> None:
    pixels = noise(2, 13, 17)
    kernel = np.exp(-(np.arange(-5, 6) ** 2) / 50)
    expected = pixels.astype(float)
    for axis in (1, 2):
        expected = scipy.ndimage.correlate1d(expected, kernel / kernel.sum(), axis)
    np.testing.assert_allclose(blurred(pixels), expected, atol=0.51)
    assert np.array_equal(blurred(white(3, 3)), white(3, 3))


def test_the_mean_colour() -> None:
    pixels = np.array([[[0, 10, 255], [100, 20, 255]]], np.uint8)
    assert mean_colour(pixels).tolist() == [[[50, 15, 255]] * 2]


def test_the_sample_is_left_as_it_is() -> None:
    pixels, heatmap = noise(4, 4), np.random.default_rng(0).random((4, 4))
    copies = pixels.copy(), heatmap.copy()
    confidences(pixels, heatmap, brightness)
    deletion(pixels, heatmap, brightness, steps=3)
    quantile_curve(white(4, 4), heatmap, brightness)
    assert np.array_equal(pixels, copies[0])
    assert np.array_equal(heatmap, copies[1])


def test_bad_requests_are_errors() -> None:
    pixels, heatmap = noise(4, 4), np.ones((4, 4))
    with pytest.raises(EvaluationError, match="does not match"):
        explanation_map(pixels, np.ones((3, 4)))
    with pytest.raises(EvaluationError, match="NaN everywhere"):
        deletion(pixels, NAN * heatmap, brightness)
    with pytest.raises(EvaluationError, match="steps=0"):
        deletion(pixels, heatmap, brightness, steps=0)
    with pytest.raises(EvaluationError, match="one finite number"):
        insertion(pixels, heatmap, lambda p: brightness(p) * NAN)
    with pytest.raises(EvaluationError, match="one finite number"):
        insertion(pixels, heatmap, lambda p: brightness(p)[:1])
    with pytest.raises(EvaluationError, match="must be like the sample"):
        insertion(pixels, heatmap, brightness, substitute=lambda p: p[:2])
