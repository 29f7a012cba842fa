"""mmcam: which pixels, in which frames, made the model say this.

>>> import mmcam
>>> model = mmcam.load("torchvision:resnet50")
>>> maps = mmcam.explain(model, "photo.jpg", mmcam.Classes(["tabby"]), method="gradcam")
>>> maps["tabby"].heatmap()         # float32 in [0, 1] on the photo's own pixels
>>> maps.save("out/")               # explanation.json, maps.safetensors, pictures or clips
"""

from mmcam.errors import MmcamError
from mmcam.evaluators import EVALUATORS
from mmcam.explain import explain
from mmcam.explanation import Explanation
from mmcam.methods import METHODS
from mmcam.models import load, wrap
from mmcam.store import Explanations
from mmcam.tasks import Actions, Answers, Caption, Classes
from mmcam.types import Sample, Target

__all__ = [
    "EVALUATORS",
    "METHODS",
    "Actions",
    "Answers",
    "Caption",
    "Classes",
    "Explanation",
    "Explanations",
    "MmcamError",
    "Sample",
    "Target",
    "explain",
    "load",
    "wrap",
]
