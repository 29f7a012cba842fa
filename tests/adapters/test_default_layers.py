"""The default layer of each family gives a map that depends on the score."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch

import mmcam
from mmcam.adapters.base.classifier import Classifier
from mmcam.adapters.base.recipe import Recipe
from mmcam.models.registry import build, model_names
from tests.adapters import tiny, tiny_models
from tests.adapters.tiny import Tiny

SMALL = [
    "torchvision:densenet121",
    "torchvision:efficientnet_b0",
    "torchvision:googlenet",
    "torchvision:mnasnet0_5",
    "torchvision:mobilenet_v3_small",
    "torchvision:regnet_y_400mf",
    "torchvision:shufflenet_v2_x0_5",
    "torchvision:squeezenet1_1",
    "timm:edgenext_xx_small",
    "timm:efficientnet_b0",
    "timm:ghostnet_100",
    "timm:hardcorenas_a",
    "timm:mobilenetv2_100",
    "timm:mobilevit_xxs",
    "timm:regnety_002",
    "timm:repvgg_a0",
    "timm:tinynet_e",
]
"""Full-size architectures that are quick to build and take pictures of any size."""

SLOW_TIMM = [
    "caformer_s18",
    "cait_xxs24_224",
    "coat_lite_tiny",
    "coat_tiny",
    "coatnet_nano_rw_224",
    "convmixer_768_32",
    "convnextv2_atto",
    "crossvit_tiny_240",
    "cspresnet50",
    "darknet53",
    "davit_tiny",
    "deit3_small_patch16_224",
    "dla34",
    "dpn68",
    "efficientformer_l1",
    "efficientvit_b0",
    "efficientvit_m0",
    "fastvit_t8",
    "focalnet_tiny_srf",
    "gcvit_xxtiny",
    "gmlp_s16_224",
    "hiera_tiny_224",
    "hrnet_w18_small",
    "inception_next_tiny",
    "inception_resnet_v2",
    "inception_v3",
    "inception_v4",
    "lcnet_050",
    "levit_128s",
    "levit_conv_128s",
    "mambaout_femto",
    "maxvit_nano_rw_256",
    "mobilenetv4_conv_small",
    "mobilevitv2_050",
    "mvitv2_tiny",
    "nest_tiny",
    "nfnet_f0",
    "pit_ti_224",
    "poolformer_s12",
    "pvt_v2_b0",
    "rdnet_tiny",
    "regnetx_002",
    "repvit_m0_9",
    "res2net50_26w_4s",
    "resmlp_12_224",
    "rexnet_100",
    "selecsls42b",
    "sequencer2d_s",
    "seresnext26d_32x4d",
    "skresnet18",
    "starnet_s1",
    "swinv2_cr_tiny_ns_224",
    "tf_efficientnetv2_b0",
    "tiny_vit_5m_224",
    "tnt_s_patch16_224",
    "tresnet_m",
    "twins_svt_small",
    "vgg11_bn",
    "visformer_tiny",
    "vit_base_patch16_clip_224",
    "volo_d1_224",
    "vovnet39a",
    "xception41",
    "xcit_nano_12_p16_224",
]
BIG = (
    "_h_14",
    "_l_16",
    "_l_32",
    "128gf",
    "32gf",
    "_l",
    "b5",
    "b6",
    "b7",
    "convnext_large",
    "vgg19",
)
SLOW = [
    *(f"timm:{name}" for name in SLOW_TIMM),
    *(
        name
        for family in ("torchvision:", "pytorchvideo:")
        for name in model_names(family)
        if not name.endswith(BIG)
    ),
]


def signed_maps(adapter: Classifier, size: Sequence[int]) -> mmcam.Explanations:
    """Signed maps of the first class on noise."""
    frames = [adapter.window.frames] if adapter.window else []
    pixels = np.random.default_rng(0).integers(0, 256, (*frames, *size, 3), dtype=np.uint8)
    return mmcam.explain(adapter, pixels, mmcam.Classes(top=1), method="gradcam-signed")


@pytest.mark.parametrize("case", tiny_models.EVERY, ids=str)
def test_default_layers_of_tiny_models_have_a_signed_map(case: Tiny) -> None:
    maps = signed_maps(case.build(tiny.lively), case.space[-2:])
    assert maps
    for explanation in maps:
        assert explanation.cam.ndim == len(case.space)
        assert explanation.cam.isfinite().all()
        assert explanation.cam.any()


@pytest.mark.parametrize("name", SMALL)
def test_default_layers_of_whole_models_have_a_signed_map(name: str) -> None:
    assert_has_signed_maps(name, {"resize": (96, 160)})


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("vgg11", "features.19"),
        ("efficientnet_b0", "bn2"),
        ("coat_tiny", "serial_blocks4.1.norm1"),
        ("coatnet_nano_rw_224", "stages.3"),
        ("vit_tiny_patch16_224", "blocks.11.norm1"),
        ("vit_relpos_small_patch16_224", "blocks.11"),
        ("cait_xxs24_224", "blocks.23"),
        ("xcit_nano_12_p16_224", "blocks.11"),
        ("hrnet_w18_small", "final_layer"),
    ],
)
def test_timm_models_whose_last_feature_is_not_the_default_layer(name: str, layer: str) -> None:
    with torch.device("meta"):
        adapter = build(Recipe(family="timm", name=name, pretrained=False))
    assert adapter.layers == (layer,)


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW)
def test_default_layers_of_further_models_have_a_signed_map(name: str) -> None:
    assert_has_signed_maps(name, None)


def assert_has_signed_maps(name: str, preprocess: dict[str, object] | None) -> None:
    torch.manual_seed(0)
    family, _, model = name.partition(":")
    adapter = build(Recipe(family=family, name=model, pretrained=False, preprocess=preprocess))
    assert isinstance(adapter, Classifier)
    tiny.ready(adapter.model, tiny.lively)
    for explanation in signed_maps(adapter, (240, 320)):
        assert explanation.cam.shape[-2] > 1
        assert explanation.cam.shape[-1] > 1
        assert explanation.cam.any()
