"""Peculiarities of pytorchvideo: two pathways, lists changed in place, softmax in heads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import mmcam
from mmcam.adapters.base.classifier import Classifier
from mmcam.adapters.base.recipe import Recipe
from mmcam.adapters.pytorchvideo import MODELS, kinetics_names, split_pathways
from mmcam.errors import ModelError
from mmcam.models.registry import build
from mmcam.types import Inputs

SLOW, FAST = (f"blocks.4.multipathway_blocks.{number}" for number in (0, 1))


@pytest.fixture(scope="module")
def slowfast() -> Classifier:
    """SlowFast on its own 32 frames, with few channels and small pictures."""
    torch.manual_seed(0)
    args = {
        "stem_dim_outs": (8, 2),
        "slowfast_channel_reduction_ratio": (4,),
        "head_pool_kernel_sizes": ((8, 2, 3), (32, 2, 3)),
        "model_num_class": 5,
    }
    preprocess = {"resize": (64, 96), "frames": 32, "stride": 2}
    recipe = Recipe(
        family="pytorchvideo",
        name="slowfast_r50",
        args=args,
        pretrained=False,
        preprocess=preprocess,
    )
    adapter = build(recipe)
    assert isinstance(adapter, Classifier)
    return adapter


@pytest.fixture(scope="module")
def clip() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (64, 48, 72, 3), dtype=np.uint8)


def test_both_pathways_are_explained_from_one_forward(
    slowfast: Classifier, clip: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    mmcam.explain(slowfast, clip, mmcam.Actions([3]))  # proves where the layers' cells lie, once
    calls = []
    forward = slowfast.forward

    def counting_forward(inputs: Inputs) -> object:
        calls.append(len(inputs.pixels))
        return forward(inputs)

    monkeypatch.setattr(slowfast, "forward", counting_forward)
    maps = list(mmcam.explain(slowfast, clip, mmcam.Actions([3]), method="gradcam-signed"))
    assert calls == [1]
    assert {explanation.layer: tuple(explanation.cam.shape) for explanation in maps} == {
        SLOW: (8, 2, 3),
        FAST: (32, 2, 3),
    }
    assert all(explanation.cam.any() for explanation in maps)
    assert len({explanation.score for explanation in maps}) == 1


def test_explaining_twice_gives_the_same_maps(slowfast: Classifier, clip: np.ndarray) -> None:
    runs = (
        list(mmcam.explain(slowfast, clip, mmcam.Actions([3]), method="gradcam-signed"))
        for _ in range(2)
    )
    for first, second in zip(*runs, strict=True):
        assert first.score == second.score
        torch.testing.assert_close(first.cam, second.cam, rtol=0, atol=0)


def test_both_maps_land_on_every_frame_of_the_clip(slowfast: Classifier, clip: np.ndarray) -> None:
    for explanation in mmcam.explain(slowfast, clip, mmcam.Actions([3])):
        assert explanation.heatmap().shape == (64, 48, 72)
        assert np.isfinite(explanation.heatmap()).all()


def test_the_slow_pathway_sees_frames_spread_over_the_fast_ones() -> None:
    pixels = torch.arange(32.0).view(1, 1, 32, 1, 1).expand(1, 3, 32, 2, 2)
    slow, fast = split_pathways(pixels)
    assert slow[0, 0, :, 0, 0].tolist() == [0, 4, 8, 13, 17, 22, 26, 31]
    assert fast is pixels


def test_the_model_gets_a_list_of_its_own_at_every_call(slowfast: Classifier) -> None:
    pixels = torch.randn(1, 3, 32, 64, 96)
    original = pixels.clone()
    inputs = Inputs(pixels=pixels, placements=())
    slowfast.model.eval()
    with torch.no_grad():
        first, second = slowfast.forward(inputs), slowfast.forward(inputs)
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    assert torch.equal(pixels, original)


@pytest.mark.parametrize("name", ["x3d_xs", "r2plus1d_r50"])
def test_heads_with_a_softmax_give_logits(name: str) -> None:
    """Both builders end in a softmax by default."""
    adapter = build(Recipe(family="pytorchvideo", name=name, pretrained=False))
    assert not any(isinstance(module, nn.Softmax) for module in adapter.model.modules())


def test_logits_of_x3d_do_not_sum_to_one() -> None:
    args = {"width_factor": 1.0, "depth_factor": 1.0, "head_dim_out": 16, "model_num_class": 5}
    adapter = build(Recipe(family="pytorchvideo", name="x3d_xs", args=args, pretrained=False))
    adapter.model.eval()
    with torch.no_grad():
        pixels = torch.randn(2, 3, 4, 160, 160)
        logits = adapter.logits(adapter.forward(Inputs(pixels=pixels, placements=())))
    assert logits.shape == (2, 5)
    assert (logits.sum(1) - 1).abs().min() > 1e-3
    assert logits.min() < 0


@pytest.mark.parametrize("name", sorted(MODELS))
def test_windows_are_those_of_the_published_results(name: str) -> None:
    published = MODELS[name]
    seconds = published.frames * published.stride / 30
    assert 1 < seconds < 5
    if name.startswith("mvit"):
        frames, stride = name.rpartition("_")[2].split("x")
        assert (published.frames, published.stride) == (int(frames), int(stride))


def test_an_unknown_model_is_refused_with_the_nearest() -> None:
    with pytest.raises(ModelError, match=r"no 'x3d_xx'; nearest: x3d_xs"):
        build(Recipe(family="pytorchvideo", name="x3d_xx", pretrained=False))


@pytest.mark.assets
def test_pretrained_models_have_the_names_of_kinetics(assets: Path) -> None:
    names = (assets / "video/labels/kinetics400.txt").read_text().splitlines()
    assert list(kinetics_names()) == names


def test_only_pretrained_models_have_names(monkeypatch: pytest.MonkeyPatch) -> None:
    from pytorchvideo.models import hub

    small = build(Recipe(family="pytorchvideo", name="x3d_xs", pretrained=False))
    assert small.labels == ()
    monkeypatch.setattr(hub, "x3d_xs", lambda pretrained, **options: small.model)
    published = build(Recipe(family="pytorchvideo", name="x3d_xs"))
    assert published.labels[151] == "high jump"
