"""Load an adapter by name or from a model folder, or wrap a module as one."""

from mmcam.models.families import FAMILIES
from mmcam.models.registry import load, model_names
from mmcam.models.wrap import wrap

__all__ = ["FAMILIES", "load", "model_names", "wrap"]
