"""mmcam: which pixels, in which frames, made a model say this.

>>> import mmcam
>>> model = mmcam.load("torchvision:resnet50")
>>> maps = mmcam.explain(model, "photo.jpg", mmcam.Classes(["tabby"]), method="gradcam")
>>> maps["tabby"].heatmap()         # float32 in [0, 1] on the photo's own pixels
>>> maps.save("out/")               # explanation.json, maps.safetensors, pictures or clips
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmcam.adapters.base.preprocess import Preprocess, Transform
    from mmcam.api import explain, explain_each
    from mmcam.capture.proof import ProvenLayouts
    from mmcam.engine.tensors import cams
    from mmcam.errors import MmcamError
    from mmcam.evaluators import EVALUATORS
    from mmcam.explanations import Explanations, read
    from mmcam.methods import METHODS
    from mmcam.models import from_transformers, load, wrap, wrap_captioner, wrap_vqa
    from mmcam.results import Explanation
    from mmcam.tasks import Actions, Answers, Caption, Classes
    from mmcam.types import Adapter, Inputs, Placement, Sample, Target

    __version__: str

__all__ = [
    "EVALUATORS",
    "METHODS",
    "Actions",
    "Adapter",
    "Answers",
    "Caption",
    "Classes",
    "Explanation",
    "Explanations",
    "Inputs",
    "MmcamError",
    "Placement",
    "Preprocess",
    "ProvenLayouts",
    "Sample",
    "Target",
    "Transform",
    "cams",
    "explain",
    "explain_each",
    "from_transformers",
    "load",
    "read",
    "wrap",
    "wrap_captioner",
    "wrap_vqa",
]

_MODULES = {
    "adapters.base.preprocess": ("Preprocess", "Transform"),
    "api": ("explain", "explain_each"),
    "capture.proof": ("ProvenLayouts",),
    "engine.tensors": ("cams",),
    "errors": ("MmcamError",),
    "evaluators": ("EVALUATORS",),
    "explanations": ("Explanations", "read"),
    "methods": ("METHODS",),
    "models": ("from_transformers", "load", "wrap", "wrap_captioner", "wrap_vqa"),
    "results": ("Explanation",),
    "tasks": ("Actions", "Answers", "Caption", "Classes"),
    "types": ("Adapter", "Inputs", "Placement", "Sample", "Target"),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Import a public name on first use, so that the command line starts without torch."""
    if name == "__version__":
        from importlib.metadata import version

        value: Any = version("mmcam")
    elif name in _MODULE_OF:
        value = getattr(importlib.import_module(f"mmcam.{_MODULE_OF[name]}"), name)
    else:
        raise AttributeError(f"module 'mmcam' has no attribute '{name}'")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})
