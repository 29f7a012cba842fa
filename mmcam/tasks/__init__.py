"""Tasks: what a user wants explained. A task is plain data; the adapter turns it into targets."""

from mmcam.tasks.answers import Answers
from mmcam.tasks.caption import Caption
from mmcam.tasks.classification import Actions, Classes

__all__ = ["Actions", "Answers", "Caption", "Classes"]
