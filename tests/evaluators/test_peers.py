"""Figures that other libraries compute too: quantus, and grad-cam's own metrics."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mmcam.evaluators.faithfulness import confidences, drop, increase
from mmcam.evaluators.pointing import energy_inside, pointing_game


def maps_and_masks(count: int = 20) -> tuple[np.ndarray, np.ndarray]:
    """Positive maps, and blocks of some size somewhere."""
    rng = np.random.default_rng(0)
    maps = rng.random((count, 12, 10)).astype(np.float32)
    masks = np.zeros((count, 12, 10), bool)
    for mask in masks:
        top, left = rng.integers(0, 8), rng.integers(0, 6)
        mask[top : top + rng.integers(1, 6), left : left + rng.integers(1, 6)] = True
    return maps, masks


def test_the_energy_inside_is_the_relevance_mass_accuracy_of_quantus() -> None:
    quantus = pytest.importorskip("quantus", reason="pip install -e '.[bench]'")
    maps, masks = maps_and_masks()
    metric = quantus.RelevanceMassAccuracy(disable_warnings=True)
    theirs = metric.evaluate_batch(a_batch=maps, s_batch=masks)
    ours = [energy_inside(heatmap, mask) for heatmap, mask in zip(maps, masks, strict=True)]
    assert ours == pytest.approx(list(theirs), rel=1e-5)


def test_the_pointing_game_without_tolerance_is_that_of_quantus() -> None:
    quantus = pytest.importorskip("quantus", reason="pip install -e '.[bench]'")
    maps, masks = maps_and_masks(200)
    metric = quantus.PointingGame(disable_warnings=True)
    theirs = metric.evaluate_batch(a_batch=maps, s_batch=masks)
    ours = [pointing_game(heatmap, mask, 0) for heatmap, mask in zip(maps, masks, strict=True)]
    assert ours == [bool(hit) for hit in theirs]
    assert 0 < sum(ours) < len(ours)


class Brightness(nn.Module):
    """The confidence that a picture of 8 bits is bright on its left, and dark on its right."""

    def forward(self, pixels: Tensor) -> Tensor:
        left, right = pixels[..., :5].mean((1, 2, 3)), pixels[..., 5:].mean((1, 2, 3))
        return torch.sigmoid((left - 0.6 * right) / 100 - 0.5)[:, None]


def test_drop_and_increase_are_those_of_grad_cam() -> None:
    """Its drop is that of the confidence; the paper's is in percent of the whole one."""
    metrics = pytest.importorskip(
        "pytorch_grad_cam.metrics.cam_mult_image", reason="pip install -e '.[bench]'"
    )
    model, rng = Brightness(), np.random.default_rng(1)
    pixels = rng.integers(0, 256, (30, 12, 10, 3), dtype=np.uint8)
    heatmaps = rng.random((30, 12, 10)).astype(np.float32)
    heatmaps[::2, :, 5:] *= 0.2
    batch = torch.from_numpy(pixels).permute(0, 3, 1, 2).float()
    targets = [lambda output: output[0]] * len(pixels)
    drops = metrics.DropInConfidence()(batch, heatmaps, targets, model)
    increased = metrics.IncreaseInConfidence()(batch, heatmaps, targets, model)

    def score(arrays: np.ndarray) -> np.ndarray:
        tensor = torch.from_numpy(np.stack(list(arrays))).permute(0, 3, 1, 2).float()
        scores: np.ndarray = model(tensor)[:, 0].numpy()
        return scores

    assert 0 < increased.sum() < len(increased)
    for picture, heatmap, expected_drop, is_increased in zip(
        pixels, heatmaps, drops, increased, strict=True
    ):
        full, explained = confidences(picture, heatmap, score)
        # The explanation map is rounded to 8 bits, as it is shown; grad-cam's is not.
        assert drop(full, explained) * full / 100 == pytest.approx(expected_drop, abs=5e-3)
        assert increase(full, explained) == bool(is_increased) or abs(full - explained) < 5e-3
