"""Load an adapter by name or from a model folder, or wrap a module as one."""

from mmcam.models.captioners import wrap_captioner
from mmcam.models.families import FAMILIES
from mmcam.models.in_memory import from_transformers
from mmcam.models.registry import load, model_names
from mmcam.models.vqa import wrap_vqa
from mmcam.models.wrap import wrap

__all__ = [
    "FAMILIES",
    "from_transformers",
    "load",
    "model_names",
    "wrap",
    "wrap_captioner",
    "wrap_vqa",
]
