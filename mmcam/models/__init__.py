"""From a model's name, a model folder or a module to an adapter."""

from mmcam.models.families import FAMILIES
from mmcam.models.registry import load, model_names
from mmcam.models.wrap import wrap

__all__ = ["FAMILIES", "load", "model_names", "wrap"]
