"""Small untrained models of every family: one row per layout of layers that an adapter knows."""

from __future__ import annotations

from typing import Any

from torch import nn

from tests.adapters.tiny import CLASSES, tiny


def vit() -> nn.Module:
    from torchvision.models import VisionTransformer

    return VisionTransformer(48, 8, 2, 2, 16, 32, num_classes=CLASSES)


def swin() -> nn.Module:
    from torchvision.models import SwinTransformer

    return SwinTransformer([4, 4], 8, [1, 1], [1, 2], [2, 2], num_classes=CLASSES)


def swin_v2() -> nn.Module:
    from torchvision.models import SwinTransformer
    from torchvision.models.swin_transformer import PatchMergingV2, SwinTransformerBlockV2

    return SwinTransformer(
        [4, 4],
        8,
        [1, 1],
        [1, 2],
        [2, 2],
        num_classes=CLASSES,
        block=SwinTransformerBlockV2,
        downsample_layer=PatchMergingV2,
    )


def swin3d() -> nn.Module:
    from torchvision.models.video import SwinTransformer3d

    return SwinTransformer3d([2, 4, 4], 8, [1, 1], [1, 2], [2, 2, 2], num_classes=CLASSES)


def maxvit() -> nn.Module:
    from torchvision.models import MaxVit

    return MaxVit((64, 64), 8, 2, [8, 16], [1, 1], 4, 0.0, num_classes=CLASSES)


def mvit(second: bool) -> nn.Module:
    from torchvision.models.video.mvit import MSBlockConfig, MViT

    cubes = [3, 3, 3]
    # The second version widens at the beginning of a block, the first at the end.
    widths = [(8, 16), (16, 16)] if second else [(8, 8), (8, 16)]
    blocks = [
        MSBlockConfig(1, *widths[0], cubes, cubes, [1, 1, 1], [1, 2, 2]),
        MSBlockConfig(1, *widths[1], cubes, cubes, [1, 2, 2], [1, 1, 1]),
        MSBlockConfig(1, 16, 16, cubes, cubes, [1, 1, 1], [1, 1, 1]),
    ]
    return MViT(
        (32, 48),
        8,
        blocks,
        residual_pool=second,
        residual_with_cls_embed=False,
        rel_pos_embed=second,
        proj_after_attn=second,
        num_classes=CLASSES,
    )


TORCHVISION = [
    tiny("torchvision:vit_b_16", (48, 48), module=vit),
    tiny("torchvision:swin_t", (32, 48), module=swin),
    tiny("torchvision:swin_v2_t", (32, 48), module=swin_v2, slack=1),
    tiny("torchvision:maxvit_t", (64, 64), module=maxvit, slack=1),
    tiny("torchvision:resnet18", (96, 160), layer="layer3", bumps=True),
    tiny("torchvision:swin3d_t", (6, 32, 48), module=swin3d),
    tiny("torchvision:mvit_v1_b", (8, 32, 48), module=lambda: mvit(False), slack=1),
    tiny("torchvision:mvit_v2_s", (8, 32, 48), module=lambda: mvit(True), slack=1),
    tiny("torchvision:r3d_18", (8, 32, 48), layer="layer2", bumps=True),
]

SMALL = {"patch_size": 8, "depth": 2, "embed_dim": 16, "num_heads": 2, "img_size": (32, 48)}
VITS = (
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
WINDOWS: dict[str, Any] = {
    "img_size": (32, 64),
    "embed_dim": 8,
    "depths": (1, 1),
    "num_heads": (1, 2),
    "window_size": 4,
}
FOUR = (1, 1, 1, 1)
WIDTHS = (8, 8, 16, 16)

TIMM = [
    *(tiny(f"timm:{name}", (32, 48), **SMALL) for name in VITS),
    tiny("timm:mixer_s16_224", (64, 96), layer="stem", img_size=(64, 96)),
    tiny("timm:swin_tiny_patch4_window7_224", (32, 64), **WINDOWS),
    tiny("timm:swinv2_tiny_window8_256", (32, 64), **WINDOWS),
    tiny(
        "timm:xcit_nano_12_p16_224",
        (64, 96),
        slack=1,
        img_size=(64, 96),
        depth=2,
        embed_dim=16,
        num_heads=2,
    ),
    tiny(
        "timm:tnt_s_patch16_224",
        (64, 96),
        img_size=(64, 96),
        depth=2,
        embed_dim=24,
        inner_dim=8,
        num_heads_inner=2,
        num_heads_outer=2,
    ),
    tiny(
        "timm:pit_ti_224",
        (128, 192),
        slack=1,
        img_size=(128, 192),
        base_dims=(8, 8, 8),
        depth=(1, 1, 1),
        heads=(1, 1, 2),
    ),
    tiny(
        "timm:hiera_tiny_224",
        (32, 64),
        slack=1,
        img_size=(32, 64),
        embed_dim=8,
        stages=(1, 1),
        num_heads=1,
        mask_unit_size=(4, 4),
        q_pool=1,
    ),
    tiny(
        "timm:twins_svt_small",
        (96, 160),
        slack=1,
        img_size=(96, 160),
        embed_dims=WIDTHS,
        depths=FOUR,
        num_heads=FOUR,
        wss=(2, 2, 2, 2),
    ),
    tiny("timm:convnext_atto", (96, 160), depths=FOUR, dims=WIDTHS),
    tiny("timm:mambaout_femto", (96, 160), slack=1, depths=FOUR, dims=WIDTHS),
    tiny("timm:mobilenetv3_small_100", (96, 160), bumps=True),
]

PLAIN = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "patch_size": 8,
}
TEXT = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
SHIFTED: dict[str, Any] = {"patch_size": 4, "embed_dim": 8, "depths": [1, 1]}
STAGES: dict[str, Any] = {"hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1]}
HEADS = {"num_attention_heads": [1, 1, 1, 1], "mlp_ratios": [2, 2, 2, 2]}

HF_PICTURES = [
    *(
        tiny(f"hf:{name}", (32, 48), image_size=(32, 48), **PLAIN)
        for name in ("vit", "vit_msn", "deit", "beit", "data2vec-vision", "ijepa")
    ),
    tiny("hf:dinov2", (32, 32), image_size=32, **PLAIN),
    tiny("hf:dinov2_with_registers", (32, 32), image_size=32, num_register_tokens=3, **PLAIN),
    *(
        tiny(f"hf:{name}", (32, 32), vision_config={**PLAIN, "image_size": 32}, text_config=TEXT)
        for name in ("clip", "siglip")
    ),
    tiny("hf:swin", (32, 64), image_size=(32, 64), num_heads=[1, 2], window_size=4, **SHIFTED),
    tiny(
        "hf:swinv2",
        (32, 64),
        layer="swinv2.encoder.layers.0.blocks.0",
        image_size=(32, 64),
        num_heads=[1, 2],
        window_size=4,
        **SHIFTED,
    ),
    tiny(
        "hf:focalnet",
        (32, 32),
        image_size=32,
        hidden_sizes=[8, 16],
        focal_levels=[1, 1],
        focal_windows=[3, 3],
        **SHIFTED,
    ),
    tiny("hf:pvt", (128, 128), image_size=128, **STAGES, **HEADS),
    tiny("hf:pvt_v2", (96, 160), slack=1, sr_ratios=[8, 4, 2, 1], **STAGES, **HEADS),
    tiny("hf:segformer", (96, 160), slack=1, **STAGES, **HEADS),
    tiny(
        "hf:levit",
        (128, 128),
        layer="levit.patch_embeddings",
        bumps=True,
        image_size=128,
        hidden_sizes=[16, 32, 48],
        num_attention_heads=[1, 1, 1],
        depths=[1, 1, 1],
        key_dim=[8, 8, 8],
    ),
    tiny(
        "hf:hiera",
        (32, 64),
        slack=1,
        image_size=[32, 64],
        embed_dim=8,
        depths=[1, 1],
        num_heads=[1, 2],
        masked_unit_size=[4, 4],
        num_query_pool=1,
    ),
    tiny("hf:convnext", (96, 160), **STAGES),
    tiny("hf:convnextv2", (96, 160), **STAGES),
    tiny("hf:poolformer", (96, 160), slack=1, **STAGES),
    tiny("hf:resnet", (96, 160), bumps=True, embedding_size=8, **STAGES),
    tiny("hf:regnet", (96, 160), bumps=True, embedding_size=8, groups_width=8, **STAGES),
    tiny("hf:bit", (96, 160), slack=1, num_groups=8, hidden_sizes=[32, 32, 32, 64], depths=FOUR),
    tiny(
        "hf:mobilenet_v1",
        (96, 160),
        layer="mobilenet_v1.layer.10",
        bumps=True,
        depth_multiplier=0.125,
    ),
    tiny(
        "hf:mobilenet_v2",
        (96, 160),
        layer="mobilenet_v2.layer.6",
        bumps=True,
        depth_multiplier=0.25,
    ),
    tiny(
        "hf:efficientnet",
        (96, 160),
        layer="efficientnet.encoder.blocks.2",
        bumps=True,
        width_coefficient=0.25,
        depth_coefficient=0.1,
        hidden_dim=320,
    ),
    tiny("hf:mobilevit", (96, 160), layer="mobilevit.encoder.layer.1", bumps=True, image_size=96),
    tiny(
        "hf:mobilevitv2",
        (96, 160),
        layer="mobilevitv2.encoder.layer.1",
        bumps=True,
        width_multiplier=0.25,
    ),
]

HF_CLIPS = [
    tiny("hf:videomae", (4, 32, 48), image_size=(32, 48), num_frames=4, **PLAIN),
    tiny("hf:timesformer", (3, 32, 32), image_size=32, num_frames=3, **PLAIN),
    tiny(
        "hf:vivit",
        (4, 32, 48),
        image_size=(32, 48),
        num_frames=4,
        tubelet_size=[2, 8, 8],
        **PLAIN,
    ),
    tiny(
        "hf:vjepa2",
        (4, 32, 32),
        crop_size=32,
        frames_per_clip=4,
        tubelet_size=2,
        pred_hidden_size=12,
        pred_num_attention_heads=2,
        pred_num_hidden_layers=1,
        num_pooler_layers=1,
        **{**PLAIN, "hidden_size": 24},
    ),
]

CLIPS = [
    tiny(
        "pytorchvideo:x3d_xs",
        (4, 160, 160),
        layer="blocks.1",
        slack=2,
        bumps=True,
        width_factor=1.0,
        depth_factor=1.0,
        head_dim_out=16,
    ),
    tiny(
        "pytorchvideo:i3d_r50",
        (4, 64, 96),
        layer="blocks.4",
        bumps=True,
        stem_dim_out=8,
        head_pool_kernel_size=(2, 2, 3),
    ),
    tiny(
        "pytorchvideo:slowfast_r50",
        (16, 32, 48),
        layer="blocks.1.multipathway_blocks.*",
        slack=2,
        bumps=True,
        stem_dim_outs=(8, 2),
        slowfast_channel_reduction_ratio=(4,),
        head_pool_kernel_sizes=((4, 1, 1), (16, 1, 1)),
    ),
    tiny(
        "pytorchvideo:mvit_base_16x4",
        (8, 64, 96),
        layer="blocks.2.norm1",
        slack=1,
        spatial_size=(64, 96),
        temporal_size=8,
        patch_embed_dim=8,
        head_num_classes=CLASSES,
    ),
    tiny(
        "c3d",
        (16, 64, 96),
        bumps=True,
        classes=CLASSES,
        channels=(8, 8, 8, 8, 8),
        hidden=8,
        size=(16, 64, 96),
    ),
]

EVERY = [*TORCHVISION, *TIMM, *HF_PICTURES, *HF_CLIPS, *CLIPS]
