"""Small untrained models of every family, built through the families' own adapters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from unittest import mock

import torch
from torch import nn

from mmcam.adapters.classifier import Classifier
from mmcam.adapters.recipe import Recipe
from mmcam.models import build

CLASSES = 5
Space = tuple[int, ...]


class Tiny(NamedTuple):
    """A model, the input it eats, and how sharply one of its layers sees single patches."""

    family: str
    name: str
    space: Space
    args: Mapping[str, Any] = {}
    layer: str | None = None
    """The layer to probe; the default layer when None."""
    slack: int = 0
    """How many cells off its patch the strongest change may lie: strided convolutions overlap."""
    module: Callable[[], nn.Module] | None = None
    """Builds the model where its library's own builder has no small one."""

    def __str__(self) -> str:
        return f"{self.family}-{self.name or self.family}-{self.layer or 'default'}"

    def build(self) -> Classifier:
        """The adapter, the same weights every time."""
        torch.manual_seed(0)
        recipe = Recipe(family=self.family, name=self.name, args=self.args, pretrained=False)
        if self.module is None:
            adapter = build(recipe)
        else:
            module = self.module()
            with mock.patch("torchvision.models.get_model", lambda *_, **__: module):
                adapter = build(recipe)
        assert isinstance(adapter, Classifier)
        enliven(adapter.model)
        return adapter


@torch.no_grad()
def enliven(model: nn.Module) -> None:
    """Weights that keep the size of what flows through (He et al. 2015), in heads of zeros too."""
    for module in model.modules():
        if isinstance(module, (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)):
            module.weight.normal_(std=(2 / module.weight[0].numel()) ** 0.5)


def vit() -> nn.Module:
    from torchvision.models import VisionTransformer

    return VisionTransformer(48, 8, 2, 2, 16, 32, num_classes=CLASSES)


def swin(version: int) -> nn.Module:
    from torchvision.models import SwinTransformer, swin_transformer

    kinds = (
        {}
        if version == 1
        else {
            "block": swin_transformer.SwinTransformerBlockV2,
            "downsample_layer": swin_transformer.PatchMergingV2,
        }
    )
    return SwinTransformer([4, 4], 8, [1, 1], [1, 2], [2, 2], num_classes=CLASSES, **kinds)


def maxvit() -> nn.Module:
    from torchvision.models import MaxVit

    return MaxVit((64, 64), 8, 2, [8, 16], [1, 1], 4, 0.0, num_classes=CLASSES)


def mvit(version: int) -> nn.Module:
    from torchvision.models.video.mvit import MSBlockConfig, MViT

    first, *others = (
        MSBlockConfig(1, width, 16, [3, 3, 3], [3, 3, 3], stride, [1, 1, 1])
        for width, stride in ((8, [1, 1, 1]), (16, [1, 2, 2]), (16, [1, 1, 1]))
    )
    v2 = version == 2
    if not v2:  # the first version widens at the end of a block
        first.output_channels, others[0].input_channels = 8, 8
    return MViT(
        (32, 48),
        8,
        [first, *others],
        residual_pool=v2,
        residual_with_cls_embed=False,
        rel_pos_embed=v2,
        proj_after_attn=v2,
        num_classes=CLASSES,
    )


def swin3d() -> nn.Module:
    from torchvision.models.video import SwinTransformer3d

    return SwinTransformer3d([2, 4, 4], 8, [1, 1], [1, 2], [2, 2, 2], num_classes=CLASSES)


TORCHVISION = [
    Tiny("torchvision", "vit_b_16", (48, 48), module=vit),
    Tiny("torchvision", "swin_t", (32, 48), module=lambda: swin(1)),
    Tiny("torchvision", "swin_v2_t", (32, 48), module=lambda: swin(2), slack=1),
    Tiny("torchvision", "maxvit_t", (64, 64), module=maxvit, slack=1),
    Tiny("torchvision", "resnet18", (96, 160), layer="layer3", slack=1),
    Tiny("torchvision", "mvit_v2_s", (8, 32, 48), module=lambda: mvit(2), slack=1),
    Tiny("torchvision", "mvit_v1_b", (8, 32, 48), module=lambda: mvit(1), slack=1),
    Tiny("torchvision", "swin3d_t", (6, 32, 48), module=swin3d),
    Tiny("torchvision", "r3d_18", (8, 32, 48), layer="layer2", slack=1),
]

SMALL = {"patch_size": 8, "depth": 2, "embed_dim": 16, "num_heads": 2, "num_classes": CLASSES}
MIXER = {"num_blocks": 1, "embed_dim": 16, "num_classes": CLASSES}
WINDOWS = {"embed_dim": 8, "depths": (1, 1), "num_heads": (1, 2), "window_size": 4}
STAGES = {"depths": (1, 1, 1, 1), "dims": (8, 8, 16, 16), "num_classes": CLASSES}


def timm(name: str, space: Space, layer: str | None = None, slack: int = 0, **args: Any) -> Tiny:
    args = {"num_classes": CLASSES, "img_size": space, **args}
    return Tiny("timm", name, space, args, layer, slack)


TIMM = [
    *(
        timm(name, (32, 48), **SMALL)
        for name in (
            "vit_tiny_patch16_224",
            "vit_small_patch16_dinov3",
            "vit_small_patch14_reg4_dinov2",
            "vit_base_patch16_siglip_224",
            "vit_pe_core_tiny_patch16_384",
            "vit_relpos_small_patch16_224",
            "naflexvit_base_patch16_gap",
            "deit_tiny_distilled_patch16_224",
            "beit_base_patch16_224",
            "eva02_tiny_patch14_224",
            "cait_xxs24_224",
        )
    ),
    *(timm(name, (64, 96), layer="stem", **MIXER) for name in ("mixer_s16_224", "gmlp_s16_224")),
    timm("swin_tiny_patch4_window7_224", (32, 64), **WINDOWS),
    timm("swinv2_tiny_window8_256", (32, 64), **WINDOWS),
    timm("xcit_nano_12_p16_224", (64, 96), slack=1, depth=2, embed_dim=16, num_heads=2),
    timm("tnt_s_patch16_224", (64, 96), depth=2, embed_dim=24, inner_dim=8),
    timm("pit_ti_224", (128, 192), slack=1, base_dims=(8, 8, 8), depth=(1, 1, 1), heads=(1, 1, 2)),
    timm(
        "hiera_tiny_224",
        (32, 64),
        slack=1,
        embed_dim=8,
        stages=(1, 1),
        num_heads=1,
        mask_unit_size=(4, 4),
        q_pool=1,
    ),
    timm(
        "twins_svt_small",
        (96, 160),
        embed_dims=(8, 8, 16, 16),
        depths=(1, 1, 1, 1),
        num_heads=(1, 1, 1, 1),
        wss=(2, 2, 2, 2),
    ),
    timm("levit_128s", (160, 256), slack=1, embed_dim=(16, 16, 16), depth=(1, 1, 1)),
    timm("sequencer2d_s", (64, 96), slack=1, embed_dims=(8, 16, 16, 16), layers=(1, 1, 1, 1)),
    Tiny("timm", "convnext_atto", (96, 160), STAGES),
    Tiny("timm", "mambaout_femto", (96, 160), STAGES, slack=1),
    Tiny("timm", "mobilenetv3_small_100", (96, 160), {"num_classes": CLASSES}, slack=1),
    Tiny("timm", "vgg11", (64, 96), {"num_classes": CLASSES}, layer="features.10", slack=1),
]

PLAIN = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "image_size": (32, 48),
    "patch_size": 8,
    "num_labels": CLASSES,
}
SQUARE = {**PLAIN, "image_size": 32}
SINGLE = {key: value for key, value in SQUARE.items() if key != "num_labels"}
TEXT = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
HIERARCHY = {"hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1], "num_labels": CLASSES}
HEADS = {"num_attention_heads": [1, 1, 1, 1], "mlp_ratios": [2, 2, 2, 2]}
SHIFTED = {"patch_size": 4, "embed_dim": 8, "depths": [1, 1], "num_labels": CLASSES}


def hf(
    name: str, space: Space, layer: str | None = None, slack: int = 0, /, **args: Any
) -> Tiny:
    return Tiny("hf", name, space, {"num_labels": CLASSES, **args}, layer, slack)


HF_PICTURES = [
    *(
        hf(name, (32, 48), **PLAIN)
        for name in ("vit", "vit_msn", "deit", "beit", "data2vec-vision", "ijepa")
    ),
    hf("dinov2", (32, 32), **SQUARE),
    hf("dinov2_with_registers", (32, 32), **SQUARE, num_register_tokens=3),
    *(
        hf(name, (32, 32), vision_config=SINGLE, text_config=TEXT)
        for name in ("clip", "siglip")
    ),
    hf("swin", (32, 64), **SHIFTED, image_size=(32, 64), num_heads=[1, 2], window_size=4),
    hf("swinv2", (32, 64), None, 1, **SHIFTED, image_size=(32, 64), num_heads=[1, 2], window_size=4),
    hf(
        "focalnet",
        (32, 32),
        **SHIFTED,
        image_size=32,
        hidden_sizes=[8, 16],
        focal_levels=[1, 1],
        focal_windows=[3, 3],
    ),
    hf("pvt", (128, 128), **HIERARCHY, **HEADS, image_size=128),
    hf("pvt_v2", (96, 160), None, 1, **HIERARCHY, **HEADS, sr_ratios=[8, 4, 2, 1]),
    hf("segformer", (96, 160), None, 1, **HIERARCHY, **HEADS),
    hf(
        "levit",
        (96, 96),
        "levit.encoder.stages.0",
        1,
        image_size=96,
        hidden_sizes=[16, 32, 48],
        num_attention_heads=[1, 1, 1],
        depths=[1, 1, 1],
        key_dim=[8, 8, 8],
    ),
    hf(
        "hiera",
        (32, 64),
        None,
        1,
        image_size=[32, 64],
        embed_dim=8,
        depths=[1, 1],
        num_heads=[1, 2],
        masked_unit_size=[4, 4],
        num_query_pool=1,
    ),
    hf("convnext", (96, 160), **HIERARCHY),
    hf("convnextv2", (96, 160), **HIERARCHY),
    hf("poolformer", (96, 160), None, 1, **HIERARCHY),
    hf("resnet", (96, 160), None, 1, **HIERARCHY, embedding_size=8),
    hf("regnet", (96, 160), None, 1, **HIERARCHY, embedding_size=8, groups_width=8),
    hf("bit", (96, 160), None, 1, hidden_sizes=[32, 32, 32, 64], depths=[1] * 4, num_groups=8),
    hf("mobilenet_v1", (96, 160), "mobilenet_v1.layer.5", 1, depth_multiplier=0.125),
    hf("mobilenet_v2", (96, 160), "mobilenet_v2.layer.3", 1, depth_multiplier=0.25),
    hf("efficientnet", (96, 160), "efficientnet.encoder.blocks.3", 1, width_coefficient=0.25, depth_coefficient=0.1, hidden_dim=320),
    hf("mobilevit", (96, 160), "mobilevit.encoder.layer.1", 1, image_size=96),
    hf("mobilevitv2", (96, 160), "mobilevitv2.encoder.layer.1", 1, width_multiplier=0.25),
]

HF_CLIPS = [
    hf("videomae", (4, 32, 48), **PLAIN, num_frames=4),
    hf("timesformer", (3, 32, 32), **SQUARE, num_frames=3),
    hf("vivit", (4, 32, 48), **PLAIN, num_frames=4, tubelet_size=[2, 8, 8]),
    hf(
        "vjepa2",
        (4, 32, 32),
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        patch_size=8,
        crop_size=32,
        frames_per_clip=4,
        tubelet_size=2,
        pred_hidden_size=12,
        pred_num_attention_heads=2,
        pred_num_hidden_layers=1,
        num_pooler_layers=1,
    ),
]

NARROW = {"stem_dim_out": 8, "model_num_class": CLASSES}
SLOWFAST = {
    "stem_dim_outs": (8, 2),
    "slowfast_channel_reduction_ratio": (4,),
    "model_num_class": CLASSES,
}
X3D = {"width_factor": 1.0, "depth_factor": 1.0, "head_dim_out": 16, "model_num_class": CLASSES}

CLIPS = [
    Tiny("pytorchvideo", "x3d_xs", (4, 160, 160), X3D, slack=1),
    Tiny(
        "pytorchvideo",
        "i3d_r50",
        (4, 64, 96),
        {**NARROW, "head_pool_kernel_size": (2, 2, 3)},
        "blocks.3",
        1,
    ),
    Tiny(
        "pytorchvideo",
        "slowfast_r50",
        (8, 32, 48),
        {**SLOWFAST, "head_pool_kernel_sizes": ((2, 1, 1), (8, 1, 1))},
        "blocks.1.multipathway_blocks.*",
        1,
    ),
    Tiny(
        "pytorchvideo",
        "mvit_base_16x4",
        (8, 64, 96),
        {
            "spatial_size": (64, 96),
            "temporal_size": 8,
            "patch_embed_dim": 8,
            "head_num_classes": CLASSES,
        },
        "blocks.2.norm1",
        1,
    ),
    Tiny(
        "c3d",
        "",
        (16, 64, 96),
        {"classes": CLASSES, "channels": (16, 16, 16, 16, 16), "hidden": 8, "size": (16, 64, 96)},
        "relu4b",
        1,
    ),
]

EVERY = [*TORCHVISION, *TIMM, *HF_PICTURES, *HF_CLIPS, *CLIPS]
