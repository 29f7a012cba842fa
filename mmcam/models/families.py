"""The table of families: the module that builds each family's models, imported on first use."""

from __future__ import annotations

from typing import NamedTuple


class Family(NamedTuple):
    """One row of the table of families: its module, an example, and a summary of its models."""

    module: str
    example: str
    summary: str


FAMILIES: dict[str, Family] = {
    "torchvision": Family(
        "mmcam.adapters.torchvision",
        "torchvision:resnet50",
        "image and video classifiers of torchvision",
    ),
    "timm": Family("mmcam.adapters.timm", "timm:resnet50.a1_in1k", "image classifiers of timm"),
    "hf": Family(
        "mmcam.adapters.transformers",
        "hf:microsoft/resnet-50",
        "image and video classifiers, captioners and VQA models of transformers, hub or folder",
    ),
    "pytorchvideo": Family(
        "mmcam.adapters.pytorchvideo",
        "pytorchvideo:x3d_xs",
        "action classifiers of pytorchvideo",
    ),
    "c3d": Family("mmcam.adapters.c3d", "c3d", "C3D (Tran et al. 2015), with weights from a file"),
    "small": Family(
        "mmcam.adapters.small", "FOLDER", "the packaged models' small CNN, from a model folder"
    ),
    "show_and_tell": Family(
        "mmcam.adapters.show_and_tell", "FOLDER", "Show-and-Tell captioners, from a model folder"
    ),
    "show_attend_tell": Family(
        "mmcam.adapters.show_and_tell",
        "FOLDER",
        "Show, Attend and Tell captioners, from a model folder",
    ),
    "lstm_vqa": Family(
        "mmcam.adapters.vqa", "FOLDER", "LSTM and CNN for VQA (Lu et al. 2015), from a model folder"
    ),
    "co_attention": Family(
        "mmcam.adapters.vqa", "FOLDER", "hierarchical co-attention for VQA, from a model folder"
    ),
}
